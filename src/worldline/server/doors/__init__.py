"""Who may come in, and how much of what: nothing behind this package asks for a token again.

An ASGI middleware (`gate.Doors`) stands before every route; `app.create_app` puts it there. What a
route may rely on:

- the host name and the origin were checked, and a token where one is required;
- `clients.client_of(scope)` tells who it is: a stable `name` for limits per client (on our own wire
  from the first message on, since `hello` may bring the token), and whether it is an administrator;
- tokens are gone from the scope's headers and sub-protocols, so nothing can log them;
- messages and bytes of a socket come at a bounded rate, request bodies are bounded.

    keys, tokens   API keys, HS256 tokens -> Client     origins   host names and origins
    policy         all rules as one value               buckets   token buckets, per address
    gate           the middleware                       bounded   the rates of one connection
    hello          a socket without a token yet         wire      refusals, as each side reads them
    listening      before any request: heads, counts    tls       certificates
    admin          the listener of its own for metrics, traces and worlds
"""

"""The doors: an ASGI middleware before every route. Refuses first, cheapest check first.

    host name -> origin -> rate of this address -> token -> role -> sizes -> the app

To wire them: `policy.policy_of(config, keyring, page=...)` makes the rules from the settings, and
`Starlette(..., middleware=[doors(rules, clock=clock, count=...)])` puts the doors before the app.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worldline.core.errors import (
    AccessError,
    ForbiddenError,
    RateError,
    TooLargeError,
    UnauthorizedError,
    WorldlineError,
)
from worldline.server.doors import bounded, origins, wire
from worldline.server.doors.address import address_of, is_local
from worldline.server.doors.buckets import Bucket, Buckets, Rate
from worldline.server.doors.clients import Client, set_client
from worldline.server.doors.hello import HelloGuard, HelloTerms
from worldline.server.doors.policy import Policy
from worldline.server.doors.presented import hide_tokens, presented_token
from worldline.server.doors.wire import Refusal
from worldline.server.logs import log
from worldline.server.waiting import AsyncClock

logger = logging.getLogger("worldline.server.doors")

LOGGED = Rate(per_s=1.0, burst=20.0)  # refusals worth a line: who knocks often fills no disk
SIZE_EXTENSION = "worldline.max_message_bytes"
PULSE_EXTENSION = "worldline.own_pulse"
_CORS_AGE = b"600"


def keep_own_pulse(scope: Scope) -> None:
    """The app notices itself when this socket's peer is gone: none of the server's own pings.

    To be called before the socket is accepted. A peer that stalls answers no ping, and would be
    cut although it comes back.
    """
    keep: Callable[[], None] | None = scope.get("extensions", {}).get(PULSE_EXTENSION)
    if keep is not None:
        keep()


class Entry(NamedTuple):
    """What the checks found: `client` None will say who it is in `hello`; `cors` is an origin."""

    client: Client | None
    cors: str | None


class Doors:
    """The middleware. `count` hears the code of every refusal."""

    def __init__(
        self, app: ASGIApp, policy: Policy, *, clock: AsyncClock, count: Callable[[str], None]
    ) -> None:
        self._app = app
        self._policy = policy
        self._clock = clock
        self._count = count
        self._sockets = Buckets(policy.sockets, clock)
        self._requests = Buckets(policy.requests, clock)
        self._open: Counter[str] = Counter()
        self._strangers: set[object] = set()
        self._log = Bucket(LOGGED, clock.now())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        address = address_of(scope)
        try:
            cors = self._check_page(headers)
            if cors is not None and _is_preflight(scope, headers):
                await _answer_preflight(send, cors)
                return
            self._check_rate(scope, address)
            entry = Entry(self._check_token(scope, headers), cors)
            self._check_size(headers, self._policy.max_body(scope["path"]))
        except _Refused as refused:
            self._note(scope, refused.refusal.error)
            await wire.refuse(scope, receive, send, refusal=refused.refusal)
            return
        hide_tokens(scope)
        if scope["type"] == "http":
            await self._request(scope, receive, send, entry=entry)
        else:
            await self._socket(scope, receive, send, entry=entry)

    async def _request(self, scope: Scope, receive: Receive, send: Send, *, entry: Entry) -> None:
        assert entry.client is not None, "only a socket may say later who it is"
        set_client(scope, entry.client)
        reply = send if entry.cors is None else _with_cors(send, entry.cors)
        most = self._policy.max_body(scope["path"])
        await self._app(scope, bounded.limited(receive, most), reply)

    async def _socket(self, scope: Scope, receive: Receive, send: Send, *, entry: Entry) -> None:
        address, policy = address_of(scope), self._policy
        receive = bounded.paced(receive, policy.messages, policy.volume, clock=self._clock)
        self._open[address] += 1
        try:
            if entry.client is not None:
                self._admit(scope, entry.client)
                await self._app(scope, receive, send)
            else:
                set_client(scope, Client(f"at:{address}"))
                await self._stranger(scope, receive, send)
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]

    async def _stranger(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A socket that will say in `hello` who it is; they may not take all places."""
        policy = self._policy
        if len(self._strangers) >= policy.max_strangers:
            error = RateError("too many sockets have shown no token", expected="slow down")
            self._note(scope, error)
            await wire.refuse(scope, receive, send, refusal=Refusal(error, retry_after_s=1.0))
            return
        me = object()

        def admit(client: Client) -> None:
            self._strangers.discard(me)
            self._admit(scope, client)

        guard = HelloGuard(
            receive,
            send,
            terms=HelloTerms(policy.keyring, policy.hello_timeout_s, self._clock),
            admit=admit,
            refused=lambda error: self._note(scope, error),
        )
        self._strangers.add(me)
        try:
            await self._app(scope, guard.receive, guard.send)
        finally:
            self._strangers.discard(me)

    def _admit(self, scope: Scope, client: Client) -> None:
        set_client(scope, client)
        _set_max_message(scope, self._policy.max_message_bytes)

    def _check_page(self, headers: Headers) -> str | None:
        """The allowed origin that asks, if it is not our own page."""
        host, origin = headers.get("host"), headers.get("origin")
        try:
            origins.check_host(host, self._policy.origins)
            is_other = origins.check_origin(origin, host, self._policy.origins)
        except ForbiddenError as error:
            raise _Refused(Refusal(error)) from None
        return origin if is_other else None

    def _check_rate(self, scope: Scope, address: str) -> None:
        if is_local(address):
            return
        is_socket = scope["type"] == "websocket"
        wait = (self._sockets if is_socket else self._requests).ask(address)
        what = "sockets" if is_socket else "requests"
        if not wait and is_socket and self._open[address] >= self._policy.sockets_per_address:
            wait = 1.0
        if wait:
            error = RateError(f"too many {what} from one address", expected="slow down")
            raise _Refused(Refusal(error, retry_after_s=wait))

    def _check_token(self, scope: Scope, headers: Headers) -> Client | None:
        policy = self._policy
        needs_admin = policy.is_admin_path(scope["path"])
        if not policy.keyring.needed:
            return Client(f"at:{address_of(scope)}", admin=True)
        if policy.is_public(scope):
            return Client(f"at:{address_of(scope)}")
        token = presented_token(scope, headers)
        if token is None and wire.is_live(scope):
            return None
        try:
            if token is None:
                raise UnauthorizedError(
                    "a token is required", expected="Authorization: Bearer TOKEN"
                )
            client = policy.keyring.who(token)
            if needs_admin and not client.admin:
                raise ForbiddenError("this is for administrators", expected="a key with admin")
        except AccessError as error:
            raise _Refused(Refusal(error)) from None
        return client

    def _check_size(self, headers: Headers, limit: int) -> None:
        """A body that says it is too long is not read at all; others are counted as they come."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > limit:
            error = TooLargeError("the body is too long", expected=f"at most {limit} bytes")
            raise _Refused(Refusal(error))

    def _note(self, scope: Scope, error: WorldlineError) -> None:
        self._count(error.code)
        if not self._log.ask(self._clock):
            said = {"address": address_of(scope), "path": scope["path"][:200], "code": error.code}
            log(logger, logging.WARNING, "refused at the door", **said)


def doors(policy: Policy, *, clock: AsyncClock, count: Callable[[str], None]) -> Middleware:
    """The doors as an app's middleware; `count` hears the code of every refusal."""
    return Middleware(Doors, policy, clock=clock, count=count)


class _Refused(Exception):
    """Ends the checks."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.error.code)
        self.refusal = refusal


def _set_max_message(scope: Scope, size: int) -> None:
    """Raise the limit of a socket's messages, where the listener offers that."""
    setter: Callable[[int], None] | None = scope.get("extensions", {}).get(SIZE_EXTENSION)
    if setter is not None:
        setter(size)


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    is_options = scope["type"] == "http" and scope["method"] == "OPTIONS"
    return is_options and "access-control-request-method" in headers


def _cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]


async def _answer_preflight(send: Send, origin: str) -> None:
    headers = [
        *_cors_headers(origin),
        (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
        (b"access-control-allow-headers", b"Authorization, Content-Type"),
        (b"access-control-max-age", _CORS_AGE),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _with_cors(send: Send, origin: str) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", [])
                if name.lower() != b"access-control-allow-origin"
            ]
            message = {**message, "headers": [*kept, *_cors_headers(origin)]}
        await send(message)

    return send_with_headers

"""Files of a server over HTTP: recordings and traces. Blocking; with the server's key."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request

from worldline.client.address import Address
from worldline.client.errors import ConnectionLostError
from worldline.client.line import is_here
from worldline.core.errors import InputError
from worldline.core.secret import Secret

TIMEOUT_S = 60.0


def fetch(address: Address, path: str, *, key: Secret | None, tls: ssl.SSLContext | None) -> bytes:
    """What lies at `path` of a server, such as `recording.url`.

    Raises: InputError where there is nothing, ConnectionLostError where nobody answers.
    """
    if not path.startswith("/") or path.startswith("//"):
        raise InputError("not a path of the server", expected="/v1/...", got=path)
    url = address.http(path)
    request = urllib.request.Request(url)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key.reveal()}")
    try:
        with _opener(url, tls).open(request, timeout=TIMEOUT_S) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise InputError("the server has no such file", got=f"{error.code} {path}") from None
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise ConnectionLostError(f"{url} does not answer: {error}") from error


def _opener(url: str, tls: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """One that follows no redirect: the key goes to the server that was named and to no other."""
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler({} if is_here(url) else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=tls),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ]
    for handler in handlers:
        opener.add_handler(handler)
    return opener

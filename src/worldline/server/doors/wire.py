"""A refusal as each side can read it: JSON over HTTP, a message on our own wire, or a status.

Browsers hide status and headers of a failed handshake from a page. So our own wire accepts the
socket, says `error` and closes with 4000 + the HTTP status; all others get the status itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET
from starlette.types import Receive, Scope, Send

from worldline.core.errors import WorldlineError
from worldline.core.live import SUBPROTOCOL
from worldline.core.live.codes import failure

LIVE_PATH: Final = "/v1/worlds/live"
_APPLICATION: Final = 4000  # a close code is 4000 + the HTTP status: core.live.codes
_POLICY_VIOLATION: Final = 1008

RawHeaders = Sequence[tuple[bytes, bytes]]


class Refusal(NamedTuple):
    """Why not, and after how many seconds it may be tried again."""

    error: WorldlineError
    retry_after_s: float | None = None


def is_live(scope: Scope) -> bool:
    """Whether it is a socket of our own wire."""
    return scope["type"] == "websocket" and scope["path"] == LIVE_PATH


def close_code(error: WorldlineError) -> int:
    """The close code of an error on our own wire."""
    return _APPLICATION + error.http_status


async def refuse(
    scope: Scope, receive: Receive, send: Send, *, refusal: Refusal, headers: RawHeaders = ()
) -> None:
    """Answer a connection with a refusal, and nothing else."""
    if scope["type"] == "http":
        await _refuse_request(send, "http.response", refusal, headers)
        return
    await receive()  # websocket.connect
    if is_live(scope):
        offered = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": offered, "headers": []})
        await say_and_close(send, refusal)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await _refuse_request(send, "websocket.http.response", refusal, headers)
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})


async def say_and_close(send: Send, refusal: Refusal) -> None:
    """End an accepted socket of our own wire: `error`, then the close frame."""
    wait = refusal.retry_after_s
    message = failure(
        refusal.error, fatal=True, retry_after_ms=UNSET if wait is None else math.ceil(wait * 1000)
    )
    await send({"type": "websocket.send", "bytes": msgspec.msgpack.encode(message)})
    code = close_code(refusal.error)
    await send({"type": "websocket.close", "code": code, "reason": refusal.error.code})


async def _refuse_request(send: Send, event: str, refusal: Refusal, headers: RawHeaders) -> None:
    error = refusal.error
    body = msgspec.json.encode(
        {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "expected": error.expected,
            "got": error.got,
        }
    )
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    if error.http_status == 401:
        lines.append((b"www-authenticate", b'Bearer realm="worldline"'))
    if refusal.retry_after_s is not None:
        lines.append((b"retry-after", str(math.ceil(refusal.retry_after_s)).encode()))
    await send({"type": f"{event}.start", "status": error.http_status, "headers": lines})
    await send({"type": f"{event}.body", "body": body, "more_body": False})

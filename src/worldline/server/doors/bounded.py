"""What one connection may send: messages and bytes of a socket by rate, a request's body by size.

A socket that sends too fast is read slower: its messages wait, and since nothing more is read the
network makes its sender wait. Nothing is lost, so no key-up is, and nobody else's turn is taken. A
message of absurdly many items is handed on as an unreadable one.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from worldline.server.doors.buckets import Bucket, Rate
from worldline.server.doors.scan import has_too_many
from worldline.server.waiting import AsyncClock

UNREADABLE: Final = b"\xc1"  # what MessagePack never uses: each dialect has its answer to that
MAX_WAIT_S: Final = 5.0  # a reader must notice within this time that its peer has left
_TOO_LARGE: Final = 413


def paced(receive: Receive, messages: Rate, volume: Rate, *, clock: AsyncClock) -> Receive:
    """`receive` of a socket at no more than these rates of messages and of bytes."""
    now = clock.now()
    counts, sizes = Bucket(messages, now), Bucket(volume, now)

    async def wait_and_receive() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive":
            if has_too_many(message.get("bytes") or b""):
                message = {**message, "bytes": UNREADABLE}
            wait = max(counts.spend(1, clock), sizes.spend(size_of(message), clock))
            if wait:
                await clock.sleep(min(wait, MAX_WAIT_S))
        return message

    return wait_and_receive


def limited(receive: Receive, max_bytes: int) -> Receive:
    """`receive` of a request whose body is refused with 413 once it is longer than `max_bytes`."""
    taken = 0

    async def count_and_receive() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > max_bytes:
            raise HTTPException(_TOO_LARGE, f"the body is longer than {max_bytes} bytes")
        return message

    return count_and_receive


def size_of(message: Message) -> int:
    """Bytes of a message of a socket."""
    data: Any = message.get("bytes")
    return len(data if data is not None else message.get("text") or "")

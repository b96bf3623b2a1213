"""Bytes in an envelope: what they are, of which version, how many, and a checksum over all.

    magic (8 bytes) | version (2) | reserved (2) | length of the body (8) | blake2b-128 | body

Numbers are little-endian; the checksum covers everything before it and the body. Nothing is copied
or taken apart before the length is known to fit.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from worldline.core.errors import DamagedSnapshotError, NewerSnapshotError

HEAD: Final = struct.Struct("<8sHHQ")
DIGEST: Final = 16  # bytes
OVERHEAD: Final = HEAD.size + DIGEST


def seal(magic: bytes, version: int, body: bytes) -> bytes:
    """`body` in its envelope; `magic` has eight bytes."""
    assert len(magic) == 8, magic
    head = HEAD.pack(magic, version, 0, len(body))
    return head + _digest(head, body) + body


def unseal(
    data: bytes | memoryview, *, magic: bytes, version: int, limit: int, what: str
) -> memoryview:
    """The body of an envelope of that kind, at most `limit` bytes, as a view of `data`.

    Raises `NewerSnapshotError` for a later version and `DamagedSnapshotError` for all else: another
    kind of bytes, too many, too few, others than were sealed. `what` names it in the text.
    """
    view = memoryview(data)
    if len(view) < OVERHEAD or bytes(view[:8]) != magic:
        raise DamagedSnapshotError(f"no {what}", expected=magic, got=bytes(view[:8]))
    _, found, _, length = HEAD.unpack(view[: HEAD.size])
    if found != version:
        raise NewerSnapshotError(f"a {what} of another version", expected=version, got=found)
    if length > limit:
        raise DamagedSnapshotError(f"a {what} too large to be one", expected=limit, got=length)
    if length != len(view) - OVERHEAD:
        raise DamagedSnapshotError(
            f"a {what} of the wrong length", expected=length, got=len(view) - OVERHEAD
        )
    body = view[OVERHEAD:]
    if _digest(view[: HEAD.size], body) != bytes(view[HEAD.size : OVERHEAD]):
        raise DamagedSnapshotError(f"a {what} with bytes that are not its own")
    return body


def _digest(head: bytes | memoryview, body: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(head, digest_size=DIGEST)
    digest.update(body)
    return digest.digest()

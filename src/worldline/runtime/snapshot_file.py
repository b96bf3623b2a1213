"""Exact snapshots on disk, written piece by piece while their session runs on.

    magic (8 bytes) | version (2) | reserved (2) | length of the header (8) | length of the body (8)
    header: msgpack of `Stored` | blake2b-128 of all before | tensors, one after the other | digest

The last digest covers the tensors. A file appears under its name when all of it is on the disk. Of
a file that is read nothing is allocated before its lengths are known to be those of the file, and
no tensor before the header says that it fits the engine. Docs: docs/snapshots.md.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import BinaryIO, Final

import msgspec
import torch
from torch import Tensor

from worldline.core.errors import DamagedSnapshotError, NewerSnapshotError, SnapshotError
from worldline.runtime.snapshot_stored import DTYPES, Stored, TensorAt

MAGIC: Final = b"WLEXACT\n"
VERSION: Final = 1
HEAD: Final = struct.Struct("<8sHHQQ")
DIGEST: Final = 16  # bytes
MAX_HEADER: Final = 2**31


def writing(stored: Stored, tensors: list[Tensor], path: str) -> Generator[None, None, int]:
    """Write a file, tensor by tensor; gives its bytes. Raises `SnapshotError` where it cannot."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            yield from _write(file, stored, tensors)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(part, path)
    except OSError as error:
        raise SnapshotError("the snapshot cannot be written", got=error) from error
    finally:
        with suppress(OSError):
            os.unlink(part)
    return size


def _write(file: BinaryIO, stored: Stored, tensors: list[Tensor]) -> Iterator[None]:
    header, body = msgspec.msgpack.encode(stored), sum(t.nbytes for t in tensors)
    front = HEAD.pack(MAGIC, VERSION, 0, len(header), body) + header
    file.write(front + _digest(front))
    digest = hashlib.blake2b(digest_size=DIGEST)
    for tensor in tensors:
        data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        digest.update(data)
        file.write(data)
        yield
    file.write(digest.digest())


def read(path: str, check: Callable[[Stored], None]) -> tuple[Stored, list[Tensor]]:
    """The header of a file and its tensors, on the host.

    `check` is asked before any tensor is made. Raises `DamagedSnapshotError`,
    `NewerSnapshotError`, `SnapshotError` where there is no such file, and what `check` raises.
    """
    try:
        with open(path, "rb") as file:
            stored = _read_header(file, os.fstat(file.fileno()).st_size)
            check(stored)
            return stored, _read_tensors(file, stored)
    except OSError as error:
        raise SnapshotError("the snapshot cannot be read", got=error) from error


def _read_header(file: BinaryIO, size: int) -> Stored:
    head = file.read(HEAD.size)
    if len(head) < HEAD.size or head[: len(MAGIC)] != MAGIC:
        raise DamagedSnapshotError("no snapshot", expected=MAGIC, got=head[: len(MAGIC)])
    _, version, _, header, body = HEAD.unpack(head)
    if version != VERSION:
        raise NewerSnapshotError("a snapshot of another version", expected=VERSION, got=version)
    wanted = HEAD.size + header + body + 2 * DIGEST
    if header > MAX_HEADER or wanted != size:
        raise DamagedSnapshotError("a snapshot of the wrong length", expected=wanted, got=size)
    data = file.read(header)
    if _digest(head + data) != file.read(DIGEST):
        raise DamagedSnapshotError("a snapshot whose header is not its own")
    try:
        stored = msgspec.msgpack.decode(data, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedSnapshotError("a snapshot that cannot be read", got=error) from None
    if sum(_bytes_of(tensor) for tensor in stored.tensors) != body:
        raise DamagedSnapshotError("a snapshot with other tensors than it says", expected=body)
    stored.check()
    return stored


def _read_tensors(file: BinaryIO, stored: Stored) -> list[Tensor]:
    digest, made = hashlib.blake2b(digest_size=DIGEST), list[Tensor]()
    for one in stored.tensors:
        tensor = torch.empty(one.shape, dtype=DTYPES[one.dtype])
        data = tensor.reshape(-1).view(torch.uint8).numpy().data
        if file.readinto(data) != tensor.nbytes:  # type: ignore[attr-defined]
            raise DamagedSnapshotError("a snapshot that was cut short")
        digest.update(data)
        made.append(tensor)
    if digest.digest() != file.read(DIGEST):
        raise DamagedSnapshotError("a snapshot with bytes that are not its own")
    return made


def _bytes_of(one: TensorAt) -> int:
    if one.dtype not in DTYPES or not one.shape or min(one.shape) < 1 or len(one.shape) > 8:
        raise DamagedSnapshotError("a snapshot with a tensor that cannot be", got=one)
    return math.prod(one.shape) * DTYPES[one.dtype].itemsize


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()

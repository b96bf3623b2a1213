"""The part of a film that is done, in a folder: what is needed to go on after a crash.

One file per finished chunk, written once, one for the chunk under way, and `film.json`, written
last, which names them with their digests. Every file takes its place in one move, so that a killed
process leaves the state before or after, never half of one. What was damaged since is noticed and
made again. A folder holds one film: another request finds it taken.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from worldline.core.errors import ConfigError
from worldline.sampling.solvers import Memory

VERSION = 1
INDEX, UNDER_WAY = "film.json", "pass.safetensors"
INDEX_BYTES = 16 << 20
HEADER_BYTES = 1 << 16  # a safetensors header of a handful of tensors, generously
_SLOTS = 8  # tensors of one chunk's memory at most

log = logging.getLogger(__name__)


class _File(msgspec.Struct, frozen=True):
    name: str
    digest: str


class _Numbers(msgspec.Struct, frozen=True):
    """What of `Memory` is no tensor."""

    step: int
    lower: int
    order: int


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    film: str
    branches: str
    chunks: list[_File] = []
    under_way: _File | None = None
    memory: _Numbers | None = None


class _Sealed(msgspec.Struct, frozen=True):
    """An index with the digest of its bytes."""

    digest: str
    index: msgspec.Raw


class UnderWay(NamedTuple):
    """The chunk that is being made: its latents `[1, 16, T, h, w]` and its solver's memory."""

    latents: Tensor
    memory: Memory


class Kept(NamedTuple):
    """What a folder holds of a film: latents of finished chunks, and the one under way."""

    branches: str
    chunks: tuple[Tensor, ...]
    under_way: UnderWay | None


class FilmStore:
    """The folder of one film. `film` is a digest of all that its pixels depend on."""

    def __init__(self, folder: Path, film: str, *, shape: tuple[int, ...]) -> None:
        """`shape` is that of a chunk's latents. Nothing is written before `save`."""
        self._folder, self._film, self._shape = folder, film, shape
        self._files: list[_File] = []

    def load(self) -> Kept | None:
        """What is there already; None if nothing is.

        Raises `ConfigError` for the folder of another film, of a later version, or none of a film.
        """
        index = self._index()
        if index is None:
            return None
        chunks: list[Tensor] = []
        for file in index.chunks:
            tensors = self._read(file)
            if tensors is None or set(tensors) != {"latents"}:
                break
            chunks.append(tensors["latents"])
        self._files = index.chunks[: len(chunks)]
        whole = len(chunks) == len(index.chunks)
        return Kept(index.branches, tuple(chunks), self._under_way(index) if whole else None)

    def save(self, branches: str, chunks: list[Tensor], under_way: UnderWay | None) -> None:
        """Write what is not there yet. Raises `ConfigError` where nothing can be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for i in range(len(self._files), len(chunks)):
                self._files.append(
                    self._write(f"chunk-{i:05d}.safetensors", {"latents": chunks[i]})
                )
            half = None if under_way is None else self._write(UNDER_WAY, _tensors(under_way))
            index = _Index(
                version=VERSION,
                film=self._film,
                branches=branches,
                chunks=self._files,
                under_way=half,
                memory=None if under_way is None else _numbers(under_way.memory),
            )
            data = msgspec.json.encode(index)
            sealed = _Sealed(_digest(data), msgspec.Raw(data))
            self._place(INDEX, msgspec.json.encode(sealed))
        except OSError as error:
            raise ConfigError("the film's state cannot be written", got=error) from None

    def remove(self) -> None:
        """Remove the folder: the film is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _index(self) -> _Index | None:
        path = self._folder / INDEX
        try:
            if path.stat().st_size > INDEX_BYTES:
                raise ConfigError("this is no kept film", expected="a small index", got=path)
            sealed = msgspec.json.decode(path.read_bytes(), type=_Sealed)
            if _digest(bytes(sealed.index)) != sealed.digest:
                raise msgspec.DecodeError("its digest is another one")
            found = msgspec.json.decode(sealed.index, type=_Index)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                "the kept part of the film cannot be read",
                expected=f"remove {self._folder}, or take another output",
                got=error,
            ) from None
        if found.version > VERSION:
            raise ConfigError(
                "a later version kept this film",
                expected=f"{VERSION} or earlier",
                got=found.version,
            )
        if found.film != self._film:
            raise ConfigError(
                "another film is kept here",
                expected=f"the same request and weights; else remove {self._folder}",
                got=f"film {found.film} for {self._film}",
            )
        return found

    def _under_way(self, index: _Index) -> UnderWay | None:
        if index.under_way is None or index.memory is None:
            return None
        tensors = self._read(index.under_way)
        if tensors is None or "latents" not in tensors:
            return None
        numbers = index.memory
        outputs = [tensors.get(f"output{i}") for i in range(_SLOTS)]
        count = max((i + 1 for i, output in enumerate(outputs) if output is not None), default=0)
        memory = Memory(
            step=numbers.step,
            outputs=tuple(outputs[:count]),
            last=tensors.get("last"),
            lower=numbers.lower,
            order=numbers.order,
        )
        return UnderWay(tensors["latents"], memory)

    def _read(self, file: _File) -> dict[str, Tensor] | None:
        """The tensors of a file; None for one that is not what was written."""
        path = self._folder / Path(file.name).name
        try:
            if path.stat().st_size > self._most():
                return self._damaged(path)
            data = path.read_bytes()
            if _digest(data) != file.digest:
                return self._damaged(path)
            tensors = load(data)
        except (OSError, SafetensorError):
            return self._damaged(path)
        fits = all(tuple(tensor.shape) == self._shape for tensor in tensors.values())
        return tensors if fits else self._damaged(path)

    def _most(self) -> int:
        """Bytes that no file of this film is larger than."""
        return _SLOTS * 8 * math.prod(self._shape) + HEADER_BYTES

    def _damaged(self, path: Path) -> None:
        log.warning("%s is damaged; what it held is made again", path.name)

    def _write(self, name: str, tensors: Mapping[str, Tensor]) -> _File:
        data = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()})
        self._place(name, data)
        return _File(name, _digest(data))

    def _place(self, name: str, data: bytes) -> None:
        """Write a file beside its place and move it there once it is on the disk."""
        part = self._folder / f"{name}.part"
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / name)


def _tensors(under_way: UnderWay) -> dict[str, Tensor]:
    memory = under_way.memory
    outputs = {f"output{i}": t for i, t in enumerate(memory.outputs) if t is not None}
    last = {} if memory.last is None else {"last": memory.last}
    return {"latents": under_way.latents, **outputs, **last}


def _numbers(memory: Memory) -> _Numbers:
    return _Numbers(memory.step, memory.lower, memory.order)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()

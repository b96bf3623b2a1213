"""Which files hold a network's tensors, read from their headers alone.

Knows the safetensors container and shard indexes, but neither torch nor any network. Everything is
checked here that can be checked without reading a single weight: sizes on disk, names, shards that
are listed but absent. All faults are `CheckpointError`s that name the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import msgspec

from worldline.core.errors import CheckpointError

HEADER_LIMIT = 100_000_000  # bytes; the container's own limit for the JSON header
SINGLE_NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")

Shape = tuple[int, ...]


class TensorInfo(NamedTuple):
    """One tensor as its file's header declares it; `nbytes` is its size in the file."""

    dtype: str
    shape: Shape
    nbytes: int


class Header(NamedTuple):
    """The tensors of one safetensors file by name, and its free metadata."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]


class WeightFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one network.

    Only tensors whose names start with `prefix` belong to it; the prefix is not part of their
    names. `config` is the content of the `config.json` that goes with them, or empty.
    """

    files: tuple[Path, ...]
    prefix: str = ""
    config: dict[str, Any] = {}

    @property
    def pickled(self) -> bool:
        """Whether the tensors are in a `.pth` file, whose names only torch can read."""
        return self.files[0].suffix == ".pth"

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.files[0].parent


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file and check that the file is as long as it says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(HEADER_LIMIT, size - 8):
                raise CheckpointError(
                    f"{path.name} is truncated or no safetensors file",
                    expected=f"a header of {length} bytes",
                    got=f"a file of {size} bytes",
                )
            raw = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"cannot read {path.name}: {error.strerror}") from error
    except ValueError as error:  # JSON and UTF-8 errors
        raise CheckpointError(f"{path.name} has a broken safetensors header") from error
    header = _parse_header(path, raw)
    expected = 8 + length + sum(info.nbytes for info in header.tensors.values())
    if size != expected:
        raise CheckpointError(
            f"{path.name} is truncated or damaged", expected=f"{expected} bytes", got=f"{size}"
        )
    return header


def _parse_header(path: Path, raw: object) -> Header:
    """Turn the decoded JSON header into typed values."""
    tensors: dict[str, TensorInfo] = {}
    try:
        entries = msgspec.convert(raw, dict[str, dict[str, Any]])
        metadata = msgspec.convert(entries.pop("__metadata__", {}), dict[str, str])
        for name, entry in entries.items():
            start, end = msgspec.convert(entry["data_offsets"], tuple[int, int])
            shape = msgspec.convert(entry["shape"], tuple[int, ...])
            tensors[name] = TensorInfo(str(entry["dtype"]), shape, end - start)
    except (msgspec.ValidationError, KeyError) as error:
        raise CheckpointError(f"{path.name} has a broken safetensors header") from error
    return Header(tensors, metadata)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else is a `CheckpointError` naming the file."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path.name}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path.name} is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path.name} is not usable", expected="a JSON object", got=type(value).__name__
        )
    return value


def weight_files(folder: Path, *, config: Path | None = None) -> WeightFiles | None:
    """The safetensors files of the network in `folder`, or None when there are none.

    With an index its shards, all of which must exist; without one exactly one file. Several files
    without an index are an error: a shard that is missing would go unnoticed until the keys are
    compared, and nothing would say which files belong together.
    """
    found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    indexes = sorted(folder.glob("*.safetensors.index.json")) if folder.is_dir() else []
    if not found and not indexes:
        return None
    config = config if config is not None else folder / "config.json"
    settings = read_json(config) if config.is_file() else {}
    return WeightFiles(files=_choose_files(folder, found, indexes), config=settings)


def _choose_files(folder: Path, found: list[Path], indexes: list[Path]) -> tuple[Path, ...]:
    """Decide between an index's shards and a single file."""
    if len(indexes) > 1:
        names = ", ".join(path.name for path in indexes)
        raise CheckpointError(f"several shard indexes in {folder.name}", expected="one", got=names)
    if indexes:
        return indexed_shards(indexes[0])
    if len(found) == 1 and "-of-" not in found[0].stem:
        return (found[0],)
    named = [path for path in found if path.name in SINGLE_NAMES]
    if len(named) == 1:
        return (named[0],)
    index = found[0].name.split("-0")[0].removesuffix(".safetensors") + ".safetensors.index.json"
    raise CheckpointError(
        f"the shard index is missing in {folder.name}",
        expected=f"{index}, which is part of the release",
        got=f"{len(found)} shard files and no index: {listed(path.name for path in found)}",
    )


def indexed_shards(index: Path) -> tuple[Path, ...]:
    """The shards an index names, in order; all of them plain names of existing files beside it."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index.name} lists no tensors", expected="a weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    strange = [name for name in names if PurePath(name).name != name or name in ("", ".", "..")]
    if strange:
        raise CheckpointError(
            f"{index.name} points outside its folder",
            expected="plain file names",
            got=listed(strange),
        )
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.name} names shards that are not there",
            expected=f"{len(names)} files beside it",
            got=f"{len(missing)} missing: {listed(missing)}",
        )
    return tuple(index.parent / name for name in names)


def tensor_table(weights: WeightFiles) -> dict[str, tuple[TensorInfo, Path]]:
    """Every tensor of a network with the file it is in; for safetensors only.

    Raises `CheckpointError` when two shards hold the same name.
    """
    table: dict[str, tuple[TensorInfo, Path]] = {}
    for path in weights.files:
        for name, info in read_header(path).tensors.items():
            if not name.startswith(weights.prefix):
                continue
            key = name[len(weights.prefix) :]
            if key in table:
                raise CheckpointError(
                    f"tensor {key} is in two files", got=f"{table[key][1].name} and {path.name}"
                )
            table[key] = (info, path)
    return table


def shapes_of(table: Mapping[str, tuple[TensorInfo, Path]]) -> dict[str, Shape]:
    """Only the shapes of a `tensor_table`."""
    return {name: info.shape for name, (info, _) in table.items()}


def listed(names: Iterable[str], limit: int = 20) -> str:
    """At most `limit` names, and how many more there are."""
    everything = list(names)
    more = len(everything) - limit
    text = ", ".join(everything[:limit])
    return f"{text} and {more} more" if more > 0 else text

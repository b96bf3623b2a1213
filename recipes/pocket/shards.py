"""Reading shard files: a broken one is named, with what was expected and what came.

Shards also say what made them: `encoder_print` names the encoder's weights, `scene_prints` the
scenes' arrays. Data of different origin is refused; files written before these fields existed are
accepted with one warning. Nothing here changes an array.
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from recipes.pocket.scenes import Scene, arrays, scenes
from worldline.core.errors import CheckpointError, InputError, ShapeError

Shape = tuple[int | str, ...]  # a letter is any size, the same one wherever it stands
_BROKEN = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
_PRINT = 16  # hexadecimal digits


def find(folder: Path, what: str) -> list[Path]:
    """The shards of a folder in order. Raises `InputError` when there are none."""
    paths = sorted(folder.glob("walks-*.npz"))
    if not paths:
        raise InputError(f"no {what} in {folder}", expected="walks-*.npz", got="none")
    return paths


def read(
    path: Path, shapes: Mapping[str, Shape], *, also: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Fields of one file, those of `also` only if there. Raises `InputError`, `ShapeError`."""
    try:
        with path.open("rb") as raw, np.load(raw) as file:  # raw: closed where it is broken
            names = [*shapes, *(name for name in also if name in file)]
            fields = {name: np.asarray(file[name]) for name in names}
    except _BROKEN as error:
        raise InputError(
            f"{path} cannot be read, render or encode it again",
            expected=f"an .npz file with {', '.join(shapes)}",
            got=f"{type(error).__name__}: {error}",
        ) from error
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        _check(path, name, fields[name], shape, sizes)
    return fields


def _check(path: Path, name: str, field: np.ndarray, shape: Shape, sizes: dict[str, int]) -> None:
    """One field's shape, with the letters' sizes so far, and that its numbers are finite."""
    fits = len(shape) == field.ndim and all(
        size == (sizes.setdefault(want, size) if isinstance(want, str) else want)
        for want, size in zip(shape, field.shape, strict=True)
    )
    if not fits:
        wanted = [sizes.get(s, s) if isinstance(s, str) else s for s in shape]
        expected = f"[{', '.join(map(str, wanted))}]"
        raise ShapeError(f"{name} in {path}", expected=expected, got=list(field.shape))
    if field.dtype.kind == "f" and not np.isfinite(field).all():
        bad = int((~np.isfinite(field)).sum())
        raise InputError(f"{name} in {path}", expected="finite numbers", got=f"{bad} that are not")


def encoder_print(vae: Mapping[str, Tensor]) -> str:
    """Names the weights of an autoencoder (a state dict) that decide what its latents are."""
    digest = hashlib.sha256()
    for name in sorted(vae):
        if name in ("pca", "pca_bias", "scale") or name.startswith("enc_"):
            digest.update(name.encode())
            digest.update(vae[name].detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:_PRINT]


def scene_prints(worlds: Iterable[Scene] | None = None) -> list[str]:
    """Names what each world looks like."""
    return [
        hashlib.sha256(b"".join(part.tobytes() for part in arrays(scene))).hexdigest()[:_PRINT]
        for scene in (scenes() if worlds is None else worlds)
    ]


def one_encoder(prints: Mapping[Path, str | None]) -> str | None:
    """The one encoder that made all these files.

    Raises `CheckpointError` for latents of two autoencoders; warns when some files do not say.
    """
    named = {path: found for path, found in prints.items() if found is not None}
    first = next(iter(named), None)
    for path, found in named.items():
        if first is not None and found != named[first]:
            raise CheckpointError(
                "latents of two autoencoders do not belong together: encode all walks again",
                expected=f"encoder {named[first]} as in {first}",
                got=f"{found} in {path}",
            )
    if len(named) < len(prints):
        silent = next(path for path, found in prints.items() if found is None)
        warnings.warn(
            f"{len(prints) - len(named)} files do not say which autoencoder made them, "
            f"among them {silent}",
            stacklevel=2,
        )
    return None if first is None else named[first]


def check_scenes(path: Path, prints: np.ndarray | None) -> None:
    """Refuse walks through other scenes than today's with `InputError`; silent ones pass."""
    today = scene_prints()
    theirs = [] if prints is None else [str(p) for p in prints]
    for i, (old, new) in enumerate(zip(theirs, today, strict=False)):
        if old != new:
            name = scenes()[i].name
            raise InputError(
                f"{path} shows another {name!r} than scenes.py draws: render the walks again",
                expected=new,
                got=old,
            )
    if len(theirs) > len(today):
        raise InputError(
            f"{path} shows more worlds than scenes.py has", expected=len(today), got=len(theirs)
        )


def text_of(field: np.ndarray | None) -> str | None:
    """A field that holds one string."""
    return None if field is None else str(field)

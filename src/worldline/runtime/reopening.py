"""A snapshot of a file, made sure to be one that this engine can go on from."""

from __future__ import annotations

import torch
from torch import Tensor

from worldline.core.camera import check_intrinsics
from worldline.core.errors import OtherWeightsError, SnapshotError
from worldline.core.motion import check_rig
from worldline.models.preset import RuntimeParams, RuntimeValues, resolve_runtime
from worldline.runtime import snapshot_file
from worldline.runtime.levers import check_numbers
from worldline.runtime.passes import LATENT_CHANNELS
from worldline.runtime.shared import Engine
from worldline.runtime.snapshot import Snapshot, ring_name
from worldline.runtime.snapshot_light import reach_of
from worldline.runtime.snapshot_stored import Stored, unstored
from worldline.runtime.state import Geometry
from worldline.runtime.timeline import Timeline
from worldline.runtime.tree import tensors_of


def read_snapshot(engine: Engine, path: str) -> Snapshot:
    """The snapshot that was written to `path`.

    Raises `SnapshotError`, `OtherWeightsError`, `ConfigError` and `ControlError` for numbers that
    no session has, all before a tensor is made that the file does not hold.
    """
    stored, tensors = snapshot_file.read(path, lambda stored: _check(engine, stored))
    reach, moments = reach_of(engine, stored.settings), engine.shards.group.size == 1
    snapshot = unstored(stored, tensors, Timeline(reach, engine.timeline_bytes, moments=moments))
    _check_values(engine, snapshot)
    return snapshot


def _check(engine: Engine, stored: Stored) -> None:
    if stored.weights != engine.weights:
        raise OtherWeightsError(
            "a snapshot made with other weights", expected=engine.weights, got=stored.weights
        )
    mine = (ring_name(engine), str(engine.dit.dtype))
    if (stored.ring, stored.dtype) != mine:
        raise SnapshotError(
            "a snapshot of another way to compute", expected=mine, got=(stored.ring, stored.dtype)
        )
    values = {name: getattr(stored.settings, name) for name in RuntimeParams.__struct_fields__}
    settings = resolve_runtime(engine.preset, None, RuntimeValues(**values))
    check_numbers(engine, settings)
    check_rig(stored.rig)
    check_intrinsics(stored.kind.intrinsics)


def _check_values(engine: Engine, snapshot: Snapshot) -> None:
    """Whatever is not a frame of the ring must have the shapes of a session."""
    values, geometry = snapshot.moment.values, snapshot.kind.geometry
    height, width = geometry.latent
    _has("picture", values.image.picture, (1, 3, 1, geometry.height, geometry.width))
    if values.image.latents is not None:
        _has("encoded picture", values.image.latents, (1, LATENT_CHANNELS, -1, height, width))
    for prompt in (values.prompt, values.origin.prompt, *(past.prompt for past in values.past)):
        for states in (prompt.current, prompt.source, prompt.target):
            _has("text", states, (1, -1, engine.dit.params.text_dim))
    chunk = snapshot.kind.settings.chunk
    for past in values.past:
        _has("past", past.latents, (1, LATENT_CHANNELS, len(past.frames), height, width))
    decoder = list(tensors_of(snapshot.moment.decoder))
    if bool(decoder) != (snapshot.next_chunk > 0):
        raise SnapshotError("a snapshot whose decoder has another history than its walk")
    if decoder:
        wanted = _decoder_shapes(engine, geometry, chunk)
        if len(decoder) > len(wanted):
            raise SnapshotError("a snapshot of another decoder", expected=len(wanted))


def _decoder_shapes(engine: Engine, geometry: Geometry, chunk: int) -> list[Tensor]:
    """What a decoder carries after two chunks."""
    shape = (1, LATENT_CHANNELS, max(2, chunk), *geometry.latent)
    with torch.no_grad():
        nothing = torch.zeros(shape, device=engine.dit.device)
        _, state = engine.vae.decode_stream(nothing, None)
    return list(tensors_of(state))


def _has(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise `SnapshotError` unless a tensor has that shape; -1 is any."""
    found = tuple(tensor.shape)
    fits = len(found) == len(shape) and all(w in (-1, f) for f, w in zip(found, shape, strict=True))
    if not fits:
        raise SnapshotError(f"a snapshot whose {name} has another shape", expected=shape, got=found)

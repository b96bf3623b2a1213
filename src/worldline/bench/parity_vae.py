"""Parity group `vae*`: encode, decode, conditioning encode, and streams with their history."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from worldline.bench.parity_case import (
    EXACT,
    TOLERANCE,
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    report_unread,
)
from worldline.bench.parity_networks import load_vae
from worldline.models.wan.vae import WanVAE
from worldline.models.wan.vae_state import VaeState

_OUT = re.compile(r"(?P<stream>.+)\.chunk(?P<chunk>\d+)\.out")
_SLOT = re.compile(r"feat(\d+)")
# Latents encoded past the point where they stop changing, to see that they have.
_AFTERWARDS = 2


def cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """One row for the encode, the conditioning encode, the decode, and each recorded stream."""
    golden = GoldenFile(path)
    weights = directory / golden.meta.get("weights", f"{path.stem}_weights.safetensors")
    mean, std = golden["mean"].tolist(), golden["std"].tolist()
    vae = load_vae(weights, mean, std)
    raw = load_vae(weights, [0.0] * len(mean), [1.0] * len(std))
    if "enc.video" in golden:
        yield judge(path.name, "encode", lambda: _encode(golden, vae, raw))
    if "cond.image" in golden:
        yield judge(path.name, "conditioning", lambda: _conditioning(golden, vae))
    if "dec.latent_normalised" in golden:
        yield judge(path.name, "decode", lambda: _decode(golden, vae))
    for stream in sorted({m["stream"] for m in map(_OUT.fullmatch, golden.names()) if m}):
        yield judge(path.name, stream, lambda s=stream: _stream(golden, vae, s))
    yield from report_unread(golden)


def _encode(golden: GoldenFile, vae: WanVAE, raw: WanVAE) -> Iterator[Difference]:
    video = golden["enc.video"]
    yield compare("mu_normalised", vae.encode(video), golden["enc.mu_normalised"])
    yield compare("mu_raw", raw.encode(video), golden["enc.mu_raw"])
    pieces: list[Tensor] = []
    state: VaeState | None = None
    stride = vae.params.time_stride
    for piece in video.split([1] + [stride] * ((video.shape[2] - 1) // stride), dim=2):
        latent, state = vae.encode_stream(piece, state)
        pieces.append(latent)
    yield compare("mu_normalised, streamed", torch.cat(pieces, 2), golden["enc.mu_normalised"])


def _conditioning(golden: GoldenFile, vae: WanVAE) -> Iterator[Difference]:
    image = golden["cond.image"]
    single, whole = golden["cond.latent_of_single_image"], golden["cond.latent_of_image_then_zeros"]
    yield compare("single image", vae.encode(image), single)
    last = "cond.stationary_last_changing_transition"
    latents = max(vae.stationary_latent + 1 + _AFTERWARDS, whole.shape[2])
    ours = vae.encode(_then_zeros(image, latents, vae.params.time_stride))
    yield compare("image then zeros", ours[:, :, : whole.shape[2]], whole)
    if last in golden:
        yield from _stationary(ours, int(golden[last]), vae.stationary_latent)


def _stationary(ours: Tensor, last: int, stationary: int) -> Iterator[Difference]:
    """Our encode stops changing where we say, and the recorded one at or before that.

    The structure of the network says when the last change can be. When it is also hangs on
    rounding: the last changes are a few units of the last place, so they are no exact match.
    """
    for name, start, tolerance in (("ours", stationary, EXACT), ("recorded", last + 1, TOLERANCE)):
        late = ours[:, :, start:].diff(dim=2)
        yield compare(
            f"still after the {name} last change", late, torch.zeros_like(late), tolerance
        )
    later = max(0, last - (stationary - 1))
    yield compare("recorded changes after our last one", later, 0, EXACT)


def _then_zeros(image: Tensor, latents: int, stride: int) -> Tensor:
    """The start picture and mid-grey frames: `[B, 3, 1 + stride·(latents-1), H, W]`."""
    shape = list(image.shape)
    shape[2] = stride * (latents - 1)
    return torch.cat([image, image.new_zeros(shape)], 2)  # B 3 F H W


def _decode(golden: GoldenFile, vae: WanVAE) -> Iterator[Difference]:
    latents = golden["dec.latent_normalised"]
    yield compare("video", vae.decode(latents), golden["dec.video"])
    free, _ = vae.decode_stream(latents, None, clamp=False)
    yield compare("video_unclamped", free, golden["dec.video_unclamped"])


def _stream(golden: GoldenFile, vae: WanVAE, stream: str) -> Iterator[Difference]:
    """Decode the recorded latents in the recorded pieces; their lengths follow from the frames."""
    latents = golden["dec.latent_normalised"]
    state: VaeState | None = None
    at = 0
    for chunk in range(sum(1 for name in golden.names(f"{stream}.chunk") if name.endswith(".out"))):
        out = golden[f"{stream}.chunk{chunk}.out"]
        stride = vae.params.time_stride
        length = (out.shape[2] + (stride - 1) * (chunk == 0)) // stride
        ours, state = vae.decode_stream(latents[:, :, at : at + length], state, clamp=False)
        at += length
        yield from _compare_pixels(f"chunk {chunk}", ours, out)
        yield from _compare_history(golden, f"{stream}.chunk{chunk}.", state)


def _compare_pixels(name: str, ours: Tensor, want: Tensor) -> Iterator[Difference]:
    """Streams are recorded before the clamp where they leave [-1, 1], else it makes no odds."""
    clamped = ours.clamp(-1, 1) if want.abs().max() <= 1 else ours
    yield compare(name, clamped, want)


def _compare_history(golden: GoldenFile, prefix: str, state: VaeState) -> Iterator[Difference]:
    """Slot by slot; a slot recorded after one latent frame has no room for the zeros before it."""
    for name in golden.names(f"{prefix}feat"):
        slot = _SLOT.fullmatch(name.removeprefix(prefix))
        assert slot is not None, f"{name} is no history slot"
        want, ours = golden[name], state.slots[int(slot[1])]
        if ours is None:
            yield Difference(name, float("nan"), 0.0, f"{name}: our slot is empty")
            continue
        yield compare(name, ours[:, :, -want.shape[2] :], want)
        older = ours[:, :, : -want.shape[2]]
        if older.numel():
            yield compare(f"{name} before", older, torch.zeros_like(older))

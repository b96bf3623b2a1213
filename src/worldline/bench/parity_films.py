"""Parity groups `e2e_base*` and `e2e_pretrain*`: recorded guided runs through our film engine.

Picture fitting, conditioning encode, camera path, both branches of guidance, both experts, solver,
rings and decode are the product's own, stepped turn by turn as a film is made; only the text states
and the noise come from the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from worldline.bench.parity_case import (
    VIDEO_TOLERANCE,
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    report_unread,
)
from worldline.bench.parity_dit import padded_text
from worldline.bench.parity_e2e import (
    VAE_WEIGHTS,
    RecordedNoise,
    intrinsics_of,
    motion_of,
    weights_file,
)
from worldline.bench.parity_networks import load_dit, load_vae
from worldline.core.errors import ConfigError
from worldline.core.film import BranchesName, FilmPath, FilmRequest, SolverName
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.preset import GROWING, Preset, Sampler
from worldline.models.presets import BASE_CAM, FAST, GUIDED, WAN_MEAN, WAN_STD
from worldline.ops.collectives import ALONE, Collectives
from worldline.ops.image import fit_size
from worldline.runtime.engine import World
from worldline.runtime.films import FilmJob, open_film
from worldline.runtime.loader import Components

_EXPERTS = ("high_noise", "low_noise")
_WAYS: tuple[BranchesName, ...] = ("sequence", "batched")
_SOLVERS: dict[str, SolverName] = {"unipc": "unipc", "dpm++": "dpm++", "dpmpp": "dpm++"}
PROMPT, NEGATIVE = "recorded", "recorded, negative"


class RecordedTexts:
    """The recorded text states of the prompt and of the negative prompt."""

    def __init__(self, states: Tensor, negative: Tensor) -> None:
        self._states = {PROMPT: states, NEGATIVE: negative}
        self.text_len, self.text_dim = states.shape[1:]

    def encode(self, prompts: list[str]) -> Tensor:
        """`[B, S, C]`."""
        return torch.cat([self._states[prompt] for prompt in prompts])


def cases(path: Path, directory: Path, group: Collectives = ALONE) -> Iterator[CaseResult]:
    """Per way of running the branches one row for condition and latents, one for the video.

    Of a `group` those of rank 0 count.
    """
    golden = GoldenFile(path)
    world = _world(golden, directory, group)
    for way in _WAYS:
        videos: list[Tensor] = []
        with _open(golden, world, way) as job:
            name = f"condition and latents, {way}"
            yield judge(path.name, name, lambda j=job, v=videos: _latents(golden, j, v))
            yield judge(path.name, f"video, {way}", lambda v=videos: _video(golden, v))
    yield from report_unread(golden)


def _world(golden: GoldenFile, directory: Path, group: Collectives) -> World:
    meta: dict[str, Any] = golden.config("meta")
    dits = _networks(golden, directory, meta)
    vae = load_vae(weights_file(meta, "vae_weights", VAE_WEIGHTS, directory), WAN_MEAN, WAN_STD)
    texts = [padded_text(golden[name], dits[0]) for name in ("context", "context_neg")]
    preset = msgspec.structs.replace(
        BASE_CAM if len(dits) > 1 else FAST,
        dit=dits[0].params,
        vae=vae.params,
        sampler=_sampler(golden, meta),
        chunk=meta.get("chunk_size", golden["noise0"].shape[1]),
        window=meta.get("local_attn_size", GROWING),
        sink=meta.get("sink_size", 0),
        negative_prompt=NEGATIVE,
    )
    components = Components(
        preset=_sized(preset, golden, meta),
        dit=dits[0],
        low_noise_dit=dits[1] if len(dits) > 1 else None,
        vae=vae,
        text=RecordedTexts(*texts),
        weights_id=golden.path.stem,
    )
    return World(components, group=group)


def _networks(golden: GoldenFile, directory: Path, meta: dict[str, Any]) -> list[LingBotDiT]:
    """Two experts for a base run, one causal network else."""
    stem = golden.path.stem
    if "boundary" in meta:
        return [load_dit(directory / f"{stem}_{name}_weights.safetensors") for name in _EXPERTS]
    return [load_dit(weights_file(meta, "weights", f"{stem}_dit_weights", directory))]


def _sampler(golden: GoldenFile, meta: dict[str, Any]) -> Sampler:
    return msgspec.structs.replace(
        GUIDED,
        shift=meta["shift"],
        steps=tuple(range(meta["steps"])),
        guidance=_guidance(meta),
        boundary=meta.get("boundary"),
    )


def _guidance(meta: dict[str, Any]) -> float:
    scale = meta["guide_scale"]
    scales = set(scale) if isinstance(scale, list) else {scale}
    if len(scales) != 1:
        raise ConfigError("a scale for each expert is not supported", got=scale)
    return float(scales.pop())


def _sized(preset: Preset, golden: GoldenFile, meta: dict[str, Any]) -> Preset:
    picture = golden["image_uint8_hwc"]
    width, height = fit_size(picture.shape[1], picture.shape[0], meta["max_area"], 1)
    return msgspec.structs.replace(preset, sizes=((width, height),))


def _open(golden: GoldenFile, world: World, way: BranchesName) -> FilmJob:
    meta: dict[str, Any] = golden.config("meta")
    motion, latent = motion_of(golden), golden["noise0"].shape[1]
    chunk = world.preset.chunk
    assert chunk is not None, "set when the world was made"
    # "unipc per chunk": the first word names the solver.
    solver = _SOLVERS[str(meta.get("solver", "unipc")).split()[0]]
    request = FilmRequest(
        prompt=PROMPT,
        chunks=latent // chunk,
        intrinsics=intrinsics_of(golden)[:],
        path=FilmPath.of(motion.relative, motion.keys),
        solver=solver,
        branches=way,
    )
    noise = RecordedNoise(golden, chunk, 1)
    return open_film(world, request, golden["image_uint8_hwc"].numpy(), noise=noise, stretch=True)


def _latents(golden: GoldenFile, job: FilmJob, videos: list[Tensor]) -> Iterator[Difference]:
    """Make the whole film; the pictures are kept for the next row."""
    while not job.done:
        job.advance()
        if job.decoded is not None:
            videos.append(job.decoded)
    condition = job.condition
    yield compare("condition", condition, golden["cond_latent"][:, : condition.shape[1]])
    yield compare("latents", torch.cat(job.latents, dim=2)[0], golden["latents"])


def _video(golden: GoldenFile, videos: list[Tensor]) -> Iterator[Difference]:
    yield compare("video", torch.cat(videos, dim=2)[0], golden["video"], VIDEO_TOLERANCE)

"""Parity group `e2e_fast_*`: a recorded whole run through our engine, picture to video.

Picture fitting, conditioning encode, camera path, every denoise step, ring and streaming decode are
the product's own; only the text states and the noise come from the recording.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
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
from worldline.bench.parity_networks import load_dit, load_vae
from worldline.core.actions import parse_action_string
from worldline.core.camera import (
    DEFAULT_INTRINSICS,
    Intrinsics,
    framewise_relative,
    interpolate_poses,
    poses_from_keys,
)
from worldline.models.presets import STEPS_V1, STEPS_V2, WAN_MEAN, WAN_STD
from worldline.models.registry import get_preset
from worldline.ops.collectives import ALONE, Collectives
from worldline.ops.image import fit_size
from worldline.runtime import pipeline
from worldline.runtime.conditions import PoseControls
from worldline.runtime.engine import World
from worldline.runtime.loader import Components
from worldline.runtime.session import Session
from worldline.runtime.start_options import StartOptions

# Weights and defaults that the recordings leave to their file names.
VAE_WEIGHTS = "vae_weights"
_STEPS = {"v1": STEPS_V1, "v2": STEPS_V2}
# A recording may say in words which weights it ran with: "...; weights A; vae B".
_NAMED = {"weights": re.compile(r"\bweights (\w+)"), "vae_weights": re.compile(r"\bvae (\w+)")}
_STRIDE = 4  # pixel frames per latent frame


class RecordedNoise:
    """`noise0` is the whole initial latent, then one draw per (chunk, re-noised step)."""

    def __init__(self, golden: GoldenFile, chunk: int, steps: int) -> None:
        self._golden, self._chunk, self._draws = golden, chunk, steps - 1

    def __call__(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        """Noise of pass `index` of a chunk, `[1, 16, T, h, w]`."""
        if index == 0:
            noise = self._golden["noise0"][:, chunk * self._chunk : (chunk + 1) * self._chunk]
        else:
            noise = self._golden[f"noise{1 + chunk * self._draws + index - 1}"]
        return noise.reshape(shape)


class RecordedText:
    """The recorded text states, whatever the prompt."""

    def __init__(self, states: Tensor) -> None:
        self._states = states
        self.text_len, self.text_dim = states.shape[1:]

    def encode(self, prompts: list[str]) -> Tensor:
        """`[B, S, C]`."""
        return self._states.expand(len(prompts), -1, -1)


def cases(path: Path, directory: Path, group: Collectives = ALONE) -> Iterator[CaseResult]:
    """One row for condition and latents, one for the video; of a `group` those of rank 0 count."""
    golden = GoldenFile(path)
    session = _open(golden, directory, group)
    videos: list[Tensor] = []
    yield judge(path.name, "condition and latents", lambda: _latents(golden, session, videos))
    yield judge(path.name, "video", lambda: _video(golden, videos))
    if "context_neg" in golden:
        golden["context_neg"]  # recorded, but these models run without guidance
    yield from report_unread(golden)


def _open(golden: GoldenFile, directory: Path, group: Collectives) -> Session:
    meta: dict[str, Any] = golden.config("meta")
    stem = golden.path.stem
    dit = load_dit(weights_file(meta, "weights", f"{stem}_dit_weights", directory))
    vae = load_vae(weights_file(meta, "vae_weights", VAE_WEIGHTS, directory), WAN_MEAN, WAN_STD)
    picture = golden["image_uint8_hwc"].numpy()
    width, height = fit_size(picture.shape[1], picture.shape[0], meta["max_area"], 1)
    preset = msgspec.structs.replace(
        get_preset("lingbot-world-fast"), dit=dit.params, vae=vae.params, sizes=((width, height),)
    )
    steps = tuple(meta.get("timesteps_index") or _STEPS["v2" if "_v2" in stem else "v1"])
    options = StartOptions(
        width=width,
        height=height,
        chunk=meta["chunk_size"],
        window=meta["local_attn_size"],
        sink=meta["sink_size"],
        shift=meta["shift"],
        steps=steps,
        intrinsics=intrinsics_of(golden),
        stretch=True,
        noise=RecordedNoise(golden, meta["chunk_size"], len(steps)),
    )
    text = RecordedText(padded_text(golden["context"], dit))
    components = Components(preset=preset, dit=dit, vae=vae, text=text, weights_id=stem)
    return World(components, group=group).open(picture, "recorded", 0, options=options)


def weights_file(meta: dict[str, Any], key: str, usual: str, directory: Path) -> Path:
    """A weights file: of the usual name if that is there, else the one the recording names."""
    spoken = _NAMED[key].search(str(meta.get("noise", "")))
    named = meta.get(key) or (spoken[1] if spoken else usual)
    names = [named] if key in meta else [usual, named]
    paths = [directory / f"{name.removesuffix('.safetensors')}.safetensors" for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def intrinsics_of(golden: GoldenFile) -> Intrinsics:
    """The recorded intrinsics, or those that an action string is used with."""
    if "intrinsics" not in golden:  # an action string comes without any
        return DEFAULT_INTRINSICS
    return Intrinsics(*golden["intrinsics"].reshape(-1, 4)[0].tolist())


def motion_of(golden: GoldenFile) -> PoseControls:
    """The whole camera path at latent rate, as the official code cuts and normalises it.

    Recorded poses are cut to `4n + 1` pixel frames, as are the frames asked for; what an action
    string leads through is used whole.
    """
    meta = golden.config("meta")
    latent_frames = golden["noise0"].shape[1]
    if "poses" not in golden:
        poses = poses_from_keys(*parse_action_string(meta["action"]))
        return PoseControls(framewise_relative(interpolate_poses(poses, latent_frames)))
    source = golden["poses"].numpy()
    used = min((n - 1) // _STRIDE * _STRIDE + 1 for n in (len(source), meta["frame_num"]))
    relative = framewise_relative(interpolate_poses(source[:used], latent_frames))
    keys: np.ndarray | None = None
    if "action" in golden:  # walk keys per pixel frame, for a network with action control
        keys = golden["action"].numpy()[:used:_STRIDE][:latent_frames]
    return PoseControls(relative, keys)


def _latents(golden: GoldenFile, session: Session, videos: list[Tensor]) -> Iterator[Difference]:
    """Step through the whole recording; the pixels are kept for the next row."""
    motion, want = motion_of(golden), golden["latents"]
    chunk, condition = session.chunk, golden["cond_latent"]
    engine, state = session.engine, session.state
    for start in range(0, want.shape[1], chunk):
        frames = range(start, start + chunk)
        ours = pipeline.picture_condition(engine, state, frames)[0, 4:]
        yield compare(f"condition {start}", ours, condition[:, start : start + chunk])
        keys = None if motion.keys is None else motion.keys[start : start + chunk]
        part = PoseControls(motion.relative[start : start + chunk], keys)
        generated = pipeline.next_chunk(engine, state, part, engine.clock())
        yield compare(f"latents {start}", generated.latents[0], want[:, start : start + chunk])
        videos.append(generated.video)


def _video(golden: GoldenFile, videos: list[Tensor]) -> Iterator[Difference]:
    yield compare("video", torch.cat(videos, dim=2)[0], golden["video"], VIDEO_TOLERANCE)

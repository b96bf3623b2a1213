"""Parity group `camera*`: poses at latent rate, relative poses, intrinsics, folded rays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldline.bench.parity_case import (
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    report_unread,
)
from worldline.core.camera import (
    Intrinsics,
    framewise_relative,
    interpolate_poses,
    relative_to_first,
    scale_intrinsics,
)
from worldline.ops.plucker import action_condition, camera_condition

# Pixel frames per latent frame; key states are recorded per pixel frame.
_STRIDE = 4


def cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """One row per recorded camera path."""
    golden = GoldenFile(path)
    for case, size in golden.config("cases").items():
        yield judge(path.name, case, lambda c=case, s=size: _check(golden, c, s))
    yield from report_unread(golden)


def _check(golden: GoldenFile, case: str, size: dict[str, Any]) -> Iterator[Difference]:
    height, width = int(size["h"]), int(size["w"])
    frames = len(golden[f"{case}.interp"])
    poses = interpolate_poses(golden[f"{case}.c2w"].numpy(), frames)
    yield compare("interp", poses, golden[f"{case}.interp"])
    yield compare("rel_first_frame", relative_to_first(poses), golden[f"{case}.rel_first_frame"])
    plain = framewise_relative(poses, normalise=False)
    name = "rel_framewise_unnormalised"
    yield compare(name, plain, golden[f"{case}.{name}"])
    rel = torch.from_numpy(framewise_relative(poses))
    yield compare("rel_framewise", rel, golden[f"{case}.rel_framewise"])
    source = Intrinsics(*golden[f"{case}.intrinsics_832x480"][0].tolist())
    k = torch.tensor(scale_intrinsics(source, width, height)).expand(frames, 4)
    yield compare("Ks", k, golden[f"{case}.Ks"])
    if f"{case}.action" in golden:
        keys = golden[f"{case}.action"][::_STRIDE][:frames]
        folded = action_condition(rel, k, keys, height, width)
    else:
        folded = camera_condition(rel, k, height, width)
    yield compare("shape", list(folded.shape), size["shape"], 0.0)
    yield from _compare_folded(golden, case, folded)


def _compare_folded(golden: GoldenFile, case: str, folded: Tensor) -> Iterator[Difference]:
    """Against the whole tensor, or against samples and channel means of a large one."""
    name = f"{case}.plucker"
    if f"{name}_folded" in golden:
        yield compare("plucker_folded", folded, golden[f"{name}_folded"])
        return
    index = golden[f"{name}_sample_index"]
    yield compare("samples", folded[tuple(index)], golden[f"{name}_sample_value"])
    means = folded.mean(dim=(0, 2, 3, 4))
    yield compare("channel means", means, golden[f"{name}_channel_mean"])

"""How many bytes things take, computed from the configuration."""

from __future__ import annotations

import os

import torch

from worldline.models.lingbot.dit import LingBotDiT

# Share of the free memory that the camera modulation of one chunk may take.
CAMERA_SHARE = 0.5


def camera_modulation_bytes(dit: LingBotDiT, tokens: int) -> int:
    """Bytes of scale and shift of all blocks for `tokens`: 3.8 GB at 14B and 4,680 tokens."""
    size = torch.finfo(dit.dtype).bits // 8
    return 2 * dit.params.num_layers * tokens * dit.params.dim * size


def camera_cache_fits(dit: LingBotDiT, tokens: int) -> bool:
    """Whether the camera modulation of a chunk may be kept for its passes, or is recomputed."""
    return camera_modulation_bytes(dit, tokens) <= CAMERA_SHARE * free_bytes(dit.device)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of the host for the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" not in names:  # macOS and Windows do not say; a laptop's model is small
        return 1 << 40
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

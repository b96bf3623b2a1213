"""Camera rays as network input: origin and direction per pixel, folded into the latent grid.

The six channels are o(3) then d(3), where o is the translation of the frame's relative pose (not
the moment o x d) and d the unit direction through the pixel centre, turned by the relative
rotation. Each 8x8 pixel cell becomes 64 channels (facts: lingbot_model, section 7, points 3 and 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldline.core.errors import ShapeError

# Pixels per latent cell along each side: the spatial stride of the VAE.
CELL = 8


def plucker_rays(rel: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Rays of relative poses `rel` `[T, 4, 4]`: `[T, 6, H, W]`, channels o(3) d(3).

    `intrinsics` (fx, fy, cx, cy) `[4]` or `[T, 4]` are in pixels of the `height` x `width`
    picture. Raises `ShapeError`.
    """
    frames = _check_poses(rel)
    k = _per_frame(intrinsics, frames).to(rel)
    x = torch.arange(width, dtype=rel.dtype, device=rel.device) + 0.5
    y = torch.arange(height, dtype=rel.dtype, device=rel.device) + 0.5
    across = (x[None, :] - k[:, 2:3]) / k[:, 0:1]  # T W
    down = (y[None, :] - k[:, 3:4]) / k[:, 1:2]  # T H
    d = torch.ones(frames, 3, height, width, dtype=rel.dtype, device=rel.device)  # T 3 H W
    d[:, 0] = across[:, None, :]
    d[:, 1] = down[:, :, None]
    # Not `norm`: over three channels that lie apart it takes seven times all the rest together.
    d /= torch.sqrt(across[:, None, :] ** 2 + down[:, :, None] ** 2 + 1)[:, None]  # T 1 H W
    d = torch.einsum("tij,tjhw->tihw", rel[:, :3, :3], d)
    o = rel[:, :3, 3, None, None].expand_as(d)
    return torch.cat([o, d], dim=1)  # T 6 H W


def fold_rays(rays: Tensor) -> Tensor:
    """Fold pixel channels `[T, Cr, H, W]` into the latent grid: `[1, Cr*64, T, H/8, W/8]`.

    Channel = c*64 + dy*8 + dx. Raises `ShapeError` when H or W is no multiple of 8.
    """
    if rays.ndim != 4 or rays.shape[2] % CELL or rays.shape[3] % CELL:
        expected = f"[T, C, H, W] with H and W multiples of {CELL}"
        raise ShapeError("rays cannot be folded", expected=expected, got=list(rays.shape))
    frames, channels, height, width = rays.shape
    h, w = height // CELL, width // CELL
    cells = rays.reshape(frames, channels, h, CELL, w, CELL)
    cells = cells.permute(1, 3, 5, 0, 2, 4)  # Cr 8 8 T h w
    return cells.reshape(1, channels * CELL * CELL, frames, h, w)


def camera_condition(rel: Tensor, intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Condition of a camera-controlled network: `[1, 384, T, h, w]`. Raises `ShapeError`."""
    return fold_rays(plucker_rays(rel, intrinsics, height, width))


def action_condition(
    rel: Tensor, intrinsics: Tensor, keys: Tensor, height: int, width: int
) -> Tensor:
    """Condition of an action-controlled network: directions and keys, `[1, 448, T, h, w]`.

    `keys` `[T, 4]` are the w a s d states of each latent frame, 0 or 1. Raises `ShapeError`.
    """
    directions = plucker_rays(rel, intrinsics, height, width)[:, 3:]  # T 3 H W
    if keys.shape != (rel.shape[0], 4):
        raise ShapeError("keys do not fit the poses", expected=[rel.shape[0], 4], got=keys.shape)
    pressed = keys.to(directions)[:, :, None, None].expand(-1, -1, height, width)  # T 4 H W
    return fold_rays(torch.cat([directions, pressed], dim=1))


def _check_poses(rel: Tensor) -> int:
    if rel.ndim != 3 or rel.shape[1:] != (4, 4) or not rel.is_floating_point():
        got = f"{list(rel.shape)} {rel.dtype}"
        raise ShapeError("relative poses have the wrong shape", expected="[T, 4, 4]", got=got)
    return rel.shape[0]


def _per_frame(intrinsics: Tensor, frames: int) -> Tensor:
    if tuple(intrinsics.shape) not in ((4,), (1, 4), (frames, 4)):
        expected = f"[4] or [{frames}, 4]"
        raise ShapeError(
            "intrinsics have the wrong shape", expected=expected, got=list(intrinsics.shape)
        )
    return intrinsics.reshape(-1, 4).expand(frames, 4)

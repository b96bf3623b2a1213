"""Whole runs (`e2e_fast_*`) by the plain implementation of `recorder`.

The picture's and the film's way through the autoencoder and the camera's arithmetic are the
package's own, which the other groups check; cutting, chunking and denoising are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.recorder import NET, Net, Plan, Rollout, drawn, random_weights, save
from worldline.core.actions import parse_action_string
from worldline.core.camera import framewise_relative, interpolate_poses, poses_from_keys
from worldline.models.wan.vae import WanVAE
from worldline.ops.plucker import action_condition, camera_condition

AREA = 32 * 48
INTRINSICS = torch.tensor([[500.0, 500.0, 416.0, 240.0]])  # what an action string is used with


@dataclass(frozen=True, kw_only=True)
class Film:
    """What a whole run is recorded with; an action string replaces recorded poses.

    `keys` records walk keys beside the poses, for a network with action control. `frame_num` and
    `poses` count pixel frames; `picture` is rows and columns.
    """

    frame_num: int
    chunk: int
    window: int = -1
    sink: int = 0
    index: tuple[int, ...] = (0, 179, 358, 679)
    picture: tuple[int, int] = (33, 47)
    poses: int = 60
    action: str | None = None
    keys: bool = False
    seed: int = 3

    @property
    def used(self) -> int:
        """Pixel frames of the recorded poses that count: `4n + 1` of what is asked for."""
        return min((n - 1) // 4 * 4 + 1 for n in (self.frame_num, self.poses))

    @property
    def frames(self) -> int:
        """Latent frames: whole chunks only."""
        pixels = self.frame_num if self.action else self.used
        return ((pixels - 1) // 4 + 1) // self.chunk * self.chunk

    @property
    def grid(self) -> tuple[int, int]:
        """Latent cells of the fitted picture, `(h, w)`."""
        aspect = self.picture[0] / self.picture[1]
        rows, columns = (int((AREA * a) ** 0.5 // 16) * 2 for a in (aspect, 1 / aspect))
        return rows, columns


def _camera(film: Film) -> tuple[dict[str, Tensor], Tensor]:
    """What is recorded of the camera, and the control tensor of the whole run."""
    height, width = (8 * cells for cells in film.grid)
    k = INTRINSICS[0] * torch.tensor([width / 832, height / 480]).repeat(2)
    if film.action is not None:
        source = poses_from_keys(*parse_action_string(film.action))
        relative = framewise_relative(interpolate_poses(source, film.frames))
        return {}, camera_condition(torch.from_numpy(relative), k, height, width)
    states = drawn(film.seed, 2, film.poses - 1, 4).gt(0.5).float().numpy()
    poses = poses_from_keys(states[0], states[1])
    found = framewise_relative(interpolate_poses(poses[: film.used], film.frames))
    relative, recorded = torch.from_numpy(found), {"poses": torch.from_numpy(poses)}
    if not film.keys:
        return recorded, camera_condition(relative, k, height, width)
    recorded["action"] = torch.from_numpy(np.vstack([states[0], states[0][-1:]])).int()
    pressed = recorded["action"][: film.used : 4][: film.frames]
    return recorded, action_condition(relative, k, pressed, height, width)


def _condition(film: Film, picture: Tensor, vae: WanVAE) -> Tensor:
    """Latents of the stretched picture and mid-grey frames, `[16, T, h, w]`."""
    height, width = (8 * cells for cells in film.grid)
    image = picture.permute(2, 0, 1)[None].float() / 127.5 - 1
    image = F.interpolate(image, (height, width), mode="bicubic")[:, :, None]
    grey = torch.zeros(1, 3, 4 * (film.frames - 1), height, width)
    return vae.encode(torch.cat([image, grey], 2))[0]


@torch.no_grad()
def record_film(folder: Path, name: str, film: Film, vae: WanVAE, *, said: bool = False) -> Path:
    """Write `e2e_fast_<name>.safetensors` and its weights.

    With `said` the weights have a name of their own, told in words in the metadata.
    """
    recorded, cam = _camera(film)
    picture = drawn(film.seed, *film.picture, 3).mul(60).add(128).clamp(0, 255).byte()
    latents = _condition(film, picture, vae)
    y = torch.cat([torch.zeros(4, *latents.shape[1:]), latents])
    y[:4, 0] = 1
    weights = random_weights(film.seed, channels=7 if film.keys else 6)
    stem = f"e2e_fast_{name}"
    file = "e2e_shared_weights" if said else f"{stem}_dit_weights"
    save(weights, folder / f"{file}.safetensors", config=NET)
    context = drawn(film.seed + 7, 5, NET["text_dim"])
    clean, noise = _denoise(film, Net(weights), context, y=y, cam=cam)
    recorded |= {"image_uint8_hwc": picture, "context": context, "cond_latent": latents}
    recorded |= {"latents": clean, "video": vae.decode(clean[None])[0], **noise}
    if film.action is None:
        recorded["intrinsics"] = INTRINSICS
    meta = {"local_attn_size": film.window, "sink_size": film.sink, "chunk_size": film.chunk}
    meta |= {"shift": 10.0, "frame_num": film.frame_num, "max_area": AREA, "action": film.action}
    meta |= {"noise": f"noise0 = initial latents; weights {file}; vae vae_weights"} if said else {}
    return save(recorded, folder / f"{stem}.safetensors", meta=meta)


def _denoise(
    film: Film, net: Net, context: Tensor, *, y: Tensor, cam: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clean latents of all chunks, and the noise in the order it was drawn."""
    (rows, columns), draws = film.grid, len(film.index) - 1
    plan = Plan(
        chunks=(film.chunk,) * (film.frames // film.chunk),
        window=film.window,
        sink=film.sink,
        rows=rows,
        columns=columns,
        index=film.index,
        layers=(),
    )
    run, start = Rollout(net, plan, context), drawn(61, 16, film.frames, rows, columns)
    noise, done = {"noise0": start}, []
    for c in range(len(plan.chunks)):
        at = slice(c * film.chunk, (c + 1) * film.chunk)
        eps = [drawn(300 + draws * c + s, 16, film.chunk, rows, columns) for s in range(draws)]
        noise |= {f"noise{1 + draws * c + s}": e for s, e in enumerate(eps)}
        done.append(run.chunk(c, start[:, at], y=y[:, at], cam=cam[:, :, at], eps=eps))
    return torch.cat(done, 1), noise

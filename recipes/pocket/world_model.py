"""The pocket world model as the recipe sees it: the product's DiT and text encoder together.

Holds the architecture, the initialisation and the teacher-forced forward pass: every sequence runs
as clean | noisy halves, where a noisy frame attends to the clean frames before it and to itself,
and a clean frame to the clean frames up to itself, which is what the live ring does chunk by chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.models.lingbot.blocks import CameraModulation
from worldline.models.lingbot.dit import LingBotDiT, TimeTables
from worldline.models.lingbot.params import DiTParams
from worldline.models.pocket.params import POCKET_TEXT, PocketTextParams
from worldline.models.pocket.text import PocketText
from worldline.ops.rope import RopeTable

WINDOW = 8  # latent frames a frame may see, itself included: the serving window
POCKET_DIT = DiTParams(
    dim=192, ffn_dim=576, num_heads=3, num_layers=6, in_dim=36, out_dim=16, freq_dim=64,
    text_dim=64, text_len=16, eps=1e-6, control_dim=6,
)  # fmt: skip


class Noisy(NamedTuple):
    """Inputs of one teacher-forced pass over `T` latent frames; times in 0..1."""

    clean: Tensor  # [B, 16, T, h, w] the past as the network will see it
    noisy: Tensor  # [B, 16, T, h, w]
    t_clean: Tensor  # [B, T]
    t_noisy: Tensor  # [B, T]


class WorldModel(nn.Module):
    """DiT and text table, trained together."""

    def __init__(self, dit: DiTParams = POCKET_DIT, text: PocketTextParams = POCKET_TEXT) -> None:
        super().__init__()
        self.dit = LingBotDiT(dit)
        self.text = PocketText(text)
        _initialise(self.dit)

    def forward(
        self, inputs: Noisy, *, y: Tensor, camera: Tensor, rows: Tensor, rope: RopeTable
    ) -> Tensor:
        """Flow `[B, 16, T, h, w]` of the noisy half; `rope` covers one half."""
        dit, (frames, h, w) = self.dit, inputs.clean.shape[2:]
        tokens = (h // 2) * (w // 2)
        x = torch.cat([inputs.clean, inputs.noisy], dim=2)  # B 16 2T h w
        x = dit.patchify(torch.cat([x, torch.cat([y, y], dim=2)], dim=1))  # B 2L C
        t = torch.cat([inputs.t_clean, inputs.t_noisy], dim=1) * 1000.0  # B 2T
        tables = dit.time_tables(dit.embed_time(t))
        blocks = tuple(table.repeat_interleave(tokens, dim=1) for table in tables.blocks)
        twice = RopeTable(rope.cos.repeat(2, 1), rope.sin.repeat(2, 1))
        modulation = dit.camera_modulation(dit.embed_camera(camera))
        x = dit.run_blocks(
            x,
            time=TimeTables(blocks, tables.head),
            rope=twice,
            camera=[CameraModulation(*(m.repeat(1, 2, 1) for m in pair)) for pair in modulation],
            cross=dit.cross_kv(dit.embed_text(self.text.embed(rows))),
            attend=TeacherForcing(frames, tokens),
        )
        head = tables.head[:, frames:].repeat_interleave(tokens, dim=1)
        half = TimeTables((), head)
        return dit.project(x[:, frames * tokens :], half, (frames, h // 2, w // 2))


class TeacherForcing:
    """Attention of clean | noisy halves; `frames` at most the serving window."""

    def __init__(self, frames: int, tokens: int) -> None:
        assert frames <= WINDOW, "longer sequences than the window need another mask"
        self.frames = frames
        frame = torch.arange(frames).repeat_interleave(tokens)
        later = frame[None, :] > frame[:, None]
        self.clean_mask = torch.zeros(later.shape).masked_fill(later, float("-inf"))
        same = frame[None, :] >= frame[:, None]
        self.noisy_mask = torch.zeros(same.shape).masked_fill(same, float("-inf"))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[B, 2L, N, D]` each, clean half first."""
        del layer
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # B N 2L D
        half = q.shape[2] // 2
        k_clean, v_clean = k[:, :, :half], v[:, :, :half]
        scores = (q * q.shape[-1] ** -0.5) @ k_clean.transpose(-1, -2)  # B N 2L L
        clean = (scores[:, :, :half].float() + self.clean_mask).softmax(-1).to(v.dtype) @ v_clean
        own_q, own_k, own_v = (x[:, :, half:].unflatten(2, (self.frames, -1)) for x in (q, k, v))
        own = (own_q * q.shape[-1] ** -0.5) @ own_k.transpose(-1, -2)  # B N T l l
        both = [scores[:, :, half:].float() + self.noisy_mask, own.flatten(2, 3).float()]
        weights = torch.cat(both, dim=-1).softmax(-1).to(v.dtype)  # B N L L+l
        noisy = weights[..., :half] @ v_clean
        noisy = noisy + (weights[..., half:].unflatten(2, (self.frames, -1)) @ own_v).flatten(2, 3)
        return torch.cat([clean, noisy], dim=2).transpose(1, 2)


@torch.no_grad()
def _initialise(dit: LingBotDiT) -> None:
    """Start as a network that predicts nothing and ignores the camera, but sees it clearly.

    NOTE with ordinary initialisation a turn of 5 degrees changes the camera embedding by some
    hundredths, because ray directions hardly differ; the low frequencies are amplified here.
    """
    nn.init.zeros_(dit.head.head.weight)
    assert dit.head.head.bias is not None
    nn.init.zeros_(dit.head.head.bias)
    layer = dit.patch_embedding_wancamctrl
    gain = torch.tensor([1.5, 1.5, 1.5, 4.0, 4.0, 4.0])[: dit.params.control_dim]
    low = torch.randn(layer.out_features, len(gain)) * gain / (64 * 4)  # C c, mean over a patch
    layer.weight.mul_(0.5).add_(low.repeat_interleave(64 * 4, dim=1))
    for block in dit.iter_blocks():
        for part in (block.cam_scale_layer, block.cam_shift_layer):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)


def add_noise(x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """`(1-t) x0 + t eps` with `t` `[B, T]` and tensors `[B, 16, T, h, w]`."""
    t = t[:, None, :, None, None]
    return (1 - t) * x0 + t * eps


def x0_error(flow: Tensor, noisy: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """Mean squared error of the implied x0 per sequence and frame, `[B, T]`."""
    guess = noisy - t[:, None, :, None, None] * flow
    return F.mse_loss(guess, x0, reduction="none").mean(dim=(1, 3, 4))

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

from worldline.models.lingbot.blocks import CameraModulation, TextKV
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


class Prompts(NamedTuple):
    """Prompts as table rows `[B, S]`; from frame `since` `[B]` on, `after` is in force."""

    rows: Tensor
    after: Tensor
    since: Tensor


class TwoTexts(NamedTuple):
    """Text of a block for sequences whose prompt changes: each query asks the one in its time."""

    first: TextKV
    second: TextKV
    late: Tensor  # [B, L, 1, 1] bool: the second is in force

    def attend(self, query: Tensor) -> Tensor:
        """Cross-attention of `query` `[B, L, N, D]`."""
        return torch.where(self.late, self.second.attend(query), self.first.attend(query))


class WorldModel(nn.Module):
    """DiT and text table, trained together."""

    def __init__(self, dit: DiTParams = POCKET_DIT, text: PocketTextParams = POCKET_TEXT) -> None:
        super().__init__()
        self.dit = LingBotDiT(dit)
        self.text = PocketText(text)
        _initialise(self.dit)

    def forward(
        self, inputs: Noisy, *, y: Tensor, camera: Tensor, prompts: Prompts, rope: RopeTable
    ) -> Tensor:
        """Flow `[B, 16, T, h, w]` of the noisy half; `rope` covers one half."""
        dit, (frames, h, w) = self.dit, inputs.clean.shape[2:]
        tokens = (h // 2) * (w // 2)
        x = torch.cat([inputs.clean, inputs.noisy], dim=2)  # B 16 2T h w
        x = dit.patchify(torch.cat([x, torch.cat([y, y], dim=2)], dim=1))  # B 2L C
        t = torch.cat([inputs.t_clean, inputs.t_noisy], dim=1) * 1000.0  # B 2T
        tables = dit.time_tables(dit.embed_time(t))
        blocks = tuple(_per_token(table, tokens) for table in tables.blocks)
        twice = RopeTable(rope.cos.repeat(2, 1), rope.sin.repeat(2, 1))
        modulation = dit.camera_modulation(dit.embed_camera(camera))
        x = dit.run_blocks(
            x,
            time=TimeTables(blocks, tables.head),
            rope=twice,
            camera=[CameraModulation(*(m.repeat(1, 2, 1) for m in pair)) for pair in modulation],
            cross=self._texts(prompts, frames, tokens),
            attend=TeacherForcing(frames, tokens),
        )
        half = TimeTables((), _per_token(tables.head[:, frames:], tokens))
        return dit.project(x[:, frames * tokens :], half, (frames, h // 2, w // 2))

    def _texts(self, prompts: Prompts, frames: int, tokens: int) -> list[TwoTexts]:
        """Text of each block for both halves of the sequences."""
        both = (self.dit.embed_text(self.text.embed(r)) for r in (prompts.rows, prompts.after))
        first, second = (self.dit.cross_kv(text) for text in both)
        late = torch.arange(frames) >= prompts.since[:, None]  # B T
        late = late.repeat_interleave(tokens, dim=1).repeat(1, 2)[:, :, None, None]  # B 2L 1 1
        return [TwoTexts(a, b, late) for a, b in zip(first, second, strict=True)]


def _per_token(table: Tensor, tokens: int) -> Tensor:
    """Repeat a table of frames `[B, M, ...]` for each frame's tokens; its gradient is a sum."""
    expanded = table.unsqueeze(2).expand(-1, -1, tokens, *([-1] * (table.ndim - 2)))
    return expanded.flatten(1, 2)


class TeacherForcing:
    """Attention of clean | noisy halves; `frames` at most the serving window.

    Frames are taken in `GROUPS` groups, so that early ones do not meet keys they may not see.
    """

    GROUPS = 2

    def __init__(self, frames: int, tokens: int) -> None:
        assert frames <= WINDOW, "longer sequences than the window need another mask"
        self.tokens = tokens
        step = -(-frames // self.GROUPS)
        self.spans = [(i, min(i + step, frames)) for i in range(0, frames, step)]
        frame = torch.arange(frames).repeat_interleave(tokens)
        later, same = frame[None, :] > frame[:, None], frame[None, :] >= frame[:, None]
        self.clean_mask = torch.zeros(later.shape).masked_fill(later, float("-inf"))
        self.noisy_mask = torch.zeros(same.shape).masked_fill(same, float("-inf"))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[B, 2L, N, D]` each, clean half first."""
        del layer
        q, k, v = (x.transpose(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))  # B N 2L D
        half = q.shape[2] // 2
        clean, noisy = [], []
        for low, high in self.spans:
            rows, keys = slice(low * self.tokens, high * self.tokens), slice(0, high * self.tokens)
            k_past, v_past = k[:, :, keys], v[:, :, keys]
            own = [x[:, :, half + rows.start : half + rows.stop] for x in (q, k, v)]
            scores = (q[:, :, rows] @ k_past.transpose(-1, -2)).float()
            weights = (scores + self.clean_mask[rows, keys]).softmax(-1)
            clean.append(weights.to(v.dtype) @ v_past)
            scores = (own[0] @ k_past.transpose(-1, -2)).float() + self.noisy_mask[rows, keys]
            noisy.append(self._with_own(scores, v_past, own))
        return torch.cat([*clean, *noisy], dim=2).transpose(1, 2)

    def _with_own(self, scores: Tensor, v_past: Tensor, own: list[Tensor]) -> Tensor:
        """Softmax over the clean past and the own noisy frame together."""
        q, k, v = (x.unflatten(2, (-1, self.tokens)) for x in own)  # B N T l D
        inner = (q @ k.transpose(-1, -2)).flatten(2, 3).float()  # B N L l
        weights = torch.cat([scores, inner], dim=-1).softmax(-1).to(v.dtype)
        past, inner = weights.split([scores.shape[-1], self.tokens], dim=-1)
        return past @ v_past + (inner.unflatten(2, (-1, self.tokens)) @ v).flatten(2, 3)


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

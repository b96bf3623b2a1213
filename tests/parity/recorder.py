"""A second, plain implementation of causal runs, to record directories that the checker must pass.

Written from the facts (`lingbot_model`, sections 2 to 6) with no code of the package: a dict of
weights, complex numbers for RoPE, and a buffer of keys whose oldest entries are shifted out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]
NET: dict[str, Any] = {
    "in_dim": 36,
    "dim": 24,
    "ffn_dim": 40,
    "freq_dim": 16,
    "text_dim": 10,
    "text_len": 7,
    "out_dim": 16,
    "num_heads": 2,
    "num_layers": 2,
    "eps": 1e-6,
}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_weights(seed: int, *, channels: int) -> Weights:
    """Weights of `NET` under the published names; `channels` is 6 or 7."""
    c, f, w = NET["dim"], NET["ffn_dim"], {}
    linears = {
        "patch_embedding_wancamctrl": (c, 256 * channels),
        "c2ws_hidden_states_layer1": (c, c),
        "c2ws_hidden_states_layer2": (c, c),
        "text_embedding.0": (c, NET["text_dim"]),
        "text_embedding.2": (c, c),
        "time_embedding.0": (c, NET["freq_dim"]),
        "time_embedding.2": (c, c),
        "time_projection.1": (6 * c, c),
        "head.head": (64, c),
    }
    w["patch_embedding.weight"] = drawn(seed, c, 36, 1, 2, 2) / 12
    w["patch_embedding.bias"] = drawn(seed + 1, c) / 10
    w["head.modulation"] = drawn(seed + 2, 1, 2, c) / 5
    for i in range(NET["num_layers"]):
        at = f"blocks.{i}."
        w[at + "modulation"] = drawn(seed + 10 * i + 3, 1, 6, c) / 5
        for part in ("self_attn", "cross_attn"):
            linears |= {f"{at}{part}.{name}": (c, c) for name in "qkvo"}
            for norm in ("norm_q", "norm_k"):
                w[f"{at}{part}.{norm}.weight"] = 1 + drawn(seed + 4 + len(w), c) / 10
        w[at + "norm3.weight"] = 1 + drawn(seed + 5 + i, c) / 10
        w[at + "norm3.bias"] = drawn(seed + 6 + i, c) / 10
        linears |= {at + "ffn.0": (f, c), at + "ffn.2": (c, f)}
        cam = ("cam_injector_layer1", "cam_injector_layer2", "cam_scale_layer", "cam_shift_layer")
        linears |= {at + name: (c, c) for name in cam}
    for n, (name, (rows, columns)) in enumerate(linears.items()):
        w[name + ".weight"] = drawn(seed + 100 + n, rows, columns) / columns**0.5
        w[name + ".bias"] = drawn(seed + 300 + n, rows) / 10
    return w


@dataclass
class Buffer:
    """Keys and values of one layer as the official code keeps them: shifted left when full."""

    tokens: int  # per latent frame
    size: int  # latent frames
    sink: int
    limit: int | None  # latent frames attended at most
    k: Tensor = field(init=False)
    v: Tensor = field(init=False)
    local: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        heads = NET["num_heads"]
        self.k = torch.zeros(1, self.size * self.tokens, heads, NET["dim"] // heads)
        self.v = torch.zeros_like(self.k)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        """Store the tokens `start ...` and attend to what is held."""
        new, stop = k.shape[1], start + k.shape[1]
        if stop > self.end:
            excess = max(0, self.local + new - self.k.shape[1])
            if excess:
                kept, sink = self.local, self.sink * self.tokens
                for held in (self.k, self.v):
                    held[:, sink : kept - excess] = held[:, sink + excess : kept].clone()
            self.local += new - excess
            self.end = stop
        self.k[:, self.local - new : self.local] = k
        self.v[:, self.local - new : self.local] = v
        first = 0 if self.limit is None else max(0, self.local - self.limit * self.tokens)
        return heads_attend(q, self.k[:, first : self.local], self.v[:, first : self.local])


def heads_attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("blnd,bknd->bnlk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bnlk,bknd->blnd", scores.softmax(-1), v)


Held = list[Buffer]


@dataclass
class Net:
    """The network of `NET` as functions over its weights."""

    w: Weights

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def mlp(self, first: str, second: str, x: Tensor) -> Tensor:
        return self.linear(second, F.silu(self.linear(first, x)))

    def rms(self, name: str, x: Tensor) -> Tensor:
        scale = x.pow(2).mean(-1, keepdim=True).add(NET["eps"]).rsqrt()
        return (x * scale * self.w[name + ".weight"]).unflatten(-1, (NET["num_heads"], -1))

    def text(self, context: Tensor) -> Tensor:
        rows = torch.zeros(1, NET["text_len"], NET["text_dim"])
        rows[0, : len(context)] = context
        hidden = F.gelu(self.linear("text_embedding.0", rows), approximate="tanh")
        return self.linear("text_embedding.2", hidden)

    def cross_kv(self, layer: int, text: Tensor) -> tuple[Tensor, Tensor]:
        at = f"blocks.{layer}.cross_attn."
        k = self.rms(at + "norm_k", self.linear(at + "k", text))
        return k, self.linear(at + "v", text).unflatten(-1, (NET["num_heads"], -1))

    def camera(self, cam: Tensor) -> Tensor:
        _, c, t, h, w = cam.shape
        x = cam.view(c, t, h // 2, 2, w // 2, 2).permute(1, 2, 4, 0, 3, 5).reshape(1, -1, 4 * c)
        p = self.linear("patch_embedding_wancamctrl", x)
        return p + self.mlp("c2ws_hidden_states_layer1", "c2ws_hidden_states_layer2", p)

    def rope(self, x: Tensor, start: int, grid: Sequence[int]) -> Tensor:
        """Turn adjacent pairs as complex numbers; latent frames count from `start`."""
        pairs = x.shape[-1] // 2
        third = pairs // 3
        sizes = (pairs - 2 * third, third, third)
        axes: list[Tensor] = []
        for axis, (count, size) in enumerate(zip(grid, sizes, strict=True)):
            position = torch.arange(count, dtype=torch.float64) + start * (axis == 0)
            ladder = 10000.0 ** -(torch.arange(size, dtype=torch.float64) / max(size, 1))
            shape = [1, 1, 1, size]
            shape[axis] = count
            axes.append((position[:, None] * ladder).view(shape).expand(*grid, size))
        angles = torch.cat(axes, -1).reshape(-1, 1, pairs)
        turned = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
        turned = turned * torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(turned).flatten(-2).float()

    def forward(
        self, x36: Tensor, t: float, *, text: Tensor, cam: Tensor | None, start: int, held: Held
    ) -> Tensor:
        """Flow `[16, T, h, w]` of `x36 [36, T, h, w]`; `held` are the layers' buffers."""
        w, dim = self.w, NET["dim"]
        patches = F.conv3d(
            x36[None], w["patch_embedding.weight"], w["patch_embedding.bias"], (1, 2, 2)
        )
        grid = patches.shape[2:]
        x = patches.flatten(2).transpose(1, 2)
        half = NET["freq_dim"] // 2
        angle = t * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        wave = torch.cat([angle.cos(), angle.sin()]).float()
        e = self.mlp("time_embedding.0", "time_embedding.2", wave)
        e0 = self.linear("time_projection.1", F.silu(e)).view(6, dim)
        for layer in range(NET["num_layers"]):
            x = self._block(layer, x, e0=e0, text=text, cam=cam, start=start, grid=grid, held=held)
        shift, scale = w["head.modulation"][0] + e
        out = self.linear("head.head", F.layer_norm(x, (dim,), eps=1e-6) * (1 + scale) + shift)
        out = out.view(*grid, 2, 2, 16).permute(5, 0, 1, 3, 2, 4)
        return out.reshape(16, grid[0], 2 * grid[1], 2 * grid[2])

    def _block(
        self,
        layer: int,
        x: Tensor,
        *,
        e0: Tensor,
        text: Tensor,
        cam: Tensor | None,
        start: int,
        grid: Sequence[int],
        held: Held,
    ) -> Tensor:
        at, dim = f"blocks.{layer}.", NET["dim"]
        m = self.w[at + "modulation"][0] + e0
        y = F.layer_norm(x, (dim,), eps=1e-6) * (1 + m[1]) + m[0]
        a = at + "self_attn."
        q = self.rope(self.rms(a + "norm_q", self.linear(a + "q", y)), start, grid)
        k = self.rope(self.rms(a + "norm_k", self.linear(a + "k", y)), start, grid)
        v = self.linear(a + "v", y).unflatten(-1, (NET["num_heads"], -1))
        seen = held[layer].attend(q, k, v, start * grid[1] * grid[2])
        x = x + m[2] * self.linear(a + "o", seen.flatten(-2))
        if cam is not None:
            c = cam + self.mlp(at + "cam_injector_layer1", at + "cam_injector_layer2", cam)
            x = (1 + self.linear(at + "cam_scale_layer", c)) * x
            x = x + self.linear(at + "cam_shift_layer", c)
        y = F.layer_norm(x, (dim,), self.w[at + "norm3.weight"], self.w[at + "norm3.bias"], 1e-6)
        a = at + "cross_attn."
        q = self.rms(a + "norm_q", self.linear(a + "q", y))
        x = x + self.linear(a + "o", heads_attend(q, *self.cross_kv(layer, text)).flatten(-2))
        y = F.layer_norm(x, (dim,), eps=1e-6) * (1 + m[4]) + m[3]
        hidden = F.gelu(self.linear(at + "ffn.0", y), approximate="tanh")
        return x + m[5] * self.linear(at + "ffn.2", hidden)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a causal run is recorded with; `window` -1 keeps everything."""

    chunks: tuple[int, ...]
    window: int = -1
    sink: int = 0
    rows: int = 4  # latent cells
    columns: int = 6
    shift: float = 10.0
    index: tuple[int, ...] = (0, 250, 500, 750)
    limit: int | None = None
    channels: int = 6
    use_cam: bool = True
    views: bool = False
    layers: tuple[int, ...] = (0, 1)
    seed: int = 0


def official_steps(
    shift: float, index: Sequence[int]
) -> tuple[list[int], list[float], list[float]]:
    """Timesteps, sigma to x0 (first of equal timesteps), sigma to re-noise (second of them)."""
    u = 0.999 * (1 - np.arange(1000) / 1000)
    sigma = shift * u / (1 + (shift - 1) * u)
    t = (1000 * sigma).astype(np.int64)
    wanted = [int(t[i]) for i in index]
    places = [np.flatnonzero(t == value) for value in wanted]
    first = [float(sigma[p[0]]) for p in places]
    return wanted, first, [float(sigma[p[min(1, len(p) - 1)]]) for p in places]


class Rollout:
    """A causal run in progress: `chunk` gives the clean latents of the next chunk."""

    def __init__(self, net: Net, plan: Plan, context: Tensor) -> None:
        self.net, self.plan, self.text = net, plan, net.text(context)
        self.tokens = plan.rows * plan.columns // 4
        size = sum(plan.chunks) if plan.window == -1 else plan.window
        self.held = [
            Buffer(self.tokens, size, plan.sink, plan.limit) for _ in range(NET["num_layers"])
        ]
        self.start = 0
        self.t, self.first, self.second = official_steps(plan.shift, plan.index)
        self.calls: list[list[int]] = []
        self.record: dict[str, Tensor] = {}

    def chunk(
        self, c: int, x: Tensor, *, y: Tensor, cam: Tensor | None, eps: Sequence[Tensor]
    ) -> Tensor:
        camera = None if cam is None else self.net.camera(cam)
        clean = x
        for step, t in enumerate(self.t):
            flow = self._call(c, step, t, torch.cat([x, y]), camera)
            clean = (x.double() - self.first[step] * flow.double()).float()
            at = f"chunk{c}.step{step}."
            self.record |= {at + "flow": flow, at + "x0": clean}
            if step + 1 < len(self.t):
                sigma = self.second[step + 1]
                x = (1 - sigma) * clean + sigma * eps[step]
                self.record |= {at + "renoise_eps": eps[step], at + "renoised": x}
        out = self._call(c, -1, 0, torch.cat([clean, y]), camera)
        self.record[f"chunk{c}.context_pass.out"] = out
        for layer in self.plan.layers:
            for name in "kv":
                view = getattr(self.held[layer], name)[:, : self.held[layer].local]
                kept = view if self.plan.views else view.clone()
                self.record[f"chunk{c}.kv.layer{layer}.{name}"] = kept
        self.start += x.shape[1]
        return clean

    def _call(self, c: int, step: int, t: int, x36: Tensor, cam: Tensor | None) -> Tensor:
        flow = self.net.forward(x36, t, text=self.text, cam=cam, start=self.start, held=self.held)
        held = self.held[0]
        self.calls.append([c, step, t, self.start, held.local, held.end])
        return flow


@torch.no_grad()
def record_causal(folder: Path, name: str, plan: Plan) -> Path:
    """Write `dit_causal_<name>.safetensors` and its weights; returns the recording's path."""
    weights = random_weights(plan.seed, channels=plan.channels)
    net, context = Net(weights), drawn(plan.seed + 7, 5, NET["text_dim"])
    run = Rollout(net, plan, context)
    tensors = {"context": context}
    for c, count in enumerate(plan.chunks):
        shape = (count, plan.rows, plan.columns)
        noise, y = drawn(50 + c, 16, *shape), drawn(80 + c, 20, *shape)
        cam = drawn(20 + c, 1, 64 * plan.channels, *shape) if plan.use_cam else None
        eps = [drawn(900 + 10 * c + s, 16, *shape) for s in range(len(plan.index) - 1)]
        run.chunk(c, noise, y=y, cam=cam, eps=eps)
        tensors |= {f"chunk{c}.noise": noise, f"chunk{c}.y": y}
        if cam is not None:
            tensors[f"chunk{c}.cam"] = cam
    k, v = net.cross_kv(0, run.text)
    tensors |= {"cross_kv.layer0.k": k, "cross_kv.layer0.v": v}
    tensors |= {"timesteps": torch.tensor(run.t), "calls": torch.tensor(run.calls)}
    return _write(folder, name, plan, weights=weights, tensors=tensors | run.record)


def _write(
    folder: Path, name: str, plan: Plan, *, weights: Weights, tensors: dict[str, Tensor]
) -> Path:
    case = {
        "chunks": plan.chunks,
        "lat_h": plan.rows,
        "lat_w": plan.columns,
        "frame_seqlen": plan.rows * plan.columns // 4,
        "kv_frames": sum(plan.chunks) if plan.window == -1 else plan.window,
        "shift": plan.shift,
        "timesteps_index": plan.index,
        "max_attention_frames": plan.limit,
        "use_cam": plan.use_cam,
        "weights": f"dit_weights_{name}.safetensors",
    }
    kind = {"control_type": "act" if plan.channels == 7 else "cam"}
    config = NET | kind | {"local_attn_size": plan.window, "sink_size": plan.sink}
    save(weights, folder / str(case["weights"]), config=NET | kind)
    return save(tensors, folder / f"dit_causal_{name}.safetensors", case=case, config=config)


def save(tensors: dict[str, Tensor], path: Path, **meta: Any) -> Path:
    """Write tensors (views included) with metadata as JSON."""
    plain = {key: value.clone().contiguous() for key, value in tensors.items()}
    save_file(plain, path, metadata={key: json.dumps(value) for key, value in meta.items()})
    return path

"""Every kernel against plain PyTorch at the sizes of the real models: times, traffic, agreement.

`python -m worldline.bench.kernels [--json]`, on a CUDA device: one 832x480 chunk of three latent
frames, 14B and 1.3B, bfloat16; and all attention backends at the full window, whose winners it
stores. Without CUDA the kernels are interpreted at a toy size: their agreement is checked, and
times mean nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from worldline.bench.machine import Machine, describe_machine
from worldline.bench.rates import best_seconds
from worldline.kernels.choice_file import AttentionChoice
from worldline.kernels.rows import e4m3_rows, quantises
from worldline.models.registry import get_preset
from worldline.ops.attention import AttentionShape, Slots
from worldline.ops.block_math import (
    PLAIN,
    BlockMath,
    EqualKeys,
    HeadNorms,
    Projected,
    split_heads,
)
from worldline.ops.norm import AffineLayerNorm, RMSNorm
from worldline.ops.rope import rope_table
from worldline.quant.rows import E4M3_PEAK, LEAST_SCALE, plain_e4m3

MODELS = ("lingbot-world-fast", "lingbot-world-v2-1.3b")
GRID = (30, 52)  # tokens of a latent frame at 832x480
CHUNK, WINDOW = 3, 18  # latent frames
WARPS = (4, 8, 16)
SECONDS = 0.2  # per measurement
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6}  # of the largest value: two steps at most
EPS = 1e-6
TEXT_ROWS = 480  # of padding, of a prompt of some thirty words
DESCRIPTION = "Times of all kernels against plain PyTorch, and whether they agree."

Milliseconds = Callable[[Callable[[], object]], float]


class Sizes(NamedTuple):
    """A chunk of one model; `frames` and `window` in latent frames, `grid` in tokens."""

    model: str
    heads: int
    dim: int
    dtype: torch.dtype
    frames: int = CHUNK
    window: int = WINDOW
    grid: tuple[int, int] = GRID

    @property
    def tokens(self) -> int:
        """Tokens of a latent frame."""
        return self.grid[0] * self.grid[1]

    @property
    def attention(self) -> AttentionShape:
        """Self-attention once the window is full."""
        queries, keys = self.frames * self.tokens, self.window * self.tokens
        return AttentionShape(queries, keys, self.heads, self.dim, self.dtype)


class KernelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: milliseconds in plain PyTorch and by the kernel.

    `triton_ms` is what worlds get, `by_warps` the same with other numbers of warps. `gb` is the
    traffic that cannot be avoided and `gb_per_s` its rate. `off` is the largest difference, of the
    largest value; `differing` the share of values that are not equal.
    """

    model: str
    name: str
    dtype: str
    torch_ms: float
    triton_ms: float
    by_warps: dict[int, float]
    gb: float
    gb_per_s: float
    off: float
    differing: float
    agrees: bool


class KernelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All of it; `interpreted` times are no times."""

    machine: Machine
    interpreted: bool
    kernels: list[KernelRow]
    attention: list[AttentionChoice]


class Operation(NamedTuple):
    """What is timed: its results, and the bytes it must read and write."""

    run: Callable[[BlockMath], tuple[Tensor, ...]]
    traffic: int


class Buffers:
    """The slots of a ring, and an attention that leaves the queries as they are."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        shape = (1, sizes.window * sizes.tokens, sizes.heads, sizes.dim)  # 1 K N D
        self.keys, self.values = (
            torch.zeros(shape, dtype=sizes.dtype, device=device) for _ in range(2)
        )
        count = sizes.frames * sizes.tokens
        self._rows = torch.arange(count, device=device) + sizes.tokens  # one frame of sink

    def slots(self, layer: int) -> Slots:
        """See `SlotAttend`."""
        del layer
        return Slots(self.keys, self.values, self._rows)

    def read(self, layer: int, q: Tensor) -> Tensor:
        """See `SlotAttend`."""
        del layer
        return q

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write as `KVRing` does."""
        self.keys.index_copy_(1, self._rows, k)
        self.values.index_copy_(1, self._rows, v)
        return self.read(layer, q)


def operations(sizes: Sizes, device: torch.device) -> dict[str, Operation]:
    """What a block does between its matmuls, on seeded values."""
    generator = torch.Generator(device).manual_seed(0)
    count, width, dtype = sizes.frames * sizes.tokens, sizes.heads * sizes.dim, sizes.dtype

    def draw(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(kind)

    x = draw(1, count, width, kind=torch.float32)
    y, *camera = (draw(1, count, width) for _ in range(3))
    shift, scale, gate = draw(1, 1, 6, width, kind=torch.float32).unbind(2)[:3]
    affine = AffineLayerNorm(width, EPS).to(device, dtype).requires_grad_(False)
    qkv = Projected(*(draw(1, count, width) for _ in range(3)))
    modulation = {"shift": shift, "scale": scale, "eps": EPS, "dtype": dtype}
    moved = (camera[0], camera[1])

    stream, half = x.nbytes, y.nbytes
    return {
        "norm, modulate": Operation(
            lambda math: (math.norm_modulate(x, **modulation),), stream + half
        ),
        "gate, camera, norm": Operation(
            lambda math: math.after_attention(x, y, gate=gate, camera=moved, norm=affine),
            2 * stream + 4 * half,
        ),
        "add, norm, modulate": Operation(
            lambda math: math.after_text(x, y, **modulation), 2 * stream + 2 * half
        ),
        "gate": Operation(lambda math: (math.add_gated(x, y, gate=gate),), 2 * stream + half),
        **_heads(qkv, sizes, device),
        **_text(qkv, sizes),
        **_eight_bits(qkv.q),
    }


def _heads(qkv: Projected, sizes: Sizes, device: torch.device) -> dict[str, Operation]:
    """What happens to projected queries, keys and values."""
    rms = RMSNorm(sizes.heads * sizes.dim, EPS).to(device, sizes.dtype).requires_grad_(False)
    norms = HeadNorms(rms, rms, sizes.heads)
    rows, columns = sizes.grid
    rope = rope_table(range(sizes.frames), rows, columns, head_dim=sizes.dim, device=device)
    ring = Buffers(sizes, device)

    def heads(math: BlockMath) -> tuple[Tensor, ...]:
        q = math.self_attend(qkv, norms=norms, rope=rope, attend=ring, layer=0)
        return q, ring.keys, ring.values

    half = qkv.q.nbytes
    return {
        "q, k norm, RoPE, write": Operation(heads, 6 * half),
        "query norm": Operation(lambda math: (math.query(qkv.q, norms=norms),), 2 * half),
    }


def _text(qkv: Projected, sizes: Sizes) -> dict[str, Operation]:
    """The last step of cross-attention to the distinct rows of a prompt."""
    q, k, v = (split_heads(part, sizes.heads).transpose(1, 2) for part in qkv)  # B N L D
    key = EqualKeys(k[:, :, -1:], v[:, :, -1:], TEXT_ROWS)
    log_sum = q.float().sum(-1)  # B N L
    run = partial(_mix_key, v, log_sum, q, key)
    return {"one more text key": Operation(run, 3 * q.nbytes + log_sum.nbytes)}


def _mix_key(
    out: Tensor, log_sum: Tensor, q: Tensor, key: EqualKeys, math: BlockMath
) -> tuple[Tensor, ...]:
    return (math.mix_key(out, log_sum, q=q, key=key),)


def _eight_bits(x: Tensor) -> dict[str, Operation]:
    """Rows in e4m3, on devices that know it; bit for bit, so nothing may differ."""
    if not quantises(x):
        return {}

    def run(math: BlockMath) -> tuple[Tensor, ...]:
        return plain_e4m3(x) if math is PLAIN else e4m3_rows(x, E4M3_PEAK, LEAST_SCALE)

    return {"rows in e4m3": Operation(run, x.nbytes + x.numel())}


@torch.no_grad()
def measure_kernels(
    sizes: Sizes, device: torch.device, *, milliseconds: Milliseconds
) -> list[KernelRow]:
    """Times and agreement of all kernels at one model's sizes; where Triton can run."""
    from worldline.kernels.block_math import TritonMath

    kernels = {warps: TritonMath(warps=warps) for warps in (None, *WARPS)}
    rows: list[KernelRow] = []
    for name, (run, traffic) in operations(sizes, device).items():
        wanted = [part.clone() for part in run(PLAIN)]
        off, differing = difference(run(kernels[None]), wanted)
        ms = {warps: milliseconds(partial(run, math)) for warps, math in kernels.items()}
        rows.append(
            KernelRow(
                model=sizes.model,
                name=name,
                dtype=str(sizes.dtype).removeprefix("torch."),
                torch_ms=milliseconds(partial(run, PLAIN)),
                triton_ms=ms[None],
                by_warps={warps: ms[warps] for warps in WARPS},
                gb=traffic / 1e9,
                gb_per_s=traffic / 1e6 / ms[None],
                off=off,
                differing=differing,
                agrees=off <= BOUND[sizes.dtype],
            )
        )
    return rows


def difference(got: tuple[Tensor, ...], wanted: list[Tensor]) -> tuple[float, float]:
    """Largest difference, of the largest value of its tensor, and the share of unequal values."""
    off, unequal, total = 0.0, 0, 0
    for ours, theirs in zip(got, wanted, strict=True):
        distance = (ours.float() - theirs.float()).abs()
        largest = float(distance.max() / theirs.float().abs().max())
        off = max(off, largest) if largest == largest else largest  # NaN stays
        unequal += int((distance != 0).sum())
        total += distance.numel()
    return off, unequal / total


def measure_attention(sizes: Sizes, device: torch.device) -> AttentionChoice:
    """Time every backend at the full window, anew, and store the winner for later sessions."""
    from worldline.kernels.attention import AttentionChooser

    return AttentionChooser(device).measure_again(sizes.attention)


def measure_all(*, cuda: bool) -> KernelFigures:
    """Both models on the CUDA device, or a toy size in the interpreter."""
    device = torch.device("cuda" if cuda else "cpu")

    def milliseconds(call: Callable[[], object]) -> float:
        return 1e3 * best_seconds(call, device=device, budget=SECONDS if cuda else 0.0)

    if cuda:
        dits = {name: get_preset(name).dit for name in MODELS}
        sizes = [Sizes(n, d.num_heads, d.head_dim, torch.bfloat16) for n, d in dits.items()]
    else:
        sizes = [Sizes("toy", 3, 24, torch.float32, window=5, grid=(1, 2))]
    return KernelFigures(
        machine=describe_machine(),
        interpreted=not cuda,
        kernels=[
            row for one in sizes for row in measure_kernels(one, device, milliseconds=milliseconds)
        ],
        attention=[measure_attention(one, device) for one in sizes] if cuda else [],
    )


def as_table(figures: KernelFigures) -> str:
    """The figures as text."""
    lines = [f"{figures.machine.accelerator or figures.machine.processor}"]
    if figures.interpreted:
        lines.append("no CUDA device: kernels are interpreted at a toy size; times mean nothing")
    for row in figures.kernels:
        speed = "" if figures.interpreted else f"{row.gb_per_s:7.0f} GB/s"
        warps = " ".join(f"{warps}:{ms:.3f}" for warps, ms in row.by_warps.items())
        lines.append(
            f"{row.model:<24}{row.name:<26}torch {row.torch_ms:8.3f} ms  triton "
            f"{row.triton_ms:8.3f} ms  x{row.torch_ms / row.triton_ms:<6.2f}{speed}  "
            f"warps {warps}  off {row.off:.1e} ({row.differing:.2%} differ)"
            f"{'' if row.agrees else '  WRONG'}"
        )
    for choice in figures.attention:
        lines += _attention_lines(choice)
    return "\n".join(lines)


def _attention_lines(choice: AttentionChoice) -> list[str]:
    key = choice.key
    flops = 4 * key.queries * key.keys * key.heads * key.head_dim
    lines = [
        f"attention {key.queries} x {key.keys}, {key.heads} x {key.head_dim}: {choice.backend}"
    ]
    for name, ms in sorted(choice.ms.items(), key=lambda item: item[1]):
        lines.append(f"  {name:<16}{ms:8.3f} ms {flops / ms / 1e9:8.0f} TFLOP/s")
    lines += [f"  {name:<16}{why}" for name, why in choice.refused.items()]
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the measurement; returns 1 where a kernel and its oracle disagree."""
    parser = argparse.ArgumentParser(
        prog="python -m worldline.bench.kernels", description=DESCRIPTION
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    if find_spec("triton") is None:
        print("the kernels need the package triton, which exists for Linux")
        return 2
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    figures = measure_all(cuda=cuda)
    print(msgspec.json.encode(figures).decode() if options.json else as_table(figures))
    return 0 if all(row.agrees for row in figures.kernels) else 1


if __name__ == "__main__":
    raise SystemExit(main())

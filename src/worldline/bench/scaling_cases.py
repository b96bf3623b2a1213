"""Which estimates are printed for a model, and what they assume of several H200 cards.

Nothing here was measured by us on several cards. Where a figure comes from somebody's published
measurement, its `source` says so; the rest are guesses, and say that.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from worldline.bench.arithmetic import ChunkFlops, ChunkSize, chunk_flops
from worldline.bench.column_work import decode_exchanges
from worldline.bench.decode_work import decode_flops
from worldline.bench.scaling import (
    CASES,
    Assumptions,
    Scaling,
    Shape,
    Stages,
    Sustained,
    computed_stages,
    scale,
)
from worldline.models.preset import Preset, resolve_runtime
from worldline.models.presets import DIT_14B
from worldline.runtime.parallel.expected import Sharing
from worldline.runtime.parts import build_networks
from worldline.runtime.state import Geometry

HALF = Sustained(
    matmul=632,
    attention=560,
    decoder=97,
    source="guess for one H200: 80 % of 790 in products and of 700 in attention, where the best "
    "published server reaches 570 in all; the decoder as it publishes it, 417 ms for 12 frames",
)
EIGHT = msgspec.structs.replace(
    HALF,
    matmul=1200,
    source="as in bfloat16, but products in e4m3 at 80 % of 1500, which nobody has shown: one "
    "published server gained 7 % in all",
)
CAREFUL = Sustained(
    matmul=570,
    attention=570,
    decoder=97,
    source="what the best published server reaches on one H200: 570 in all, and 417 ms to decode "
    "12 frames",
)
WANTED = Assumptions(
    link_gb_per_s=350,
    call_us=25,
    lost=0.04,
    source="guess: NVLink of 900 GB/s both ways gives 350 one way; collectives recorded in graphs; "
    "of 570 TFLOP/s on one card the best published server keeps 92 % on each of four",
)
AS_OTHERS = msgspec.structs.replace(
    WANTED,
    call_us=260,
    source="as others measured: 105 ms for the 400 collectives of a chunk on four H200",
)
TINY_RATE = 220.0  # TFLOP/s


class Way(NamedTuple):
    """One way to run: how fast, under what assumptions, and what is left out."""

    title: str
    rate: Sustained
    assumed: Assumptions
    tiny: bool = False
    context: bool = True


WAYS = (
    Way("bf16, others' rates", CAREFUL, AS_OTHERS),
    Way("bf16", HALF, WANTED),
    Way("bf16, tiny decoder", HALF, WANTED, tiny=True),
    Way("8bit", EIGHT, WANTED),
    Way("8bit, tiny decoder", EIGHT, WANTED, tiny=True),
    Way("8bit, no context pass", EIGHT, WANTED, context=False),
)


class Subject(NamedTuple):
    """A model at one size: the work of a chunk, whole, and how it is cut.

    Of some, the 14B at 832x480, a speed is `wanted`.
    """

    flops: ChunkFlops
    decoder: int
    tiny_decoder: int
    shape: Shape
    wanted: bool


def subject_of(preset: Preset, width: int, height: int) -> Subject:
    """Of a preset at its own chunk, window and steps. Counts on the meta device: seconds."""
    settings, geometry = resolve_runtime(preset), Geometry(width, height)
    chunk, grid, dit = settings.chunk, geometry.latent, preset.dit
    tokens = chunk * geometry.tokens_per_frame
    keys = settings.window * geometry.tokens_per_frame
    size = ChunkSize(tokens, keys, len(settings.steps), chunk * width * height)
    sharing = Sharing(
        ranks=1,
        tokens=tokens,
        width=dit.dim,
        heads=dit.num_heads,
        layers=dit.num_layers,
        steps=len(settings.steps),
        itemsize=2,
        values=4 * dit.out_dim,
    )
    vae = build_networks(preset).vae  # float32, as on a device
    exchanges = {ranks: decode_exchanges(vae, chunk, grid, ranks=ranks) for ranks in CASES}
    return Subject(
        flops=chunk_flops(dit, size),
        decoder=decode_flops(preset, chunk, grid),
        tiny_decoder=decode_flops(preset, chunk, grid, tiny=True),
        shape=Shape(sharing, 4 * chunk, grid[1], exchanges),
        wanted=dit == DIT_14B and (width, height) == (832, 480),
    )


def estimates(subject: Subject, *, measured: Stages | None = None) -> list[Scaling]:
    """Every way to run it; of `measured` stages one alone, as they were measured."""
    if measured is not None:
        stages = (measured, subject.shape, WANTED)
        return [scale("measured stages", *stages, judged=subject.wanted)]
    return [_estimate(subject, way) for way in WAYS]


def _estimate(subject: Subject, way: Way) -> Scaling:
    shape = subject.shape._replace(columns=None) if way.tiny else subject.shape
    rate, decoder = way.rate, subject.decoder
    if way.tiny:
        decoder, source = (
            subject.tiny_decoder,
            f"{rate.source}; the tiny decoder as published, 7 ms for 12 frames",
        )
        rate = msgspec.structs.replace(rate, decoder=TINY_RATE, source=source)
    stages = computed_stages(subject.flops, decoder, rate, context=way.context)
    return scale(way.title, stages, shape, way.assumed, judged=subject.wanted)

"""What each saving of the engine is worth: the same chunks with one of them off, side by side.

All variants share the loaded networks and are stepped in turns, chunk by chunk, so that whatever
else happens on the machine happens to all of them; the order turns too. Where not all of their
rings fit into memory they are measured in groups, each with the complete engine among them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldline.bench.chunk import ChunkRequest, controls, open_session, warmup_chunks
from worldline.bench.picture import Bar, Stacked
from worldline.core.chunk import StageTimings
from worldline.core.errors import ConfigError
from worldline.runtime import pipeline
from worldline.runtime.engine import Session, World
from worldline.runtime.memory import free_bytes
from worldline.runtime.savings import SAVINGS

ALL, NONE = "all_savings", "none_of_the_savings"
COMPARED_CHUNKS = 6  # whose latents are compared in float32, from the first on
CLASS_B_BOUND = 1e-5
LABELS = {ALL: "nothing", NONE: "all of them"}
DIT_STAGES = ("conditions", "denoise", "context")
MEMORY_SHARE = 0.8  # of the free memory, for the sessions of one group


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The engine without `off`, beside the complete one measured in the same turns.

    `dit_ms_p50` is conditions, denoise and context together, `passes_ms_p50` without conditions.
    `slower` is the median, over the turns, of this chunk's time by that of the complete engine;
    `dit_slower` the same of the DiT's stages, `cpu_slower` of the processor time of all threads,
    which other processes on the machine lengthen little. `max_abs` compares the latents of
    the first `compared` chunks; `identical` says that all of it, and the uint8 frames of every
    later chunk, are equal bit for bit. `kept` says that the promise of its class held.
    """

    off: tuple[str, ...]
    kind: str = msgspec.field(name="class")
    chunk_ms_p50: float
    chunk_cpu_ms_p50: float
    dit_ms_p50: float
    passes_ms_p50: float
    slower: float
    dit_slower: float
    cpu_slower: float
    max_abs: float
    identical: bool
    compared: int
    kept: bool


Times = NDArray[np.float64]
T = TypeVar("T")
Output = Tensor | NDArray[np.uint8]


class _Live(NamedTuple):
    name: str
    session: Session
    spent: list[float]
    busy: list[float]
    timings: list[StageTimings]


class Comparison:
    """Holds the outputs of one turn against those of the complete engine."""

    def __init__(self, names: Collection[str]) -> None:
        self.max_abs = dict.fromkeys(names, 0.0)
        self.identical = dict.fromkeys(names, True)
        self.compared = 0
        self._turn: dict[str, Output] = {}

    def take(self, name: str, output: Output) -> None:
        """Keep what variant `name` made of the chunk at hand."""
        self._turn[name] = output

    def compare(self) -> None:
        """Compare everything taken with what the complete engine made, and forget it."""
        ours = self._turn.pop(ALL)
        if isinstance(ours, Tensor):
            self.compared += 1
        for name, other in self._turn.items():
            if isinstance(ours, Tensor) and isinstance(other, Tensor):
                same = torch.equal(ours, other)
                distance = 0.0 if same else float((ours - other).abs().max())
                # NaN on one side is no distance of 0, as max() would have it.
                distance = math.inf if math.isnan(distance) else distance
                self.max_abs[name] = max(self.max_abs[name], distance)
            else:
                same = np.array_equal(ours, other)
            self.identical[name] &= same
        self._turn.clear()


def chosen(name: str) -> dict[str, tuple[str, ...]]:
    """Variants for `--ablate name`: what each leaves out. Raises: ConfigError."""
    if name != "all" and name not in SAVINGS:
        known = ", ".join(["all", *SAVINGS])
        raise ConfigError("unknown saving", expected=known, got=name)
    each = SAVINGS if name == "all" else [name]
    return {ALL: (), **{one: (one,) for one in each}, NONE: tuple(SAVINGS)}


def class_of(off: Collection[str]) -> str:
    """`A` where every saving in `off` changes no bit, else `B`."""
    return "A" if all(SAVINGS[name].kind == "A" for name in off) else "B"


def measure_ablation(
    world: World,
    request: ChunkRequest,
    variants: dict[str, tuple[str, ...]],
    *,
    on_chunk: Callable[[int, int], None] = lambda i, n: None,
) -> dict[str, Variant]:
    """Measure `variants` (see `chosen`), the complete engine first among them.

    The variants are worlds on `world`'s loaded networks. `on_chunk(done, total)` is called after
    each turn. Raises: ConfigError for numbers that do not fit.
    """
    groups = _groups(world, request, [name for name in variants if name != ALL])
    found: dict[str, Variant] = {}
    for number, names in enumerate(groups):
        worlds = {
            name: World(
                world.components,
                mode=world.mode,
                options=world.options,
                without=variants[name],
                synchronise=True,
            )
            for name in (ALL, *names)
        }
        shown = partial(_shown, on_chunk, number, len(groups))
        for name, variant in _measure_group(worlds, request, variants, shown).items():
            found.setdefault(name, variant)
    return {name: found[name] for name in variants}


def _shown(
    on_chunk: Callable[[int, int], None], group: int, groups: int, done: int, total: int
) -> None:
    on_chunk(group * total + done, groups * total)


def _groups(world: World, request: ChunkRequest, names: list[str]) -> list[list[str]]:
    """Names that are measured together, as many as memory allows beside the complete engine."""
    with open_session(world, request) as session:
        each = max(1, session.state.kv.nbytes)
    room = int(MEMORY_SHARE * free_bytes(world.components.dit.device) / each) - 1
    size = max(1, min(room, len(names)))
    return [names[i : i + size] for i in range(0, len(names), size)]


def _measure_group(
    worlds: dict[str, World],
    request: ChunkRequest,
    variants: dict[str, tuple[str, ...]],
    on_chunk: Callable[[int, int], None],
) -> dict[str, Variant]:
    with ExitStack() as stack:
        live = [
            _Live(name, stack.enter_context(open_session(world, request)), [], [], [])
            for name, world in worlds.items()
        ]
        vae = worlds[ALL].components.vae
        warmup = max(warmup_chunks(live[0].session, vae.stationary_latent), COMPARED_CHUNKS)
        total = warmup + request.chunks
        seen = Comparison(list(worlds))
        for index in range(total):
            for one in turned(live, index):
                seen.take(one.name, _advance(one, index, compare=index < COMPARED_CHUNKS))
            seen.compare()
            on_chunk(index + 1, total)
    return {
        one.name: _variant(one, live[0], off=variants[one.name], measured=request.chunks, seen=seen)
        for one in live
    }


def turned(live: Sequence[T], index: int) -> Iterator[T]:
    """All of them, a different one first in every turn."""
    return (live[(index + i) % len(live)] for i in range(len(live)))


@torch.no_grad()
def _advance(one: _Live, index: int, *, compare: bool) -> Output:
    """The next chunk: its clean latents where they are compared, else its frames, timed."""
    session = one.session
    walk = controls(session, index)
    if compare:
        engine, state = session.engine, session.state
        output = pipeline.next_chunk(engine, state, walk, engine.clock()).latents.float().cpu()
    else:
        start, busy = time.perf_counter(), time.process_time()
        chunk = session.step(walk)
        one.spent.append((time.perf_counter() - start) * 1000)
        one.busy.append((time.process_time() - busy) * 1000)
        one.timings.append(chunk.timings)
        output = chunk.frames
    session.prepare()
    return output


def _variant(
    one: _Live, complete: _Live, *, off: tuple[str, ...], measured: int, seen: Comparison
) -> Variant:
    chunk, dit, passes = _times(one, measured)
    whole, whole_dit, _ = _times(complete, measured)
    busy, whole_busy = np.array(one.busy[-measured:]), np.array(complete.busy[-measured:])
    kind, identical, distance = class_of(off), seen.identical[one.name], seen.max_abs[one.name]
    return Variant(
        off=off,
        kind=kind,
        chunk_ms_p50=round(float(np.median(chunk)), 2),
        chunk_cpu_ms_p50=round(float(np.median(busy)), 2),
        dit_ms_p50=round(float(np.median(dit)), 2),
        passes_ms_p50=round(float(np.median(passes)), 2),
        slower=round(float(np.median(chunk / whole)), 3),
        dit_slower=round(float(np.median(dit / whole_dit)), 3),
        cpu_slower=round(float(np.median(busy / whole_busy)), 3),
        max_abs=distance,
        identical=identical,
        compared=seen.compared,
        kept=identical if kind == "A" else distance <= CLASS_B_BOUND,
    )


def _times(one: _Live, measured: int) -> tuple[Times, Times, Times]:
    """Milliseconds of the last `measured` chunks: whole, the DiT's stages, its passes alone."""
    stages = np.array(
        [[getattr(t, f"{name}_ms") for name in DIT_STAGES] for t in one.timings[-measured:]]
    )
    return np.array(one.spent[-measured:]), stages.sum(1), stages[:, 1:].sum(1)


def as_table(ablation: dict[str, Variant]) -> str:
    """The variants as lines of text."""
    head = f"  {'without':<20}{'class':>6}{'chunk ms':>10}{'x':>8}{'CPU ms':>10}{'x':>8}"
    head += f"{'DiT ms':>10}{'x':>8}{'passes ms':>11}{'max abs':>10}  compared with all savings"
    lines = [head]
    for name, v in ablation.items():
        cells = f"{v.chunk_ms_p50:>10.2f}{v.slower:>8.3f}{v.chunk_cpu_ms_p50:>10.2f}"
        cells += f"{v.cpu_slower:>8.3f}{v.dit_ms_p50:>10.2f}{v.dit_slower:>8.3f}"
        says = "" if name == ALL else verdict(v)
        kind = "" if name == ALL else v.kind
        lines.append(
            f"  {LABELS.get(name, name):<20}{kind:>6}{cells}{v.passes_ms_p50:>11.2f}"
            f"{v.max_abs:>10.2g}  {says}".rstrip()
        )
    return "\n".join(lines)


def as_markdown(ablation: dict[str, Variant]) -> str:
    """The variants as a table for docs/benchmarks.md; times in ms."""
    head = ("without", "class", "chunk p50", "x", "CPU p50", "x", "DiT p50", "x", "passes p50")
    rows = [(*head, "max abs", "outputs"), ("---",) * (len(head) + 2)]
    for name, v in ablation.items():
        rows.append(
            (
                LABELS.get(name, name),
                "" if name == ALL else v.kind,
                f"{v.chunk_ms_p50:.1f}",
                f"{v.slower:.3f}",
                f"{v.chunk_cpu_ms_p50:.1f}",
                f"{v.cpu_slower:.3f}",
                f"{v.dit_ms_p50:.1f}",
                f"{v.dit_slower:.3f}",
                f"{v.passes_ms_p50:.1f}",
                f"{v.max_abs:.2g}",
                "" if name == ALL else verdict(v),
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def verdict(variant: Variant) -> str:
    """What the comparison found, in words."""
    if variant.identical:
        return "equal, bit for bit"
    if variant.kept:
        return f"within {CLASS_B_BOUND:g}"
    return "NOT equal, as class A promises" if variant.kind == "A" else "NOT within the bound"


def as_panel(ablation: dict[str, Variant]) -> Stacked:
    """The variants as bars: the DiT's time, and the rest of the chunk."""
    bars = [
        Bar(
            LABELS.get(name, name),
            {"DiT": v.dit_ms_p50, "the rest": max(0.0, v.chunk_ms_p50 - v.dit_ms_p50)},
        )
        for name, v in ablation.items()
    ]
    return Stacked(title="The same chunk without a saving (medians)", unit="ms", bars=bars)

"""Which models fit on which cards, and with which options: what `worldline doctor --memory` says.

For every card the first of `WAYS` is taken that fits, from what costs nothing to what costs much.
Blocks go to host memory last, and only as many as must. Knows the plan, measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from worldline.bench.plan import MemoryPlan, plan_memory, wanted
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.models.preset import Preset
from worldline.runtime.memory import USABLE
from worldline.runtime.offload import ROTATING

CARDS = (24, 40, 80, 141)  # as they are sold; a card of 24 holds 24 GiB
GIB, GB = 2**30, 1e9
MODES = ("fast", "8bit")
WAYS = (
    EngineOptions(),
    EngineOptions(text_encoder="swap"),
    EngineOptions(text_encoder="swap", camera_cache="off"),
    EngineOptions(text_encoder="swap", camera_cache="off", kv="8bit"),
    EngineOptions(text_encoder="cpu", decoder="tiny"),
    EngineOptions(text_encoder="cpu", decoder="tiny", camera_cache="off", kv="8bit"),
)
OFFLOADED = (
    EngineOptions(text_encoder="swap", camera_cache="off", offload="blocks"),
    EngineOptions(text_encoder="swap", camera_cache="off", kv="8bit", offload="blocks"),
    EngineOptions(
        text_encoder="cpu", decoder="tiny", camera_cache="off", kv="8bit", offload="blocks"
    ),
)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a preset needs in one mode at one size, in GB (10^9 bytes), everything on the device.

    `workspace` is what one chunk takes for itself, `session` what each further visitor adds.
    """

    preset: str
    mode: str
    size: str
    weights: float
    session: float
    workspace: float
    peak: float
    cards: dict[int, str]


class Fit(NamedTuple):
    """The cheapest way that fits on a card."""

    options: EngineOptions
    plan: MemoryPlan


def need(preset: Preset, mode: str, size: tuple[int, int] | None = None) -> Need:
    """The need of one preset, and for every card the options it fits with."""
    plan = plan_memory(wanted(preset, mode=mode, size=size))
    width, height = size or (preset.width, preset.height)
    return Need(
        preset=preset.name,
        mode=mode,
        size=f"{width}x{height}",
        weights=round(sum(plan.weights.values()) / GB, 2),
        session=round(sum(plan.session.values()) / GB, 2),
        workspace=round(plan.workspace() / GB, 2),
        peak=round(plan.peak() / GB, 2),
        cards={card: _told(fitting(preset, mode, card * GIB, size=size)) for card in CARDS},
    )


def fitting(
    preset: Preset, mode: str, card: float, *, size: tuple[int, int] | None = None
) -> Fit | None:
    """The first way that fits on a card of so many bytes; None where none does."""
    room = card * USABLE
    for options in WAYS:
        plan = plan_memory(wanted(preset, mode=mode, size=size, options=options))
        if plan.peak() <= room:
            return Fit(options, plan)
    for least in OFFLOADED:
        fewest = plan_memory(wanted(preset, mode=mode, size=size, options=least))
        if fewest.peak() > room:
            continue
        one_more = msgspec.structs.replace(least, resident_blocks=ROTATING + 1)
        more = plan_memory(wanted(preset, mode=mode, size=size, options=one_more))
        blocks = ROTATING + int((room - fewest.peak()) / (more.peak() - fewest.peak()))
        options = msgspec.structs.replace(least, resident_blocks=blocks)
        return Fit(options, plan_memory(wanted(preset, mode=mode, size=size, options=options)))
    return None


def flags_of(options: EngineOptions) -> str:
    """`options` as they stand on the command line; nothing where all are at their defaults."""
    changed = {
        name: getattr(options, name)
        for name in options.__struct_fields__
        if getattr(options, name) != getattr(DEFAULT_OPTIONS, name)
    }
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in changed.items())


def _told(fit: Fit | None) -> str:
    if fit is None:
        return "no"
    return flags_of(fit.options) or "yes"


def as_markdown(needs: Sequence[Need]) -> str:
    """The needs as tables for docs/models.md: what everything on the card takes, and what fits."""
    head = ("model", "mode", "size")
    first: list[tuple[str, ...]] = [(*head, "weights", "per visitor", "inside a chunk", "peak")]
    second: list[tuple[str, ...]] = [(*head, *(f"{card} GB" for card in CARDS))]
    for one in needs:
        name = (f"`{one.preset}`", one.mode, one.size)
        numbers = (one.weights, one.session, one.workspace, one.peak)
        first.append((*name, *(f"{number:.1f}" for number in numbers)))
        cells = (_cell(one.cards[card]) for card in CARDS)
        second.append((*name, *cells))
    return f"{_table(first)}\n\n{_table(second)}"


def _cell(told: str) -> str:
    return told if told in ("yes", "no") else f"`{told}`"


def _table(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(rows[0])
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))

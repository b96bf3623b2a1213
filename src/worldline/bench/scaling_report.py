"""Estimates of several devices for people: a table, what it rests on, a picture."""

from __future__ import annotations

from collections.abc import Sequence

from worldline.bench.picture import Bar, Lines, Stacked
from worldline.bench.scaling import GOAL_FPS, MOONSHOT_FPS, Scaling, verdict

JUDGED = 4  # devices of which something is wanted


def assumption_lines(scalings: Sequence[Scaling]) -> list[str]:
    """Everything the estimates rest on, each once."""
    goal = f"wanted on {JUDGED} devices: {GOAL_FPS:g} fps, moonshot {MOONSHOT_FPS:g}"
    lines = [
        *([goal] if any(scaling.judged for scaling in scalings) else []),
        "nothing overlaps: neither decoder and passes, nor either and a collective",
    ]
    lines += [f"one device, {s.title}: {s.stages.source}" for s in scalings]
    for assumed in dict.fromkeys(scaling.assumptions for scaling in scalings):
        titles = "; ".join(s.title for s in scalings if s.assumptions == assumed)
        lines.append(
            f"several devices, {titles}: {assumed.link_gb_per_s:g} GB/s, "
            f"{assumed.call_us:g} us a collective, {100 * assumed.lost:g} % of a device's rate "
            f"lost with every halving of its share ({assumed.source})"
        )
    return lines


def as_table(scalings: Sequence[Scaling]) -> str:
    """Frames per second, the milliseconds of a chunk on four, and what all that rests on."""
    first = scalings[0].estimates
    widest = max(len(scaling.title) for scaling in scalings)
    heads = [*(f"{e.ranks} fps" for e in first), f"ms on {JUDGED}", *first[0].parts]
    lines = [" " * widest + "".join(f"{head:>11}" for head in heads)]
    for scaling in scalings:
        four = next(e for e in scaling.estimates if e.ranks == JUDGED)
        figures = [*(e.fps for e in scaling.estimates), four.chunk_ms, *four.parts.values()]
        row = "".join(f"{figure:>11.1f}" for figure in figures)
        line = f"{scaling.title:<{widest}}{row}  {verdict(scaling, ranks=JUDGED)}"
        lines.append(line.rstrip())
    return "\n".join([*lines, *assumption_lines(scalings)])


def as_panels(scalings: Sequence[Scaling]) -> list[Stacked | Lines]:
    """Frames per second against devices, and where a chunk on four spends its time."""
    ranks = [e.ranks for e in scalings[0].estimates]
    growth = Lines(
        title="Estimated frames per second (a model, not a measurement)",
        unit="fps",
        x_label="devices",
        x=ranks,
        curves={s.title: [e.fps for e in s.estimates] for s in scalings},
        marks={f"wanted on {JUDGED}": GOAL_FPS} if scalings[0].judged else {},
    )
    four = Stacked(
        title=f"Where a chunk on {JUDGED} devices spends its time",
        unit="ms",
        bars=[
            Bar(s.title, next(e.parts for e in s.estimates if e.ranks == JUDGED)) for s in scalings
        ],
    )
    return [growth, four]

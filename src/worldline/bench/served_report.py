"""The figures of `bench served` as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from worldline.bench.served import ServedFigures

COLUMNS = ("fps", "frames", "longest gap", "stalls", "press p50", "p95", "p99", "real-time factor")


def show(figures: ServedFigures, console: Console) -> None:
    """Print a line per world and what they have in common."""
    title = f"{figures.model} {figures.size}, {figures.format}, {figures.seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("world")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for number, world in enumerate(figures.worlds, 1):
        press = world.input
        table.add_row(
            str(number),
            f"{world.fps:.2f}",
            str(world.frames),
            f"{world.longest_gap:.0f} ms",
            str(world.stalls),
            *(f"{value:.0f} ms" for value in (press.p50, press.p95, press.p99)),
            f"{world.real_time_factor:.2f}",
        )
    console.print(table)
    both = figures.input
    console.print(
        f"fairness {figures.fairness:.3f} of 1; press to first frame "
        f"p50 {both.p50:.0f} ms, p95 {both.p95:.0f} ms, {both.count} presses; "
        f"the film has {figures.video_fps} frames per second"
    )

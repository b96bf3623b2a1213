"""The figures of `bench latency` as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from worldline.bench.latency import ALLOWANCE_MS, PARTS, LatencyFigures, Spread


def show(figures: LatencyFigures, console: Console) -> None:
    """Print everything."""
    console.print(_spreads(figures))
    console.print(_rates(figures))


def _spreads(figures: LatencyFigures) -> Table:
    title = f"{figures.model} {figures.size}, {figures.format}, {figures.seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("ms")
    for name in ("p50", "p95", "p99"):
        table.add_column(name, justify="right", min_width=9)
    table.add_column("formula mean", justify="right", no_wrap=True)
    table.add_column("formula p95", justify="right")
    formula = figures.expected
    _row(table, "input to photon", figures.total, f"{formula.mean:.0f}", f"{formula.p95:.0f}")
    for name in PARTS:
        _row(table, f"  {name}", figures.parts[name])
    _row(table, "transport", figures.transport)
    _row(table, "  network", figures.transport_network)
    _row(table, "  decoding", figures.transport_decoding)
    return table


def _row(table: Table, name: str, spread: Spread, *more: str) -> None:
    numbers = (spread.p50, spread.p95, spread.p99)
    table.add_row(name, *(f"{value:.1f}" for value in numbers), *more)


def _rates(figures: LatencyFigures) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(min_width=22)
    table.add_column()
    said = "kept" if figures.kept else "missed"
    over = figures.total.p95 - figures.expected.p95
    levers = ", ".join(f"{name} in {n} chunks" for name, n in figures.levers.items()) or "none"
    rows = {
        "inputs": str(figures.total.count),
        "p95 against formula": f"{over:+.0f} ms (+{ALLOWANCE_MS:.0f} allowed: {said})",
        "frames per second": f"{figures.fps:.1f} of {figures.video_fps}",
        "stalls": f"{figures.stalls}, {100 * figures.stall_rate:.3f} % of the time",
        "deadline misses": str(figures.deadline_misses),
        "real-time factor": f"{figures.real_time_factor:.2f}",
        "bitrate": f"{figures.bitrate:.2f} Mbit/s",
        "round trip": f"{figures.round_trip:.1f} ms",
        "frames dropped": f"{figures.dropped} (newer input had come)",
        "levers pulled": levers,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table

"""`worldline bench chunk` and `worldline bench parity`."""

from __future__ import annotations

import msgspec

from worldline.cli.loading import load_world, parse_size, progress_bar, worker_settings
from worldline.cli.options import BenchChunk, BenchParity
from worldline.core.env import apply_openmp_policy
from worldline.core.errors import ConfigError


def chunk(options: BenchChunk) -> int:
    """Run the command; returns the exit code."""
    if options.chunks < 1:
        raise ConfigError("nothing to measure", expected="--chunks 1 or more", got=options.chunks)
    width, height = parse_size(options.session.size)
    world = load_world(worker_settings(options.load), synchronise=True)
    from worldline.bench.chunk import ChunkRequest, as_markdown, as_table, measure_chunks

    asked = options.session
    request = ChunkRequest(
        chunks=options.chunks,
        width=width,
        height=height,
        chunk=asked.chunk,
        window=asked.window,
        sink=asked.sink,
        shift=asked.shift,
        steps=asked.steps,
    )
    with progress_bar() as bar:
        task = bar.add_task("measuring chunks", total=None)
        figures = measure_chunks(
            world, request, lambda done, total: bar.update(task, completed=done, total=total)
        )
    if options.json:
        print(msgspec.json.encode(figures).decode())
    else:
        print(as_markdown(figures) if options.markdown else as_table(figures))
    return 0


def parity(options: BenchParity) -> int:
    """Run the command; returns 1 when a number misses its tolerance."""
    apply_openmp_policy()
    from worldline.bench.parity import main

    return main(options.folder, json=options.json)

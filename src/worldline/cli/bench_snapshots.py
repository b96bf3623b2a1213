"""`worldline bench snapshots`."""

from __future__ import annotations

import msgspec

from worldline.cli.loading import load_world, worker_settings
from worldline.cli.options import BenchSnapshots
from worldline.core.errors import ConfigError

BROKEN_PROMISE_EXIT = 1


def snapshots(options: BenchSnapshots) -> int:
    """Run the command; returns 1 when a chunk did not have the bits it had before."""
    if options.chunks < 0 or options.chunks == 1:
        raise ConfigError(
            "too short a walk", expected="--chunks 2 or more, or 0", got=options.chunks
        )
    world = load_world(worker_settings(options.load))
    from worldline.bench import snapshots as bench

    figures = bench.measure_snapshots(world, chunks=options.chunks)
    print(msgspec.json.encode(figures).decode() if options.json else bench.as_table(figures))
    return 0 if figures.equal else BROKEN_PROMISE_EXIT

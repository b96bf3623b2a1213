"""`worldline bench text`."""

from __future__ import annotations

import msgspec

from worldline.cli.loading import load_world, worker_settings
from worldline.cli.options import BenchText
from worldline.core.errors import ConfigError, PromptError

BROKEN_PROMISE_EXIT = 1


def text(options: BenchText) -> int:
    """Run the command; returns 1 when equal requests were not one encode and equal bits."""
    if options.requests < 2:
        raise ConfigError("nothing to compare", expected="--requests 2 or more")
    if options.prompt is not None and not options.prompt.strip():
        raise PromptError("the prompt is empty", expected="--prompt with some words")
    world = load_world(worker_settings(options.load))
    from worldline.bench import text as bench

    figures = bench.measure_text(
        world, requests=options.requests, prompt=options.prompt or bench.NEGATIVE
    )
    print(msgspec.json.encode(figures).decode() if options.json else bench.as_table(figures))
    return 0 if figures.kept else BROKEN_PROMISE_EXIT

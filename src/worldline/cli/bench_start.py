"""`worldline bench start`: how long from the command to the first frame, and what takes it."""

from __future__ import annotations

import dataclasses

import msgspec

from worldline.cli.loading import progress_bar
from worldline.cli.options import BenchStart, ModelOptions
from worldline.core.errors import ConfigError


def start(options: BenchStart) -> int:
    """Run the command; returns the exit code."""
    if options.runs < 1:
        raise ConfigError("nothing to measure", expected="--runs 1 or more", got=options.runs)
    from worldline.bench.start import as_table, measure_start

    with progress_bar() as bar:
        task = bar.add_task("starting", total=options.runs)
        figures = measure_start(
            arguments_of(options.load),
            options.runs,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(msgspec.json.encode(figures).decode() if options.json else as_table(figures))
    return 0


def arguments_of(load: ModelOptions) -> list[str]:
    """The command line that stands for `load`: every option that is not at its default."""
    found: list[str] = []
    for field in dataclasses.fields(load):
        value = getattr(load, field.name)
        if value != field.default:
            flag = f"--{field.name.replace('_', '-')}"
            found += [flag] if value is True else [flag, str(value)]
    return found

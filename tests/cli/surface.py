"""The command line as lines of text, read from the option classes: what users may rely on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import get_type_hints

from worldline.cli.options import (
    BenchChunk,
    BenchLatency,
    BenchParallel,
    BenchParity,
    BenchQuality,
    BenchServed,
    BenchSnapshots,
    BenchSoak,
    BenchStart,
    BenchText,
    Doctor,
    Generate,
    Models,
    Play,
    Serve,
)
from worldline.cli.options_saved import Export, Replay

COMMANDS: dict[str, type] = {
    "play": Play,
    "serve": Serve,
    "generate": Generate,
    "replay": Replay,
    "export": Export,
    "bench chunk": BenchChunk,
    "bench soak": BenchSoak,
    "bench quality": BenchQuality,
    "bench start": BenchStart,
    "bench latency": BenchLatency,
    "bench served": BenchServed,
    "bench text": BenchText,
    "bench snapshots": BenchSnapshots,
    "bench parallel": BenchParallel,
    "bench parity": BenchParity,
    "models": Models,
    "doctor": Doctor,
}


def options_of(cls: type) -> Iterator[tuple[str, str]]:
    """Name and default of every option of a class, groups flattened."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from options_of(hints[field.name])
        else:
            required = field.default is dataclasses.MISSING
            yield field.name, "required" if required else repr(field.default)


def flag(name: str) -> str:
    """The flag of an option; a positional argument keeps its place."""
    places = {"folder": "DIR", "world": "WORLD"}
    return places.get(name, "--" + name.rstrip("_").replace("_", "-"))


def surface() -> str:
    """One line per option."""
    lines = [
        f"{command} {flag(name)} {default}"
        for command, cls in COMMANDS.items()
        for name, default in options_of(cls)
    ]
    return "\n".join(lines) + "\n"

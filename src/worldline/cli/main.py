"""The command `worldline`: reads options, runs one command, turns errors into one line.

Exit codes: 0 success, 1 a comparison failed, 2 an error the user can act on, 130 Ctrl-C. Imports
nothing heavy, so that `--help` is quick; each command's module is loaded when it runs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import cast

import tyro

from worldline import __version__
from worldline.cli.commands import Command
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
from worldline.core.errors import WorldlineError

ERROR_EXIT = 2
INTERRUPT_EXIT = 130
DESCRIPTION = (
    "Interactive video world models, served live. `worldline play` opens a small world in the "
    "browser; `worldline --version` prints the version."
)

# Option class -> the function that runs it, imported when needed: returns the exit code.
RUNNERS: dict[type, str] = {
    Play: "worldline.cli.serve:play",
    Serve: "worldline.cli.serve:serve",
    Generate: "worldline.cli.generate:generate",
    Replay: "worldline.cli.replay:replay",
    Export: "worldline.cli.export:export",
    BenchChunk: "worldline.cli.bench:chunk",
    BenchSoak: "worldline.cli.bench:soak",
    BenchQuality: "worldline.cli.bench:quality",
    BenchStart: "worldline.cli.bench_start:start",
    BenchLatency: "worldline.cli.bench_live:latency",
    BenchServed: "worldline.cli.bench_live:served",
    BenchText: "worldline.cli.bench_text:text",
    BenchSnapshots: "worldline.cli.bench_snapshots:snapshots",
    BenchParallel: "worldline.cli.bench_parallel:parallel",
    BenchParity: "worldline.cli.bench:parity",
    Models: "worldline.cli.models:models",
    Doctor: "worldline.cli.doctor:doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (by default that of the process) and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"worldline {__version__}")
        return 0
    try:
        return run(parse(arguments))
    except WorldlineError as error:
        print(f"error [{error.code}]: {one_line(str(error))}", file=sys.stderr)
        return ERROR_EXIT
    except KeyboardInterrupt:
        return INTERRUPT_EXIT
    except BrokenPipeError:  # `worldline models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parse(arguments: Sequence[str]) -> object:
    """The options of one command line. Prints help or what is wrong, and raises SystemExit."""
    command = tyro.cli(
        cast("type[object]", Command),
        prog="worldline",
        description=DESCRIPTION,
        args=arguments,
        config=(
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.FlagCreatePairsOff,
        ),
    )
    return getattr(command, "what", command)


def run(options: object) -> int:
    """Run the command that belongs to `options`; returns the exit code."""
    module, _, name = RUNNERS[type(options)].partition(":")
    runner = getattr(importlib.import_module(module), name)
    return int(runner(options))


def one_line(text: str) -> str:
    """`text` without line breaks: the first words of an error must be enough to act on."""
    return " ".join(text.split())

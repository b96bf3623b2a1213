"""`worldline bench parity DIR`: our code against recorded runs of the official one.

A directory holds files as described in `tests/parity/data/README.md`. A file's name says which
group checks it; each group is a module `worldline.bench.parity_<group>` with `cases(path,
directory)`. Sizes, seeds, windows and chunks come from the files, never from here. A file that no
group knows or that cannot be read is an error, and recorded tensors that no case reads are listed
as "not yet", so that nothing is ever passed by being skipped.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worldline.bench.parity_case import CaseResult, GoldenFile, failed, guard
from worldline.core.errors import ConfigError, WorldlineError
from worldline.ops.collectives import Collectives
from worldline.runtime.parallel.threads import on_ranks

# Group by file name, first match wins. "weights" are read by the groups that need them.
_GROUPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), group)
    for pattern, group in (
        (r"(dit|vae|umt5|e2e).*\.keys\.json", "names"),
        (r"(dit|vae|umt5)_key_map_.*\.json", "names"),
        (r"scheduler.*_dmd_table\.json", "scheduler"),
        (r"(dit|vae|umt5|e2e)_.*weights.*\.safetensors", "weights"),
        (r"actions.*\.safetensors", "actions"),
        (r"camera.*\.safetensors", "camera"),
        (r"scheduler.*\.safetensors", "scheduler"),
        (r"vae.*\.safetensors", "vae"),
        (r"umt5.*\.safetensors", "umt5"),
        (r"dit_(base|causal)_.*\.safetensors", "dit"),
        (r"e2e_fast.*\.safetensors", "e2e"),
        (r"e2e_(base|pretrain).*\.safetensors", "films"),
    )
)
_SHARED = ("dit", "e2e", "films")  # groups whose runs several ranks can share out
_DOCUMENTS = re.compile(r"\..*|README.*|LICENSE.*|NOTICE.*")
_PIPE_WIDTH = 240
_COLOURS = {"pass": "green", "fail": "bold red", "error": "bold red", "not yet": "yellow"}


class _GroupModule(Protocol):
    def cases(self, path: Path, directory: Path) -> Iterator[CaseResult]: ...


class _SharedGroupModule(Protocol):
    def cases(self, path: Path, directory: Path, group: Collectives) -> Iterator[CaseResult]: ...


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    directory: str
    ok: bool
    counts: dict[str, int]
    cases: list[CaseResult]


def run(directory: Path | str, *, ranks: int = 1) -> list[CaseResult]:
    """Check every file of `directory`, in the order of their names.

    A broken file or case becomes an error row. With several `ranks`, runs of the transformer are
    shared out among so many. Raises `ConfigError` when there is no directory.
    """
    if ranks < 1:
        raise ConfigError("no such number of ranks", expected="1 or more", got=ranks)
    folder = Path(directory)
    if not folder.is_dir():
        raise ConfigError("no such directory of recorded runs", expected="a folder", got=folder)
    files = sorted(path for path in folder.iterdir() if not path.is_dir())
    files = [path for path in files if not _DOCUMENTS.fullmatch(path.name)]
    results = [result for path in files for result in _check_file(path, folder, ranks)]
    return results or [failed("-", "-", ConfigError("the directory holds no recorded runs"))]


def missed(results: Sequence[CaseResult]) -> bool:
    """True when a case failed or could not be run."""
    return any(result.status in ("fail", "error") for result in results)


def main(directory: Path | str, json: bool, *, ranks: int = 1) -> int:
    """Print the table, or JSON for machines; the exit code is 1 on a miss."""
    results = run(directory, ranks=ranks)
    if json:
        counts = dict(Counter(result.status for result in results))
        ok = not missed(results)
        report = _Report(directory=str(directory), ok=ok, counts=counts, cases=results)
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        # A pipe has no width of its own: names must stay whole there, for grep.
        print_table(results, Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH))
    return int(missed(results))


def print_table(results: Sequence[CaseResult], console: Console) -> None:
    """One line per case, then the counts."""
    table = Table("file", "case", "max abs error", "tolerance", "result", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in results:
        error = "-" if row.max_abs is None else f"{row.max_abs:.2e}"
        tolerance = "-" if row.tolerance is None else f"{row.tolerance:.0e}"
        colour = _COLOURS[row.status]
        detail = f" {escape(row.detail)}" if row.detail else ""
        table.add_row(
            escape(row.file),
            escape(row.case),
            error,
            tolerance,
            f"[{colour}]{row.status}[/]{detail}",
        )
    console.print(table)
    counts = Counter(result.status for result in results)
    console.print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))


def _check_file(path: Path, directory: Path, ranks: int) -> list[CaseResult]:
    for pattern, group in _GROUPS:
        if pattern.fullmatch(path.name):
            return _rows(group, path, directory, ranks)
    return [failed(path.name, "-", ConfigError("no group knows this file"))]


def _rows(group: str, path: Path, directory: Path, ranks: int) -> list[CaseResult]:
    if group == "weights":
        return _opened(path)
    if ranks > 1 and group in _SHARED:
        shared = cast("_SharedGroupModule", _group(group))
        return on_ranks(
            ranks, lambda mine: guard(path.name, lambda: shared.cases(path, directory, mine))
        )[0]
    return guard(path.name, lambda: _group(group).cases(path, directory))


def _group(name: str) -> _GroupModule:
    return cast("_GroupModule", import_module(f"worldline.bench.parity_{name}"))


def _opened(path: Path) -> list[CaseResult]:
    """Nothing for a readable file, else its error row."""
    try:
        GoldenFile(path)
    except WorldlineError as error:
        return [failed(path.name, "-", error)]
    return []

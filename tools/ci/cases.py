#!/usr/bin/env python3
"""Print the end-to-end and benchmark cases, with estimated times, whole or in balanced shards.

Reads the syntax tree of tests/cases.py and never imports it, so it needs neither torch nor a GPU,
nor anything but Python >= 3.11. How the cases are read: tools/ci/case_reader.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if not __package__:  # run as a file: only its own folder would be searched
    sys.path.insert(0, str(ROOT))

from tools.ci.baseline import (  # noqa: E402
    Baseline,
    BaselineError,
    load_baseline,
    read_report,
    save_baseline,
)
from tools.ci.case_reader import Listed, UnreadableError, read_cases  # noqa: E402
from tools.ci.shards import Timed, split, timed, total  # noqa: E402

UNREADABLE, WRONG_COMMAND = 1, 2
Suites = dict[str, tuple[Listed, ...]]
Shards = dict[int, list[Timed]]  # by number, the first is 1

EPILOG = """\
examples:
  cases.py                                  all suites
  cases.py cpu --json                       one, for machines
  cases.py 1-gpu --shards 2 --shard 1 --write list.txt && python -m pytest @list.txt
  python -m pytest @list.txt --junit-xml report.xml; cases.py --record report.xml

exit codes: 0 done; 1 a case, the baseline or a report cannot be read (file and line on stderr);
2 a wrong command line, an unknown suite, or nothing to write
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    check(parser, args)
    try:
        suites = read_cases(args.module)
        baseline = load_baseline(args.baseline)
        if args.record is not None:
            return record(args, suites, baseline)
    except (UnreadableError, BaselineError) as error:
        print(f"{error}\ncases: nothing is listed before this can be read", file=sys.stderr)
        return UNREADABLE
    if args.suite is not None and args.suite not in suites:
        parser.error(f"no suite {args.suite}; there are {', '.join(suites)}")
    shards = {
        name: chosen(timed(cases, baseline), args.shards, args.shard)
        for name, cases in suites.items()
        if args.suite in (None, name)
    }
    if args.write is not None:
        shown = [case for suite in shards.values() for held in suite.values() for case in held]
        write(parser, args.write, shown)
    print(as_json(shards, args.shards) if args.json else as_table(shards, args.shards))
    return 0


def record(args: argparse.Namespace, suites: Suites, baseline: Baseline) -> int:
    """Take the times of a report into the baseline; cases that are gone leave it."""
    cases = {case.id: case.node for held in suites.values() for case in timed(held, baseline)}
    times = read_report(args.record, cases)
    kept = {name: value for name, value in baseline.seconds.items() if name in cases}
    save_baseline(args.baseline, baseline._replace(seconds=kept | times))
    print(f"{args.baseline}: {len(times)} of {len(cases)} cases timed anew")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cases.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("suite", nargs="?", metavar="SUITE", help="cpu, 1-gpu, ...; default: all")
    add(
        "--shards", type=int, default=1, metavar="N", help="split each suite into N balanced shards"
    )
    add("--shard", type=int, metavar="I", help="show one of them, from 1 to N")
    add("--json", action="store_true", help="print JSON")
    add("--write", type=Path, metavar="FILE", help="also write pytest's names, for pytest @FILE")
    add("--record", type=Path, metavar="REPORT", help="take times from pytest's --junit-xml")
    module, baseline = ROOT / "tests" / "cases.py", ROOT / "tools" / "ci" / "baseline.json"
    add("--module", type=Path, default=near(module), metavar="FILE", help="default: %(default)s")
    add(
        "--baseline", type=Path, default=near(baseline), metavar="FILE", help="default: %(default)s"
    )
    return parser


def near(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    if args.shards < 1:
        parser.error(f"--shards: expected 1 or more, got {args.shards}")
    if args.shard is not None and not 1 <= args.shard <= args.shards:
        parser.error(f"--shard: expected 1 to {args.shards} (--shards), got {args.shard}")
    if args.write is not None and args.suite is None:
        parser.error("--write: name the suite to write")


def chosen(cases: list[Timed], count: int, number: int | None) -> Shards:
    """The shards to show, by number."""
    shards = dict(enumerate(split(cases, count), start=1))
    return shards if number is None else {number: shards[number]}


def write(parser: argparse.ArgumentParser, path: Path, cases: list[Timed]) -> None:
    """Write pytest's names, one per line; an empty file would let pytest run everything."""
    if not cases:
        parser.error("nothing to write: no case is in this suite or shard")
    path.write_text("".join(f"{case.node}\n" for case in cases), encoding="utf-8")


def as_table(suites: dict[str, Shards], count: int) -> str:
    """Suites, shards and cases, a line each."""
    lines: list[str] = []
    for name, shards in suites.items():
        for number, cases in shards.items():
            part = f", shard {number} of {count}" if count > 1 else ""
            noun = "case" if len(cases) == 1 else "cases"
            lines.append(f"{name}{part}: {len(cases)} {noun}, about {total(cases):.0f} s")
            for case in cases:
                guess = "" if case.known else "  (default: no baseline)"
                lines.append(f"  {case.id:<24}{case.seconds:7.1f} s  {case.node}{guess}")
    return "\n".join(lines)


def as_json(suites: dict[str, Shards], count: int) -> str:
    """The same for machines."""
    found = {
        name: [
            {
                "shard": number,
                "of": count,
                "seconds": total(cases),
                "cases": [case._asdict() for case in cases],
            }
            for number, cases in shards.items()
        ]
        for name, shards in suites.items()
    }
    return json.dumps(found, indent=2)


if __name__ == "__main__":
    sys.exit(main())

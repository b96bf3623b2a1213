"""How long each case takes: the baseline file, and how it is made from a report of pytest."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class BaselineError(Exception):
    """A baseline or report that cannot be used; says where."""


class Baseline(NamedTuple):
    """Seconds per case id, and the seconds assumed for a case that is not among them."""

    default_s: float
    seconds: dict[str, float]


def load_baseline(path: Path) -> Baseline:
    """Read `{"default_s": 60, "seconds": {"id": 12.5}}`. Raises: BaselineError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        baseline = Baseline(found["default_s"], dict(found["seconds"]))
    except json.JSONDecodeError as error:
        raise BaselineError(f"{path}:{error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise BaselineError(f"{path}: {error}") from None
    except (KeyError, TypeError):
        raise BaselineError(f'{path}: expected "default_s" and "seconds" by case') from None
    for name, value in {"default_s": baseline.default_s, **baseline.seconds}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise BaselineError(f"{path}: {name}: expected seconds above 0, got {value!r}")
    return baseline


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline, its cases in alphabetical order."""
    seconds = dict(sorted(baseline.seconds.items()))
    found = {"default_s": baseline.default_s, "seconds": seconds}
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read_report(path: Path, nodes: Mapping[str, str]) -> dict[str, float]:
    """Seconds of each case in the report of `pytest --junit-xml`; `nodes` are pytest's, by id.

    A case counts when at least one of its tests ran and none failed. Raises: BaselineError.
    """
    try:
        tests = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        raise BaselineError(f"{path}: {error}") from None
    times: dict[str, float] = {}
    for name, node in nodes.items():
        ours = [
            test for test in tests if belongs(node, test.get("classname", ""), test.get("name", ""))
        ]
        failed = any(test.find(kind) is not None for test in ours for kind in ("failure", "error"))
        ran = [float(test.get("time", 0)) for test in ours if test.find("skipped") is None]
        if ran and not failed:
            times[name] = max(0.1, round(sum(ran), 1))
    return times


def belongs(node: str, classname: str, name: str) -> bool:
    """Whether a report's test is part of a pytest node: a file, or a test of one."""
    file, _, test = node.partition("::")
    return classname == file.removesuffix(".py").replace("/", ".") and (
        test in ("", name) or name.startswith(f"{test}[")
    )

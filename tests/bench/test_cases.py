"""The benchmark cases of `tests/cases.py`: each measurement runs, and its figures keep its bounds.

What a case needs and the machine lacks skips it. A measurement is a process of its own, so that its
peak of memory is its own; the figures it printed stand in the test's output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.cases import SUITES, Bound, Case

START = "import sys; from worldline.cli.main import main; sys.exit(main())"
MEASURED = {case.id: case for suite in SUITES.values() for case in suite if case.bench}
FIGURES = {"fps": 5.5, "held": True, "slope": None, "machine": {"accelerator": "NVIDIA H200"}}


def parameter(case: Case) -> Any:
    """A case as pytest's parameter, with its own time limit."""
    marks = [pytest.mark.timeout(case.timeout_s)]
    if case.devices:
        marks.append(pytest.mark.gpu)
    return pytest.param(case, id=case.id, marks=marks)


def broken(bounds: tuple[Bound, ...], figures: dict[str, Any]) -> list[str]:
    """What the figures do not keep, in words. Raises: KeyError for a figure that is not there."""
    found: list[str] = []
    for bound in bounds:
        value: Any = figures
        for key in bound.figure.split("/"):
            value = value[key]
        if bound.on not in (figures["machine"]["accelerator"] or ""):
            continue
        if value is None:
            found.append(f"{bound.figure} was not measured")
        elif bound.at_least is not None and not value >= bound.at_least:
            found.append(f"{bound.figure} is {value}, below {bound.at_least}")
        elif bound.at_most is not None and not value <= bound.at_most:
            found.append(f"{bound.figure} is {value}, above {bound.at_most}")
    return found


@pytest.mark.parametrize("case", [parameter(case) for case in MEASURED.values()])
def test_case(case: Case) -> None:
    if torch.cuda.device_count() < case.devices:
        pytest.skip(f"needs {case.devices} CUDA devices")
    command = [sys.executable, "-c", START, *case.arguments()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    print(done.stdout)
    assert broken(case.bounds, json.loads(done.stdout)) == []


@pytest.mark.parametrize(
    ("bound", "kept"),
    [
        (Bound("fps", at_least=5.5, at_most=5.5), True),
        (Bound("fps", at_least=5.6), False),
        (Bound("fps", at_most=5.4), False),
        (Bound("fps", at_least=5.6, on="H200"), False),
        (Bound("fps", at_least=5.6, on="H100"), True),
        (Bound("held", at_least=1), True),
        (Bound("slope", at_most=1), False),
    ],
)
def test_bounds_are_judged(bound: Bound, *, kept: bool) -> None:
    assert (broken((bound,), FIGURES) == []) is kept


def test_no_number_keeps_no_bound() -> None:
    figures = FIGURES | {"fps": float("nan")}
    assert broken((Bound("fps", at_least=0), Bound("fps", at_most=9)), figures) == [
        "fps is nan, below 0",
        "fps is nan, above 9",
    ]


def test_a_figure_that_is_not_printed_is_an_error() -> None:
    with pytest.raises(KeyError):
        broken((Bound("machine/fps", at_least=1, on="H100"),), FIGURES)

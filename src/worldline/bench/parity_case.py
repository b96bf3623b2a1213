"""What every parity group is made of: a recorded file, differences, and one result per case.

A group module has `cases(path, directory) -> Iterator[CaseResult]`: `path` is one recorded file,
`directory` is where its siblings (weights, noise) lie. It reads tensors through `GoldenFile`, which
remembers what was read, so nothing recorded can be skipped in silence. Tolerances are part of the
format: 1e-4 absolute for float32 tensors, 1e-3 for the video of whole runs, 0 for whole numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worldline.core.errors import CheckpointError, WorldlineError

Status = Literal["pass", "fail", "not yet", "error"]
Values = Tensor | NDArray[Any] | float | int | tuple[float, ...] | list[Any]

TOLERANCE = 1e-4
VIDEO_TOLERANCE = 1e-3
EXACT = 0.0

# What a broken file, a changed format or a bug in our code can raise inside one case.
_FAILURES = (
    WorldlineError,
    SafetensorError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `max_abs` is None when nothing could be compared."""

    file: str
    case: str
    max_abs: float | None
    tolerance: float | None
    status: Status
    detail: str = ""


class Difference(NamedTuple):
    """How far one computed value is from the recorded one; `problem` when it cannot be measured."""

    name: str
    max_abs: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """True within the tolerance; never for NaN."""
        return not self.problem and self.max_abs <= self.tolerance


class GoldenFile:
    """The tensors and metadata of one recorded file; remembers which tensors were read.

    Raises `CheckpointError` when the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                self.meta: dict[str, str] = file.metadata() or {}
                self._tensors: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError("cannot read the file", got=f"{path.name}: {error}") from error
        self._unread = set(self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of that name; raises `KeyError`."""
        self._unread.discard(name)
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self, prefix: str = "") -> list[str]:
        """Names that start with `prefix`, sorted; this is no reading."""
        return sorted(name for name in self._tensors if name.startswith(prefix))

    def config(self, key: str) -> Any:
        """Metadata entry `key`, parsed from JSON; raises `KeyError` or `ValueError`."""
        return json.loads(self.meta[key])

    def unread(self) -> list[str]:
        """Tensors nobody asked for yet."""
        return sorted(self._unread)


def compare(name: str, got: Values, want: Values, tolerance: float = TOLERANCE) -> Difference:
    """Largest absolute difference of two equally shaped values, measured in float64."""
    ours, theirs = _array(got), _array(want)
    if ours.shape != theirs.shape:
        problem = f"{name}: expected shape {list(theirs.shape)}, got {list(ours.shape)}"
        return Difference(name, math.nan, tolerance, problem)
    if ours.size == 0:
        return Difference(name, math.nan, tolerance, f"{name}: nothing to compare")
    with np.errstate(invalid="ignore"):  # inf - inf: NaN, which never passes
        return Difference(name, float(np.abs(ours - theirs).max()), tolerance)


def judge(file: str, case: str, check: Callable[[], Iterable[Difference]]) -> CaseResult:
    """Run one case; a failure inside it becomes an error row, so the other cases still run."""
    try:
        with torch.no_grad():
            differences = list(check())
    except _FAILURES as error:
        return failed(file, case, error)
    if not differences:
        return failed(file, case, ValueError("nothing was compared"))
    worst = max(differences, key=lambda found: (_severity(found), found.tolerance))
    missed = [difference for difference in differences if not difference.passed]
    return CaseResult(
        file=file,
        case=case,
        max_abs=None if worst.problem else worst.max_abs,
        tolerance=worst.tolerance,
        status="fail" if missed else "pass",
        detail="; ".join(d.problem or f"{d.name} off by {d.max_abs:.3g}" for d in missed[:4]),
    )


def failed(file: str, case: str, error: Exception) -> CaseResult:
    """An error row: this case could not be run to its end."""
    detail = f"{type(error).__name__}: {error}"
    return CaseResult(
        file=file, case=case, max_abs=None, tolerance=None, status="error", detail=detail
    )


def not_yet(file: str, case: str, detail: str) -> CaseResult:
    """A row for what this version does not check; it neither passes nor misses."""
    return CaseResult(
        file=file, case=case, max_abs=None, tolerance=None, status="not yet", detail=detail
    )


def guard(file: str, rows: Callable[[], Iterator[CaseResult]]) -> list[CaseResult]:
    """All rows of one file; ends with an error row if the file itself cannot be used."""
    results: list[CaseResult] = []
    try:
        results.extend(rows())
    except _FAILURES as error:
        results.append(failed(file, "-", error))
    if not results:
        results.append(failed(file, "-", ValueError("the file holds no case")))
    return results


def report_unread(golden: GoldenFile) -> Iterator[CaseResult]:
    """A row naming the tensors no case has read, if there are any; call it last."""
    unread = golden.unread()
    if unread:
        names = ", ".join(unread[:6]) + (f" and {len(unread) - 6} more" if len(unread) > 6 else "")
        yield not_yet(golden.path.name, "unread tensors", names)


def _severity(difference: Difference) -> float:
    """Error in units of its tolerance, so that exact and close comparisons can be ranked."""
    if difference.problem or math.isnan(difference.max_abs):
        return math.inf
    return difference.max_abs / max(difference.tolerance, 1e-12)


def _array(values: Values) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)

"""What a judgement leaves: figures with their targets, curves, matrices and sheets, as plain data.

Every group of measures returns one `Finding`, which is written to a file of its own as soon as it
is there, so that a killed run loses one group; table and page are made from these files.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

PASS, MISS, REPORTED, UNKNOWN = "pass", "miss", "reported", "not measured"
GAP = 4  # white pixels between the walks of a sheet


class Goal(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bounds that a figure has to keep, both inclusive; `open` leaves out the bound itself."""

    low: float | None = None
    high: float | None = None
    open: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` keeps the bounds; a value that is no number never does."""
        low, high = self.low, self.high
        if self.open and value in (low, high):
            return False
        return (low is None or value >= low) and (high is None or value <= high) and value == value

    def words(self, unit: str) -> str:
        """The bounds for a reader."""
        tail = f" {unit}" if unit else ""
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}{tail}"
        more, less = (">", "<") if self.open else ("≥", "≤")
        return (
            f"{more} {self.low:g}{tail}" if self.low is not None else f"{less} {self.high:g}{tail}"
        )


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One measured number; no goal: reported only; no value: not measured."""

    name: str
    value: float | None
    unit: str = ""
    digits: int = 2
    goal: Goal | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`PASS`, `MISS`, `REPORTED` or `UNKNOWN`."""
        if self.value is None:
            return UNKNOWN
        if self.goal is None:
            return REPORTED
        return PASS if self.goal.met(self.value) else MISS

    @property
    def words(self) -> str:
        """The number for a reader."""
        if self.value is None:
            return "—"
        return f"{self.value:.{self.digits}f}{' ' + self.unit if self.unit else ''}"


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Curves over a common axis; `band` is the range a curve should keep to."""

    title: str
    x_label: str
    y_label: str
    x: list[float]
    curves: dict[str, list[float]]
    band: tuple[float, float] | None = None


class Matrix(msgspec.Struct, frozen=True, kw_only=True):
    """Counts: which of `columns` each of `rows` was taken for."""

    title: str
    rows: list[str]
    columns: list[str]
    counts: list[list[int]]


class Sheet(msgspec.Struct, frozen=True):
    """A contact sheet beside the finding's file, and what it shows."""

    file: str
    caption: str


class Finding(msgspec.Struct, kw_only=True):
    """The result of one group of measures; `text` says how it was measured."""

    group: str
    title: str
    text: str
    figures: list[Figure]
    charts: list[Chart] = msgspec.field(default_factory=list)
    matrices: list[Matrix] = msgspec.field(default_factory=list)
    sheets: list[Sheet] = msgspec.field(default_factory=list)
    settings: dict[str, str] = msgspec.field(default_factory=dict)
    seconds: float = 0.0
    processor_seconds: float = 0.0


def save_finding(folder: Path, finding: Finding) -> None:
    """Write `<group>.json`, whole or not at all."""
    path = folder / f"{finding.group}.json"
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(finding)))
    os.replace(aside, path)


def load_findings(folder: Path, groups: tuple[str, ...]) -> list[Finding]:
    """The findings that are there, in the order of `groups`."""
    paths = [folder / f"{group}.json" for group in groups]
    return [msgspec.json.decode(p.read_bytes(), type=Finding) for p in paths if p.exists()]


def save_sheet(path: Path, rows: list[list[np.ndarray]], caption: str, *, pairs: int = 1) -> Sheet:
    """Write pictures `[H, W, 3]` row by row, with a gap after every `pairs` rows."""
    lines = []
    for i, row in enumerate(rows):
        lines.append(np.concatenate(row, axis=1))
        if (i + 1) % pairs == 0 and i + 1 < len(rows):
            lines.append(np.full((GAP, lines[-1].shape[1], 3), 255, np.uint8))
    Image.fromarray(np.concatenate(lines)).save(path)
    return Sheet(path.name, caption)

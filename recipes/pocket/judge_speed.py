"""Speed, taken over from the commands that measure it: nothing is timed here.

Understood are the JSON of `worldline bench chunk --model pocket --json`, and a JSON object with
`served_fps` (one worker beside server and encoder) or `key_to_photon_ms_p50` or both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from recipes.pocket.judge_report import Figure, Finding, Goal
from recipes.pocket.judge_trial import Trial

TEXT = (
    "Measured by the product's own commands on a quiet machine and taken over from their JSON: "
    "`worldline bench chunk --model pocket --json`, and the measurement of a served session."
)
ALONE, SERVED, ONE_CORE = Goal(low=24.0), Goal(low=16.0), Goal(low=16.0)
PHOTON = Goal(high=500.0, open=True)


def judge_speed(trial: Trial) -> Finding:
    """Speed figures from the files of `--speed`, each not measured where none has it."""
    reports = [read_report(path) for path in trial.plan.speed]
    return Finding(group="speed", title="Speed", text=TEXT, figures=speed_figures(reports))


def read_report(path: Path) -> dict[str, Any]:
    """One JSON object. Raises `ValueError` when the file holds none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} holds no JSON object: {error}") from error


def speed_figures(reports: list[dict[str, Any]]) -> list[Figure]:
    """The four figures of the target, each the best that was found."""
    chunks = [report for report in reports if "chunk_ms_p50" in report and "fps" in report]
    single = [
        r for r in chunks if r["machine"]["threads"] == 1 and r["dtype"] == "float32"
    ]  # fmt: skip
    return [
        _fps("alone", max(chunks, key=_speed, default=None), ALONE),
        _fps("one thread, float32", max(single, key=_speed, default=None), ONE_CORE),
        _plain("one worker beside server and encoder", "served_fps", reports, SERVED, "fps"),
        _plain("key to photon, median", "key_to_photon_ms_p50", reports, PHOTON, "ms"),
    ]


def _speed(report: dict[str, Any]) -> float:
    return float(report["fps"])


def _fps(name: str, report: dict[str, Any] | None, goal: Goal) -> Figure:
    if report is None:
        return Figure(name=name, value=None, unit="fps", goal=goal)
    where = report["machine"]
    note = (
        f"{report['width']}×{report['height']}, {report['dtype']}, {where['threads']} of "
        f"{where['cores']} cores, {where['processor']}, commit {where['commit']}"
    )
    return Figure(name=name, value=_speed(report), unit="fps", digits=1, goal=goal, note=note)


def _plain(name: str, field: str, reports: list[dict[str, Any]], goal: Goal, unit: str) -> Figure:
    found = [float(report[field]) for report in reports if field in report]
    best = (max if goal.low is not None else min)(found) if found else None
    return Figure(name=name, value=best, unit=unit, digits=0 if unit == "ms" else 1, goal=goal)

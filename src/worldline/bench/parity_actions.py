"""Parity group `actions*`: action strings to key states, key states to camera poses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from worldline.bench.parity_case import (
    EXACT,
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    report_unread,
)
from worldline.core.actions import parse_action_string
from worldline.core.camera import poses_from_keys


def cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """One row per recorded key sequence."""
    golden = GoldenFile(path)
    strings = golden.config("cases") if "cases" in golden.meta else {}
    recorded = {name.removesuffix(".c2w") for name in golden.names() if name.endswith(".c2w")}
    for case in sorted(recorded | set(strings)):
        text = strings.get(case, {}).get("action_string")
        yield judge(path.name, case, lambda c=case, t=text: _check(golden, c, t))
    yield from report_unread(golden)


def _check(golden: GoldenFile, case: str, text: str | None) -> Iterator[Difference]:
    wasd, ijkl = golden[f"{case}.wasd"], golden[f"{case}.ijkl"]
    for name, keys in (("wasd", wasd), ("ijkl", ijkl)):
        yield compare(f"{name} (0 or 1)", (keys > 0.5).float(), keys, EXACT)
    if text is not None:
        parsed = parse_action_string(text)
        yield compare("wasd", parsed.wasd, wasd, EXACT)
        yield compare("ijkl", parsed.ijkl, ijkl, EXACT)
    yield compare("c2w", poses_from_keys(wasd.numpy(), ijkl.numpy()), golden[f"{case}.c2w"])

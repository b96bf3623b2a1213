"""`models` and `doctor`: complete, and readable by machines."""

from __future__ import annotations

import json

import pytest

from worldline.cli.main import main
from worldline.core.env import KNOBS
from worldline.models.registry import PRESETS


def test_models_lists_every_preset_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for name, preset in PRESETS.items():
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert preset.licence in line
        assert preset.notice is None or preset.notice in out


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(PRESETS)
    assert rows["pocket"]["live"] and not rows["lingbot-world-base-cam"]["live"]


def test_doctor_prints_every_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDLINE_THREADS", "2")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main(["doctor", "--json"]) == 0
    found = {line["name"]: line["value"] for line in json.loads(capsys.readouterr().out)}
    assert {f"WORLDLINE_{name.upper()}" for name in KNOBS} <= set(found)
    assert found["WORLDLINE_THREADS"] == "2"
    assert found["OMP_WAIT_POLICY"] == "active"
    assert set(PRESETS) <= set(found)


def test_doctor_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldline.cli.doctor.EXTRAS", {"no-such-package": "no flying"})
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "no-such-package" in line)
    assert "missing" in line and "no flying" in line

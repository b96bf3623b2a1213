"""The cold start: what its marks are read from, that its parts add up, and one real start."""

from __future__ import annotations

import json

import pytest

from worldline.bench import start
from worldline.bench.start import PARTS, TOTAL, as_table, measure_start, parts_of
from worldline.cli.main import main
from worldline.core.errors import WorkerDiedError

LOADED = {"event": "model loaded", "process_ms": 250, "imports_ms": 1250.0, "load_ms": 200}
LINES = [
    (1.95, "some text"),
    (2.0, json.dumps(LOADED)),
    (2.25, "pocket is at http://127.0.0.1:36235/ (Ctrl-C stops it)"),
    (2.3, json.dumps({"event": "running on http://127.0.0.1:1/ (quit)"})),
    (2.4, "[1, 2]"),
    (3.0, json.dumps({"event": "ready", "chunks": 9})),
]


def test_the_address_is_in_one_line_only() -> None:
    found = [start.address_of(line) for _, line in LINES]
    assert [a for a in found if a is not None] == ["://127.0.0.1:36235"]


def test_parts_add_up_to_the_first_frame() -> None:
    parts = parts_of(LINES, 3.5)
    assert list(parts.values()) == [300.0, 250.0, 1250.0, 200.0, 250.0, 750.0, 500.0, 3500.0]
    assert list(parts) == [*PARTS, TOTAL]
    assert sum(parts[name] for name in PARTS) == parts[TOTAL]
    # The line that says so may come late; the frame cannot have come before the server was ready.
    late = parts_of(LINES[:-1], 3.5)
    assert (late["warm-up"], late["first chunk"]) == (1250.0, 0.0)


def test_a_real_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "start", "--runs", "2", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["runs"]) == 2 and found["cold"] == found["runs"][0]
    assert found["arguments"] == ["--threads", "1"]
    for run in found["runs"]:
        assert set(run) == {*PARTS, TOTAL}
        assert sum(run[name] for name in PARTS) == pytest.approx(run[TOTAL], abs=1)
        for part in ("command", "worker", "imports", "load"):
            assert run[part] > 0, part


def test_the_table_names_every_part() -> None:
    run = dict.fromkeys([*PARTS, TOTAL], 10.0)
    one = start.StartFigures(arguments=("--seats", "1"), runs=(run,), cold=run, warm=None)
    text = as_table(one)
    assert all(name in text for name in run) and "again" not in text


def test_a_server_that_cannot_start_is_told_of() -> None:
    with pytest.raises(WorkerDiedError, match="no-such-model"):
        measure_start(["--model", "no-such-model"], 1)

"""`bench snapshots`: what it measures is there, and other bits are told."""

from __future__ import annotations

import msgspec
import pytest
import torch

from tests import tiny
from worldline.bench import snapshots
from worldline.bench.snapshots import as_table, measure_snapshots
from worldline.cli.main import main
from worldline.ops.vae import StreamState
from worldline.runtime import moment
from worldline.runtime.state import SessionState
from worldline.runtime.tree import map_tensors


def test_bytes_and_times_of_a_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "TIMES", 1)
    figures = measure_snapshots(tiny.world(), chunks=3)
    assert figures.equal and figures.rebuilt_exact
    assert (figures.chunks, figures.chunk, figures.window) == (3, 3, 7)
    assert figures.frame_bytes == 2 * 2 * 6 * 48 * 4, "keys and values of two blocks"
    assert figures.moment_bytes > figures.moment_more_bytes > 3 * figures.frame_bytes
    assert figures.light_bytes < figures.file_bytes
    assert "the same bits" in as_table(figures)


def test_other_bits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "TIMES", 1)
    settle = moment.settle

    def forgets(state: SessionState, values: moment.Values, decoder: StreamState | None) -> None:
        settle(state, values, map_tensors(decoder, torch.zeros_like))

    monkeypatch.setattr(moment, "settle", forgets)
    figures = measure_snapshots(tiny.world(), chunks=2)
    assert not figures.equal
    assert "OTHER BITS" in as_table(figures)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "TIMES", 1)
    command = ["bench", "snapshots", "--chunks", "2", "--device", "cpu", "--json"]
    assert main(command) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["model"] == "pocket"
    assert main([*command[:3], "1"]) == 2

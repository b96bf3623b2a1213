"""Savings switched off, side by side: which variants there are, and that class A changes no bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from worldline.bench import ablate
from worldline.bench.ablate import ALL, COMPARED_CHUNKS, NONE, Comparison, Variant
from worldline.bench.chunk import ChunkRequest
from worldline.core.errors import ConfigError
from worldline.runtime.savings import SAVINGS


@pytest.fixture(scope="module")
def ablation() -> dict[str, Variant]:
    """Every saving of the small model, two measured chunks."""
    done: list[tuple[int, int]] = []
    found = ablate.measure_ablation(
        tiny.world(),
        ChunkRequest(chunks=2, steps=2),
        ablate.chosen("all"),
        on_chunk=lambda *pair: done.append(pair),
    )
    assert done[-1][0] == done[-1][1] == len(done)
    return found


def test_all_savings_are_measured(ablation: dict[str, Variant]) -> None:
    assert list(ablation) == [ALL, *SAVINGS, NONE]
    assert ablation[NONE].off == tuple(SAVINGS) and ablation[ALL].off == ()
    for variant in ablation.values():
        assert 0 < variant.passes_ms_p50 < variant.dit_ms_p50 < variant.chunk_ms_p50
        assert variant.compared == COMPARED_CHUNKS == 6
    assert ablation[ALL].slower == ablation[ALL].dit_slower == 1.0


def test_every_class_keeps_its_promise(ablation: dict[str, Variant]) -> None:
    for name, variant in ablation.items():
        assert variant.kept, name
        if variant.kind == "A":
            assert variant.identical and variant.max_abs == 0.0, name


def test_tables_hold_every_variant(ablation: dict[str, Variant]) -> None:
    text = ablate.as_table(ablation).splitlines()
    assert len(text) == len(ablation) + 1
    assert all(any(line.split()[0] == name for line in text) for name in SAVINGS)
    for line, variant in zip(text[2:], list(ablation.values())[1:], strict=True):
        assert ("equal, bit for bit" if variant.identical else "within") in line
        assert variant.identical or variant.kind == "B"
    rows = ablate.as_markdown(ablation).splitlines()
    assert len({row.count("|") for row in rows}) == 1
    assert len(ablate.as_panel(ablation).bars) == len(ablation)


def test_one_saving_alone() -> None:
    assert list(ablate.chosen("camera")) == [ALL, "camera", NONE]
    with pytest.raises(ConfigError, match="saving"):
        ablate.chosen("luck")


def test_short_memory_makes_groups_with_the_complete_engine_in_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, request = tiny.world(), ChunkRequest(chunks=1)
    with ablate.open_session(world, request) as session:
        ring = session.state.kv.nbytes
    monkeypatch.setattr(ablate, "free_bytes", lambda device: 4 * ring)
    names = ["rope", "time", "camera"]
    assert ablate._groups(world, request, names) == [["rope", "time"], ["camera"]]
    monkeypatch.setattr(ablate, "free_bytes", lambda device: 0)
    assert ablate._groups(world, request, names) == [["rope"], ["time"], ["camera"]]


def test_turns_begin_with_another_variant_each_time() -> None:
    turns = [list(ablate.turned("abc", i)) for i in range(3)]
    assert turns == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


def compare(ours: ablate.Output, theirs: ablate.Output) -> tuple[float, bool]:
    """Distance and equality that a comparison of two outputs finds."""
    found = Comparison([ALL, "other"])
    found.take("other", theirs)
    found.take(ALL, ours)
    found.compare()
    return found.max_abs["other"], found.identical["other"]


def test_a_difference_is_seen() -> None:
    zeros = torch.zeros(3)
    assert compare(zeros, zeros.clone()) == (0.0, True)
    assert compare(zeros, torch.tensor([0.0, -0.5, 0.25])) == (0.5, False)
    assert compare(zeros, torch.tensor([0.0, float("nan"), 0.0])) == (float("inf"), False)
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    assert compare(frames, frames.copy()) == (0.0, True)
    assert compare(frames, frames + 1) == (0.0, False)


def test_a_broken_promise_is_said() -> None:
    whole = Variant(
        off=("rope",),
        kind="A",
        chunk_ms_p50=1,
        chunk_cpu_ms_p50=1,
        dit_ms_p50=1,
        passes_ms_p50=1,
        slower=1,
        dit_slower=1,
        cpu_slower=1,
        max_abs=1e-7,
        identical=False,
        compared=6,
        kept=False,
    )
    assert "NOT equal" in ablate.verdict(whole)

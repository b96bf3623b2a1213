"""Attention by measurement: the fastest that is right wins, and is remembered; times are faked."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldline.kernels.attention import (
    MEASURED_SHAPES,
    AttentionChooser,
    Backend,
    SDPBackend,
    backends,
    random_inputs,
)
from worldline.kernels.choice_file import AttentionChoice, AttentionKey, ChoiceFile, cache_folder
from worldline.ops.attention import AttentionFn, AttentionShape, attention

SHAPE = AttentionShape(queries=5, keys=12, heads=2, head_dim=8, dtype=torch.float32)
CPU = torch.device("cpu")


def in_other_words(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("blnd,bknd->bnlk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bnlk,bknd->blnd", scores.softmax(-1), v)


def without_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attention(q * q.shape[-1], k, v)


def not_a_number(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.full_like(q, torch.nan)


def too_old(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raise RuntimeError("this GPU is too old\nsecond line")


ALL: dict[str, AttentionFn] = {
    "torch": attention,
    "words": in_other_words,
    "without_scale": without_scale,
    "nan": not_a_number,
    "too_old": too_old,
}
MS: dict[AttentionFn, float] = {
    attention: 3.0,
    in_other_words: 2.0,
    without_scale: 1.0,
    not_a_number: 1.0,
}


class FakeTimer:
    """Tells the time of `MS`; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, call: Callable[[], object]) -> float:
        assert isinstance(call, partial)
        self.asked += 1
        return MS[call.func]


def chooser(
    path: Path, timer: FakeTimer, candidates: Mapping[str, AttentionFn] = ALL
) -> AttentionChooser:
    return AttentionChooser(CPU, file=ChoiceFile(path), candidates=candidates, timer=timer)


def test_the_fastest_that_is_right_wins(tmp_path: Path) -> None:
    timer = FakeTimer()
    choosing = chooser(tmp_path / "new" / "attention.json", timer)
    assert choosing.pick(SHAPE) is in_other_words
    (choice,) = choosing.choices
    assert choice.ms == {"torch": 3.0, "words": 2.0}
    assert choice.refused.keys() == {"without_scale", "nan", "too_old"}
    assert choice.refused["too_old"] == "this GPU is too old"
    assert choice.source == "measured"
    assert choice.key == AttentionKey(
        device="cpu",
        torch=torch.__version__,
        dtype="float32",
        queries=5,
        keys=12,
        heads=2,
        head_dim=8,
    )
    assert choosing.pick(SHAPE) is in_other_words
    assert timer.asked == 2


def test_the_next_process_finds_it_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "attention.json"
    chooser(path, FakeTimer()).pick(SHAPE)
    timer = FakeTimer()
    later = chooser(path, timer)
    assert later.pick(SHAPE) is in_other_words
    assert timer.asked == 0
    assert later.choices[0].source == "file"
    assert later.pick(SHAPE._replace(keys=24)) is in_other_words  # another shape is measured
    assert timer.asked == 2
    assert len(ChoiceFile(path).read()) == 2


def test_another_torch_or_a_newly_installed_backend_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "attention.json"
    chooser(path, FakeTimer(), {"torch": attention}).pick(SHAPE)
    timer = FakeTimer()
    assert chooser(path, timer).pick(SHAPE) is in_other_words
    assert timer.asked == 2 and len(ChoiceFile(path).read()) == 1
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    assert chooser(path, timer).pick(SHAPE) is in_other_words
    assert timer.asked == 4 and len(ChoiceFile(path).read()) == 2


def test_a_film_that_grows_is_not_measured_for_ever(tmp_path: Path) -> None:
    timer = FakeTimer()
    choosing = chooser(tmp_path / "attention.json", timer)
    for keys in range(5, 5 + 3 * MEASURED_SHAPES, 2):
        assert choosing.pick(SHAPE._replace(keys=keys)) is in_other_words
    assert timer.asked == 2 * MEASURED_SHAPES
    assert len(choosing.choices) == MEASURED_SHAPES


def test_where_nothing_works_torch_decides(tmp_path: Path) -> None:
    path = tmp_path / "attention.json"
    only: dict[str, AttentionFn] = {"torch": attention, "too_old": too_old}

    def failing(call: Callable[[], object]) -> float:
        raise RuntimeError("out of memory")

    choosing = AttentionChooser(CPU, file=ChoiceFile(path), candidates=only, timer=failing)
    assert choosing.pick(SHAPE) is attention
    assert choosing.choices[0].ms == {}


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"version": 1}', b'{"version": 1, "choices": [{"key": 1}]}'],
)
def test_a_damaged_file_costs_a_measurement_and_is_mended(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "attention.json"
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        assert chooser(path, FakeTimer()).pick(SHAPE) is in_other_words
    assert "ignoring" in caplog.text
    timer = FakeTimer()
    assert chooser(path, timer).pick(SHAPE) is in_other_words
    assert timer.asked == 0


def test_a_file_of_another_version_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "attention.json"
    chooser(path, FakeTimer()).pick(SHAPE)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"version": 99}))
    assert ChoiceFile(path).read() == []


def test_a_folder_that_cannot_be_written_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        picked = chooser(tmp_path / "file" / "attention.json", FakeTimer()).pick(SHAPE)
    assert picked is in_other_words
    assert "is not kept" in caplog.text


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "attention.json"
    chooser(path, FakeTimer()).pick(SHAPE)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    chooser(path, FakeTimer()).pick(SHAPE._replace(keys=3))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder({"XDG_CACHE_HOME": "/var/mine"}) == Path("/var/mine/worldline")
    home = Path.home() / ".cache" / "worldline"
    assert cache_folder({}) == cache_folder({"XDG_CACHE_HOME": "relative"}) == home


def test_torchs_own_backends_are_found_and_math_runs_here() -> None:
    found = backends()
    assert {"torch", "cudnn", "flash", "efficient", "math"} <= found.keys()
    q, k, v = random_inputs(SHAPE, CPU)
    assert q.shape == (1, 5, 2, 8) and k.shape == v.shape == (1, 12, 2, 8)
    torch.testing.assert_close(Backend(SDPBackend.MATH)(q, k, v), in_other_words(q, k, v))


def test_flash_attn_is_taken_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its function takes tokens first, like ours, and in some versions returns more than one."""
    module = tmp_path / "flash_attn_interface.py"
    module.write_text(
        "from worldline.ops.attention import attention\n"
        "def flash_attn_func(q, k, v):\n"
        "    return attention(q, k, v), 'the logarithm of the sums'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = backends()
    q, k, v = random_inputs(SHAPE, CPU)
    assert torch.equal(found["flash-attn-3"](q, k, v), attention(q, k, v))
    assert "flash-attn-2" not in found


def test_choices_survive_the_file_whole(tmp_path: Path) -> None:
    file = ChoiceFile(tmp_path / "attention.json")
    key = AttentionKey(
        device="a GPU", torch="2", dtype="bfloat16", queries=1, keys=2, heads=3, head_dim=4
    )
    choice = AttentionChoice(key=key, backend="x", ms={"x": 1.5}, refused={"y": "too old"})
    file.store(choice)
    assert file.find(key) == choice

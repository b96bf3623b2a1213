"""The quality gate: eight bits pass it on the shipped pocket world, and what is worse does not."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
import torch

from worldline.bench import quality
from worldline.bench.quality import EQUAL_DB, MIN_PSNR_DB, QualityFigures, measure_quality, psnr
from worldline.cli.main import main
from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.quant.linear import Fp8Linear
from worldline.runtime.engine import World, load

CHUNKS = 4


def pocket(mode: str = "exact", options: EngineOptions | None = None) -> World:
    """The shipped weights in bfloat16, on one thread."""
    return load(
        "pocket",
        device="cpu",
        dtype="bfloat16",
        mode=mode,
        threads=1,
        options=options or EngineOptions(),
    )


@pytest.fixture(scope="module")
def reference() -> World:
    return pocket()


def judge(reference: World, candidate: World) -> QualityFigures:
    done: list[tuple[int, int]] = []
    figures = measure_quality(
        reference,
        candidate,
        quality.gallery_starts(1),
        chunks=CHUNKS,
        on_chunk=lambda *pair: done.append(pair),
    )
    assert done == [(i + 1, CHUNKS) for i in range(CHUNKS)]
    return figures


def test_a_world_equals_itself(reference: World) -> None:
    """Also that the led session really has the leader's past: nothing else gives equal frames."""
    figures = judge(reference, pocket())
    assert figures.psnr_min == EQUAL_DB and figures.kept
    assert all(one.change == 0 for one in figures.drift.values())


@pytest.mark.parametrize(("mode", "kv"), [("8bit", "full"), ("exact", "8bit"), ("8bit", "8bit")])
def test_eight_bits_pass_the_gate(reference: World, mode: str, kv: str) -> None:
    figures = judge(reference, pocket(mode, EngineOptions(kv="8bit" if kv == "8bit" else "full")))
    assert figures.kept
    assert MIN_PSNR_DB + 5 < figures.psnr_min < EQUAL_DB
    assert (figures.candidate.mode, figures.candidate.kv) == (mode, kv)
    assert (figures.reference.mode, figures.reference.dtype) == ("exact", "bfloat16")


def test_what_is_worse_fails_the_gate(reference: World) -> None:
    """Three bits, not eight."""
    coarse = pocket("8bit")
    for layer in coarse.components.dit.modules():
        if isinstance(layer, Fp8Linear):
            whole = (layer.weight.float() / 150).round() * 150
            layer.weight.data = whole.to(layer.weight.dtype)
    figures = judge(reference, coarse)
    assert not figures.kept and figures.psnr_min < MIN_PSNR_DB


def test_a_colour_that_drifts_fails_the_gate(reference: World) -> None:
    tinted = pocket()
    vae = tinted.components.vae
    decode = vae.decode_stream

    def darker(latents: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        video, state = decode(latents, state)  # pyright: ignore[reportArgumentType]
        return video * 0.8 - 0.2, state

    vae.decode_stream = darker  # pyright: ignore[reportAttributeAccessIssue]
    figures = judge(reference, tinted)
    assert not figures.kept
    assert min(one.change for one in figures.drift.values()) < -0.1


def test_pictures_are_compared_in_decibels() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == EQUAL_DB
    assert psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)
    flat = quality.statistics([np.full((2, 6, 8, 3), 100, np.uint8)])
    assert flat == {"edge_energy": 0.0, "red": 100.0, "green": 100.0, "blue": 100.0}
    stripes = np.zeros((1, 6, 8, 3), np.uint8)
    stripes[:, :, ::2] = 10
    assert quality.statistics([stripes])["edge_energy"] == pytest.approx(5.0)


def test_numbers_that_make_no_sense_are_refused(reference: World) -> None:
    with pytest.raises(ConfigError, match="no walk"):
        quality.gallery_starts(0)
    with pytest.raises(ConfigError, match="nothing to compare"):
        measure_quality(reference, reference, quality.gallery_starts(1), chunks=0)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "quality", "--mode", "8bit", "--walks", "1", "--chunks", "2"]
    assert main([*command, "--device", "cpu", "--threads", "1", "--json"]) == 0
    figures = msgspec.convert(json.loads(capsys.readouterr().out), QualityFigures)
    assert figures.candidate.mode == "8bit" and figures.chunks == 2
    for lines in (quality.as_table(figures), quality.as_markdown(figures)):
        assert f"{figures.psnr_min:.1f}" in lines
    assert main(["bench", "quality", "--mode", "exact", "--device", "cpu"]) == 2
    assert "nothing to judge" in capsys.readouterr().err

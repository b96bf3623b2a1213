"""Tiny checkpoints of every layout, walked through end to end: command line, library, overrides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import worldline
from tests.checkpoints import TINY_DIT, WRITERS, Tiny, make_tiny, write_diffusers, write_original_v1
from worldline.cli.main import main
from worldline.core.errors import ConfigError

Capture = pytest.CaptureFixture[str]

PROMPT = "a sandy court of tall red columns"


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sums() -> dict[str, str]:
    """Sums of the frames by layout, to compare the films with each other."""
    return {}


def film_of(root: Path, picture: NDArray[np.uint8], capsys: Capture) -> dict[str, Any]:
    """What `worldline generate` says about a short film from a checkpoint."""
    start = root.parent / "start.png"
    Image.fromarray(picture).save(start)
    # The v1 presets' steps differ from v2's, so they are asked for: two steps are 0 and 500.
    numbers = "--size 48x32 --chunk 2 --window 5 --sink 1 --steps 2 --seed 7 --json"
    out = root.parent / "film"
    files = ["--model", root, "--image", start, "--out", out]
    words = ["--prompt", PROMPT, "--actions", "w-8,jw-8,none-4"]
    code = main(["generate", *map(str, files), *words, *numbers.split()])
    assert code == 0
    film = json.loads(capsys.readouterr().out)
    assert film["chunks"] == 3 and film["frames"] == 5 + 8 + 8
    assert len(list(out.iterdir())) >= film["frames"]
    return film


@pytest.mark.parametrize("name", WRITERS)
def test_generate_makes_a_film_from_every_layout(
    name: str,
    tiny: Tiny,
    picture: NDArray[np.uint8],
    sums: dict[str, str],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    sums[name] = film_of(WRITERS[name](tmp_path / "model", tiny), picture, capsys)["sha256"]
    assert len(set(sums.values())) == 1, "layouts of the same weights differ"


def test_generate_with_action_control(
    picture: NDArray[np.uint8], tmp_path: Path, capsys: Capture
) -> None:
    tiny = make_tiny(msgspec.structs.replace(TINY_DIT, control_dim=7))
    film_of(write_original_v1(tmp_path / "model", tiny), picture, capsys)


def test_base_model_loads_but_does_not_start(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    world = worldline.load(str(write_original_v1(tmp_path, make_tiny(experts=2))))
    assert world.components.low_noise_dit is not None
    with pytest.raises(ConfigError, match="makes films only"):
        world.start(picture, PROMPT, width=48, height=32)


def test_nothing_a_session_asks_for_stays(
    tmp_path: Path, tiny: Tiny, picture: NDArray[np.uint8]
) -> None:
    world = worldline.load(str(write_diffusers(tmp_path, tiny)))
    info = world.info
    assert (info.chunk, info.window, info.sink, info.steps) == (2, 5, 1, 4)  # the files' own

    def first_frames() -> NDArray[np.uint8]:
        with world.start(picture, PROMPT, 3, width=48, height=32) as session:
            assert (session.chunk, session.window, session.sink, session.steps) == (2, 5, 1, 4)
            return session.step([["w"], []]).frames

    before = first_frames()
    with world.start(
        picture, PROMPT, 3, chunk=1, window=4, sink=0, shift=3.0, steps=2, width=48, height=32
    ) as other:
        assert (other.chunk, other.window, other.sink, other.steps) == (1, 4, 0, 2)
        assert other.step([["w"]]).frames.shape[0] == 1
    assert world.info == info
    assert np.array_equal(first_frames(), before)


def test_a_window_that_is_too_small_is_refused(
    tmp_path: Path, tiny: Tiny, picture: NDArray[np.uint8]
) -> None:
    world = worldline.load(str(write_diffusers(tmp_path, tiny)))
    with pytest.raises(ConfigError, match="cannot hold sink and chunk; expected at least 3"):
        world.start(picture, PROMPT, window=2, width=48, height=32)

"""`generate` with guided models: films on disk, gone on with after an end in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import film_worlds as worlds
from tests import tiny
from worldline.cli.guided import alone
from worldline.cli.main import main
from worldline.runtime.engine import World
from worldline.runtime.films import FilmJob

pytest.importorskip("diffusers")
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def worlds_loaded(monkeypatch: pytest.MonkeyPatch) -> list[World]:
    """What `load_world` gives, in order; the last one again and again."""
    found = [worlds.base()]

    def load(settings: object, **_: object) -> World:
        return found.pop(0) if len(found) > 1 else found[0]

    monkeypatch.setattr("worldline.cli.generate.load_world", load)
    return found


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command line up to its output."""
    picture = tmp_path / "picture.png"
    Image.fromarray(tiny.picture()).save(picture)
    return ["generate", "--json", "--image", str(picture), "--prompt", tiny.PROMPT]


@pytest.fixture
def run(words: list[str], worlds_loaded: list[World], capsys: pytest.CaptureFixture[str]) -> Run:
    """Make a film; returns its JSON."""

    def make(*arguments: str | Path) -> dict[str, Any]:
        assert main([*words, *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    return make


class SlowClock:
    """Seconds that pass by being asked for."""

    def __init__(self, step: float) -> None:
        self._now, self._step = 0.0, step

    def now(self) -> float:
        """The time, which then moves on."""
        self._now += self._step
        return self._now


def pictures(folder: Path) -> NDArray[np.uint8]:
    """All pictures of a folder."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def test_a_path_is_one_clip_and_a_chunk_cuts_it_into_several(run: Run, tmp_path: Path) -> None:
    whole = run("--actions", "w-8,jw-8", "--out", tmp_path / "whole")
    cut = run("--actions", "w-8,jw-8", "--chunk", "3", "--out", tmp_path / "cut")
    assert (whole["chunks"], whole["frames"]) == (1, 17)
    assert (cut["chunks"], cut["frames"]) == (2, 17)
    assert len(cut["chunk_ms"]) == 2 and cut["resumed"] == 0
    assert len(pictures(tmp_path / "whole")) == 17
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "picture.png", "whole"]


def test_standing_still_makes_one_clip(run: Run, tmp_path: Path) -> None:
    assert run("--out", tmp_path / "still")["frames"] == 9
    assert run("--chunks", "2", "--out", tmp_path / "longer")["frames"] == 17


def test_a_film_file(run: Run, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    done = run("--actions", "w-4", "--out", tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert len(list(container.decode(video=0))) == done["frames"] == 5


def test_a_second_device(run: Run, worlds_loaded: list[World], tmp_path: Path) -> None:
    alone = run("--actions", "w-4", "--out", tmp_path / "alone")
    worlds_loaded[:] = [worlds.base(), worlds.base()]
    both = run("--actions", "w-4", "--guidance-device", "cpu", "--out", tmp_path / "both")
    difference = pictures(tmp_path / "both").astype(int) - pictures(tmp_path / "alone")
    assert both["frames"] == alone["frames"] and np.abs(difference).max() <= 1


@pytest.mark.parametrize("stopped", [2, 7])
def test_ctrl_c_keeps_the_film_and_the_same_command_goes_on(
    stopped: int,
    run: Run,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk = ["--actions", "w-8", "--chunk", "2"]
    expected = run(*walk, "--out", tmp_path / "whole")
    advance, turns = FilmJob.advance, iter(range(100))

    def interrupted(job: FilmJob) -> NDArray[np.uint8] | None:
        if next(turns) == stopped:
            raise KeyboardInterrupt
        return advance(job)

    out = tmp_path / "film"
    monkeypatch.setattr(FilmJob, "advance", interrupted)
    assert main([*words, *walk, "--out", str(out)]) == 130
    assert "goes on" in capsys.readouterr().err
    assert not out.exists() and (tmp_path / "film.part" / "film.json").exists()
    monkeypatch.setattr(FilmJob, "advance", advance)
    done = run(*walk, "--out", out)
    assert done["sha256"] == expected["sha256"] and done["resumed"] > 0
    assert not (tmp_path / "film.part").exists()


def test_one_place_is_for_one_film_at_a_time(
    run: Run, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film"
    with alone(tmp_path / "film.part"):
        (tmp_path / "film.part" / "pictures").mkdir()
        assert main([*words, "--actions", "w-4", "--out", str(out)]) == 2
        assert "somebody is making a film here" in capsys.readouterr().err
        assert (tmp_path / "film.part" / "pictures").exists()
    assert run("--actions", "w-4", "--out", out)["frames"] == 5


def test_it_is_kept_from_time_to_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = FilmJob.save

    def noted(job: FilmJob) -> None:
        saved.append(job.progress.done)
        save(job)

    monkeypatch.setattr("worldline.cli.guided.MonotonicClock", lambda: SlowClock(4.0))
    monkeypatch.setattr(FilmJob, "save", noted)
    run("--actions", "w-4", "--out", tmp_path / "film")
    assert saved == [3, 6]


@pytest.mark.parametrize(
    ("arguments", "words_of_it"),
    [
        (["--out", "film.avi"], "cannot be written"),
        (["--out", "picture.png/film.mp4"], "cannot be written"),
        (["--out", "."], "place is taken"),
        (["--out", "picture.png/"], "place is taken"),
        (["--out", "x", "--guidance", "0"], "guidance"),
        (["--out", "x", "--chunk", "1", "--chunks", "2"], "add nothing"),
    ],
)
def test_what_cannot_be_made_is_said(
    arguments: list[str],
    words_of_it: str,
    words: list[str],
    worlds_loaded: list[World],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, *arguments]) == 2
    assert words_of_it in capsys.readouterr().err
    assert not list(tmp_path.glob("x.part"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--guidance", "3"],
        ["--negative-prompt", "grey"],
        ["--solver", "unipc"],
        ["--guidance-device", "cpu"],
        ["--branches", "batched"],
    ],
)
def test_a_distilled_model_takes_no_guidance(
    arguments: list[str],
    words: list[str],
    worlds_loaded: list[World],
    capsys: pytest.CaptureFixture[str],
) -> None:
    worlds_loaded[:] = [tiny.world()]
    assert main([*words, *arguments]) == 2
    assert "takes no guidance" in capsys.readouterr().err

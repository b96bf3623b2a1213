"""Films across the process boundary: both sides together, and a worker killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import film_worlds as worlds
from tests import tiny
from worldline.core.errors import (
    ConfigError,
    ImageError,
    SessionError,
    SessionMissingError,
    WorkerDiedError,
    WorldlineError,
)
from worldline.core.film import FilmProgress, FilmRequest
from worldline.runtime.film_calls import FilmAdvance, FilmCall, FilmClose, FilmOpen, Films
from worldline.runtime.film_door import FilmDoor
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import Reply, WorkerSettings, error_to_reply
from worldline.runtime.shm import SlotWriter

TURNS = 4


class FakeFilm:
    """Four turns; the last two show a picture each."""

    width, height, resumed, turn_frames = 4, 2, 0, 1

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.calls: list[str] = []
        self.turns = 0

    @property
    def done(self) -> bool:
        return self.turns == TURNS

    @property
    def progress(self) -> FilmProgress:
        return FilmProgress(
            stage="denoise",
            done=self.turns,
            total=TURNS,
            chunk=0,
            chunks=1,
            frames=max(0, self.turns - 2),
            total_frames=2,
        )

    def advance(self) -> NDArray[np.uint8] | None:
        if self.done:
            raise ConfigError("it is done")
        self.turns += 1
        return np.full((1, 2, 4, 3), self.turns, np.uint8) if self.turns > 2 else None

    def save(self) -> None:
        self.calls.append("save")

    def forget(self) -> None:
        self.calls.append("forget")

    def close(self) -> None:
        self.calls.append("close")


class FakeWorld:
    """Makes one film after the other."""

    def __init__(self) -> None:
        self.films: list[FakeFilm] = []

    def film(
        self, request: FilmRequest, image: NDArray[np.uint8], *, folder: Path | None
    ) -> FakeFilm:
        assert image.shape == (2, 3, 3)
        self.films.append(FakeFilm(folder))
        return self.films[-1]


class Both(NamedTuple):
    """The parent's side and the worker's."""

    door: FilmDoor
    films: Films
    world: FakeWorld


def joined(*, writes: bool = True) -> Both:
    """Both sides without a process between them."""
    world = FakeWorld()
    films = Films(world, fps=16, pixels=SlotWriter, writes=writes)
    return Both(between(films), films, world)


def between(films: Films) -> FilmDoor:
    """A door to films of this process."""

    def send(call: FilmCall) -> Future[Reply]:
        future: Future[Reply] = Future()
        try:
            future.set_result(films.answer(call))
        except WorldlineError as error:
            future.set_result(error_to_reply(error))
        return future

    return FilmDoor(send)


def opening(film_id: str = "a", *, image: bytes = bytes(18)) -> FilmOpen:
    """The call that begins a film."""
    request = FilmRequest(prompt="a place")
    return FilmOpen(
        film_id=film_id, request=request, image=image, image_width=3, image_height=2, folder="there"
    )


def test_a_film_from_the_first_turn_to_the_last() -> None:
    both = joined()
    reply = both.door.call(opening()).reply
    assert reply is not None and (reply.width, reply.height, reply.fps) == (4, 2, 16)
    assert reply.turn_bytes == 24 and not reply.done
    turns = [both.door.call(FilmAdvance(film_id="a", save=i == 1)) for i in range(TURNS)]
    shown = [turn.frames for turn in turns]
    assert shown[0] is None and shown[1] is None
    assert [int(one[0, 0, 0, 0]) for one in shown if one is not None] == [3, 4]
    assert [turn.reply.done for turn in turns if turn.reply] == [False, False, False, True]
    with pytest.raises(ConfigError, match="done"):
        both.door.call(FilmAdvance(film_id="a"))
    both.door.call(FilmClose(film_id="a", forget=True))
    assert both.world.films[0].calls == ["save", "forget", "close"]
    assert both.world.films[0].folder == Path("there") and len(both.films) == 0


def test_only_one_rank_writes() -> None:
    both = joined(writes=False)
    both.door.call(opening())
    both.door.call(FilmAdvance(film_id="a", save=True))
    both.door.call(FilmClose(film_id="a", forget=True))
    assert both.world.films[0].calls == ["close"]


def test_films_that_are_not_there_and_pictures_that_do_not_fit() -> None:
    both = joined()
    for call in (FilmAdvance(film_id="a"),):
        with pytest.raises(SessionMissingError):
            both.door.call(call)
    both.door.call(FilmClose(film_id="a"))
    with pytest.raises(ImageError):
        both.door.call(opening(image=b"12"))
    both.door.call(opening())
    with pytest.raises(SessionError, match="is open"):
        both.door.call(opening())
    both.door.close()
    with pytest.raises(SessionMissingError):
        both.door.call(FilmAdvance(film_id="a"))
    both.films.close_all()
    assert both.world.films[0].calls == ["close"]


@pytest.fixture
def workers() -> Generator[list[WorkerHandle]]:
    """Workers that are ended when the test is."""
    started: list[WorkerHandle] = []
    yield started
    for worker in started:
        worker.shutdown()


def test_a_killed_worker_costs_what_was_not_saved(
    workers: list[WorkerHandle], tmp_path: Path
) -> None:
    pytest.importorskip("diffusers")
    settings = WorkerSettings(model="base", engine="tests.film_worlds:load", threads=1)
    asked, picture = worlds.request(3), tiny.picture()
    call = FilmOpen(
        film_id="film",
        request=asked,
        image=picture.tobytes(),
        image_width=tiny.WIDTH,
        image_height=tiny.HEIGHT,
        folder=str(tmp_path),
    )
    workers.append(WorkerHandle.spawn(settings))
    workers[0].film(call)
    for _ in range(4):  # the conditions and three passes
        workers[0].film(FilmAdvance(film_id="film", save=True))
    workers[0].film(FilmAdvance(film_id="film"))
    os.kill(workers[0].pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(WorkerDiedError):  # also once it is known, not "no such film"
            workers[0].film(FilmAdvance(film_id="film"))
        workers[0].wait_until_ended()
    films = Films(
        worlds.base(), fps=16, pixels=SlotWriter, writes=True
    )  # another process: this one
    door = between(films)
    reply = door.call(call).reply
    assert reply is not None and reply.resumed == 3
    frames: list[NDArray[np.uint8]] = []
    while not reply.done:
        turn = door.call(FilmAdvance(film_id="film"))
        assert turn.reply is not None
        reply = turn.reply
        frames.extend([] if turn.frames is None else [turn.frames])
    door.call(FilmClose(film_id="film", forget=True))
    assert np.array_equal(np.concatenate(frames), worlds.made(worlds.base(), asked))
    assert not tmp_path.exists()

"""A worker that dies: its sessions fail typed, another one takes over, and pauses grow."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Generator

import pytest

from tests.runtime import fake_engine
from tests.runtime.fake_engine import CHUNK, open_request, shared_names
from worldline.core.errors import SessionMissingError, WorkerDiedError
from worldline.core.film import FilmRequest
from worldline.runtime.film_calls import FilmAdvance, FilmCall, FilmClose, FilmOpen, FilmTurn
from worldline.runtime.handle import EngineHandle, WorkerHandle
from worldline.runtime.protocol import StepRequest, WorkerSettings
from worldline.runtime.supervisor import (
    FIRST_PAUSE_S,
    LONG_LIFE_S,
    LONGEST_PAUSE_S,
    SupervisedHandle,
)

IDLE = ((),) * CHUNK


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time


class Pauses:
    """Pauses that take no time; a test lets each one end, and may say that all is over."""

    def __init__(self) -> None:
        self.asked: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def __call__(self, seconds: float) -> bool:
        self.asked.put(seconds)
        return self.answers.get(timeout=20)

    def pass_by(self) -> float:
        """Let the next pause end; how long it would have been."""
        seconds = self.asked.get(timeout=20)
        self.answers.put(False)
        return seconds


class Rig:
    """A supervised fake engine; `settings` is what the next worker loads."""

    def __init__(self) -> None:
        self.clock, self.pauses = Clock(), Pauses()
        self.settings: WorkerSettings = fake_engine.settings()
        self.first = WorkerHandle.spawn(self.settings)
        self.ready = threading.Semaphore(0)
        self.handles: list[WorkerHandle] = [self.first]
        self.handle = SupervisedHandle(
            self.first,
            self.start,
            clock=self.clock,
            pause=self.pauses,
            on_restart=self.ready.release,
        )

    def start(self) -> WorkerHandle:
        self.handles.append(WorkerHandle(self.settings))
        return self.handles[-1]

    def kill(self) -> None:
        """As the kernel does it when memory runs out."""
        os.kill(self.handles[-1].pid, signal.SIGKILL)

    def again(self) -> None:
        assert self.ready.acquire(timeout=20), "no other worker came"


@pytest.fixture
def rig() -> Generator[Rig]:
    made = Rig()
    yield made
    made.pauses.answers.put(True)
    made.handle.shutdown()
    assert not any(handle.alive() for handle in made.handles)
    assert not shared_names()


def step(handle: EngineHandle, name: str, index: int, prompt: str | None = None) -> int:
    """One pixel of the next chunk."""
    request = StepRequest(session_id=name, chunk_index=index, actions=IDLE, prompt=prompt)
    with handle.step(request) as result:
        return int(result.frames[0, 0, 0, 0])


def test_another_worker_takes_over(rig: Rig) -> None:
    handle: EngineHandle = rig.handle
    for seed, name in enumerate("ab"):
        handle.open(open_request(name, seed=10 * seed))
        assert step(handle, name, 0) == 10 * seed
    calls: list[Callable[[], object]] = [
        lambda: step(handle, "a", 1),
        lambda: handle.park("a"),
        lambda: handle.unpark("a"),
        lambda: handle.reset("a"),
        lambda: handle.open(open_request("c")),
        handle.counts,
    ]
    rig.kill()
    rig.first.wait_until_ended()
    assert not handle.alive() and handle.info == rig.first.info
    for call in calls:
        with pytest.raises(WorkerDiedError) as caught:
            call()
        assert caught.value.retryable
    assert handle.abort("a") is False
    assert rig.pauses.pass_by() == FIRST_PAUSE_S
    rig.again()
    assert handle.alive() and rig.handle.restarts == 1
    with pytest.raises(WorkerDiedError):  # not "no such session": who walked there is told why
        step(handle, "a", 1)
    handle.close("a")
    with pytest.raises(SessionMissingError):
        step(handle, "a", 1)
    handle.open(open_request("a", seed=70))
    assert step(handle, "a", 0) == 70
    handle.close("a")
    handle.close("b")
    assert handle.counts().sessions == 0


def test_a_step_under_way_fails_when_its_worker_dies(rig: Rig) -> None:
    rig.handle.open(open_request("a"))
    with pytest.raises(WorkerDiedError, match="exit code 7"):
        step(rig.handle, "a", 0, prompt="exit now")
    rig.pauses.pass_by()
    rig.again()
    rig.handle.close("a")
    rig.handle.open(open_request("a", seed=3))
    assert step(rig.handle, "a", 0) == 3


def test_a_film_stays_with_its_worker(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one knows nothing of it: whoever drives it is to hear that its worker died."""
    asked: list[WorkerHandle] = []

    def film(handle: WorkerHandle, call: FilmCall) -> FilmTurn:
        del call
        asked.append(handle)
        return FilmTurn(None)

    monkeypatch.setattr(WorkerHandle, "film", film)
    opening = FilmOpen(
        film_id="f", request=FilmRequest(prompt="a"), image=b"", image_width=0, image_height=0
    )
    rig.handle.film(opening)
    rig.kill()
    rig.pauses.pass_by()
    rig.again()
    rig.handle.film(FilmAdvance(film_id="f"))
    rig.handle.film(FilmClose(film_id="f"))
    assert asked == [rig.first] * 3
    rig.handle.film(opening)
    assert asked[-1] is rig.handles[1]


def test_pauses_double_until_one_lives_long(rig: Rig) -> None:
    """Also when the model cannot be loaded any more; the last known facts stay."""
    rig.settings = fake_engine.settings("broken")
    rig.kill()
    pauses = [rig.pauses.pass_by() for _ in range(3)]
    assert pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert not rig.handle.alive() and rig.handle.restarts == 0
    assert rig.pauses.asked.get(timeout=20) == 8 * FIRST_PAUSE_S
    rig.settings = fake_engine.settings()
    rig.pauses.answers.put(False)
    rig.again()
    rig.clock.time += LONG_LIFE_S
    rig.kill()
    assert rig.pauses.pass_by() <= LONGEST_PAUSE_S
    rig.again()
    rig.clock.time += LONG_LIFE_S
    rig.kill()
    assert rig.pauses.pass_by() == FIRST_PAUSE_S
    rig.again()
    assert rig.handle.restarts == 3


def test_a_shutdown_ends_also_what_is_loading(rig: Rig) -> None:
    rig.kill()
    rig.pauses.pass_by()
    rig.pauses.answers.put(True)
    rig.handle.shutdown()
    assert not rig.handle.alive()
    rig.handle.shutdown()

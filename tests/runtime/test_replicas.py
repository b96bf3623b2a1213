"""Several engines behind one handle: who is placed where, and what one that dies takes with it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from tests.fakes import FakeHandle
from tests.fakes import fake_info as made_up
from worldline.core.errors import WorkerDiedError
from worldline.runtime.contract import EngineHandle
from worldline.runtime.protocol import OpenRequest, StepRequest
from worldline.runtime.replicas import Replicas
from worldline.runtime.warming import enough_chunks, walk

INFO = made_up()


class Rig:
    """Replicas of fakes; `revive` is what a supervisor does when another worker is there."""

    def __init__(self, count: int) -> None:
        self.fakes: list[FakeHandle] = []
        self._tell: list[Callable[[], None]] = []
        self.restarts = 0
        self.handle = Replicas([self._make] * count, on_restart=self._restarted)

    def _make(self, revived: Callable[[], None]) -> EngineHandle:
        self.fakes.append(FakeHandle())
        self._tell.append(revived)
        return self.fakes[-1]

    def _restarted(self) -> None:
        self.restarts += 1

    def revive(self, replica: int) -> None:
        fake = self.fakes[replica]
        fake.dead = False
        fake.sessions.clear()
        fake.requests.clear()
        self._tell[replica]()

    def open(self, name: str) -> None:
        picture = bytes(INFO.width * INFO.height * 3)
        self.handle.open(
            OpenRequest(
                session_id=name,
                image=picture,
                image_width=INFO.width,
                image_height=INFO.height,
                prompt="a place",
            )
        )

    def step(self, name: str, index: int = 0) -> None:
        request = StepRequest(
            session_id=name, chunk_index=index, actions=((),) * INFO.chunk, prompt=None
        )
        self.handle.step(request).release()

    @property
    def homes(self) -> list[set[str]]:
        return [set(fake.sessions) for fake in self.fakes]


def test_sessions_go_where_fewest_are_and_stay_there() -> None:
    rig = Rig(3)
    for name in "abcde":
        rig.open(name)
        rig.step(name)
    assert rig.homes == [{"a", "d"}, {"b", "e"}, {"c"}]
    assert [rig.handle.lane(name) for name in "abcde"] == [0, 1, 2, 0, 1]
    rig.handle.close("b")
    rig.handle.close("e")
    rig.open("f")
    assert rig.homes == [{"a", "d"}, {"f"}, {"c"}]
    rig.step("a", 1)
    assert rig.handle.counts().sessions == 4


def test_a_lane_that_was_asked_for_is_the_home() -> None:
    rig = Rig(2)
    assert [rig.handle.lane(name) for name in "abc"] == [0, 1, 0]
    for name in "cba":
        rig.open(name)
    assert rig.homes == [{"a", "c"}, {"b"}]


def test_every_call_reaches_the_home() -> None:
    rig = Rig(2)
    for name in "ab":
        rig.open(name)
    rig.handle.park("b")
    rig.handle.unpark("b")
    rig.handle.reset("b", 5)
    assert rig.handle.abort("b") is False
    assert [call for call, _ in rig.fakes[1].calls] == ["park", "unpark", "reset", "abort"]
    assert not rig.fakes[0].calls
    rig.handle.branch("b", "c")
    assert rig.homes == [{"a"}, {"b", "c"}] and rig.handle.lane("c") == 1


def test_one_that_dies_takes_its_own_sessions_and_no_others() -> None:
    rig = Rig(2)
    for name in "ab":
        rig.open(name)
    rig.fakes[0].die()
    with pytest.raises(WorkerDiedError):
        rig.step("a")
    rig.step("b")
    assert rig.handle.alive() and rig.handle.info.model == INFO.model
    rig.handle.close("a")
    for name in "cd":
        rig.open(name)
    assert rig.homes[1] == {"b", "c", "d"}
    assert rig.handle.counts().sessions == 3


def test_a_session_of_a_dead_replica_may_be_opened_again_elsewhere() -> None:
    rig = Rig(2)
    rig.open("a")
    rig.fakes[0].die()
    rig.open("a")
    assert rig.homes[1] == {"a"} and rig.handle.lane("a") == 1


def test_a_replica_that_is_back_walks_before_it_gets_sessions() -> None:
    rig = Rig(2)
    rig.open("a")
    rig.open("b")
    rig.fakes[0].die()
    rig.revive(0)
    assert len(rig.fakes[0].requests) == enough_chunks(INFO)
    assert rig.restarts == 0, "somebody was there all the time"
    assert rig.fakes[0].sessions == {}
    rig.handle.close("a")
    rig.open("c")
    assert "c" in rig.fakes[0].sessions


def test_a_replica_that_makes_films_only_has_nothing_to_walk() -> None:
    fake = FakeHandle(msgspec.structs.replace(INFO, live=False))
    assert walk(fake) == 0 and not fake.opened


def test_the_server_hears_of_the_first_that_is_back_and_warms_it_up() -> None:
    rig = Rig(2)
    for fake in rig.fakes:
        fake.die()
    assert not rig.handle.alive()
    with pytest.raises(WorkerDiedError):
        rig.open("a")
    rig.revive(1)
    assert rig.restarts == 1 and not rig.fakes[1].requests
    rig.open("b")
    assert "b" in rig.fakes[1].sessions


def test_what_is_told_of_the_model_counts_all_of_them() -> None:
    rig = Rig(3)
    one, all_of_them = rig.fakes[0].info, rig.handle.info
    assert (all_of_them.replicas, all_of_them.rings) == (3, 3 * one.rings)
    planned = msgspec.structs.replace(
        all_of_them, budget_bytes=100, weights_bytes=40, session_bytes=20
    )
    assert planned.sessions_that_fit() == 9
    rig.handle.shutdown()
    assert not rig.handle.alive()

"""Sessions on their way along the walk: piece by piece, and what comes in between."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.runtime.fake_engine import PIECES, FakeSession, FakeWorld, open_request
from worldline.core.errors import SessionError, SnapshotError
from worldline.runtime.protocol import (
    BranchRequest,
    CloseReply,
    CloseRequest,
    CountRequest,
    Counts,
    ErrorReply,
    OpenReply,
    Reply,
    Request,
    RewindRequest,
    RewoundReply,
    SavedReply,
    SnapshotRequest,
)
from worldline.runtime.rank import Rank


class Desk:
    """A rank, and what it tells later."""

    def __init__(self) -> None:
        self.rank = Rank(FakeWorld())
        self.told: list[Reply] = []

    def ask(self, request: Request) -> Reply | None:
        return self.rank.answer(request, self.told.append)

    def run(self) -> Reply:
        """Until what is on its way has arrived."""
        while len(self.rank.moves):
            self.rank.advance()
        return self.told[-1]

    def at(self, session_id: str, chunk: int) -> FakeSession:
        """A session that has walked so far."""
        self.ask(open_request(session_id))
        session = self.rank._live[session_id].session
        assert isinstance(session, FakeSession)
        session._index = chunk
        return session

    def counts(self) -> Counts:
        found = self.ask(CountRequest())
        assert isinstance(found, Counts)
        return found


def test_a_rewind_goes_on_between_other_calls() -> None:
    desk = Desk()
    session = desk.at("a", 5)
    assert desk.ask(RewindRequest(session_id="a", chunk=2)) is None
    for _ in range(PIECES):
        desk.rank.advance()
        assert isinstance(desk.ask(open_request(f"b{_}")), OpenReply)
        assert desk.told == [] and session.next_chunk == 5
    reply = desk.run()
    assert isinstance(reply, RewoundReply) and (reply.chunk, reply.rebuilt) == (2, "exact")
    assert session.next_chunk == 2
    counts = desk.counts()
    assert counts.rewinds == 1 and counts.rewinds_ms >= 0


def test_a_call_for_the_session_waits_for_its_rewind() -> None:
    desk = Desk()
    desk.at("a", 5)
    desk.ask(RewindRequest(session_id="a", chunk=4))
    desk.ask(BranchRequest(session_id="a", new_id="b"))
    assert isinstance(desk.told[0], RewoundReply)
    reply = desk.run()
    assert isinstance(reply, OpenReply)
    assert (reply.session_id, reply.next_chunk) == ("b", 4)


@pytest.mark.parametrize("chunk", [-1, 6])
def test_a_place_that_is_none(chunk: int) -> None:
    desk = Desk()
    session = desk.at("a", 5)
    for request in (
        RewindRequest(session_id="a", chunk=chunk),
        BranchRequest(session_id="a", new_id="b", chunk=chunk),
    ):
        assert desk.ask(request) is None
        reply = desk.run()
        assert isinstance(reply, ErrorReply) and reply.code == SnapshotError.code
    assert session.next_chunk == 5 and desk.counts().sessions == 1
    assert desk.counts().rewinds == 0


def test_who_closes_a_session_ends_its_journey() -> None:
    desk = Desk()
    desk.at("a", 5)
    for request in (
        RewindRequest(session_id="a", chunk=0),
        BranchRequest(session_id="a", new_id="b", chunk=0),
    ):
        desk.ask(request)
        desk.rank.advance()
        assert isinstance(desk.ask(CloseRequest(session_id="a")), CloseReply)
        assert isinstance(desk.told[-1], ErrorReply) and len(desk.rank.moves) == 0
        assert desk.counts().sessions == 0
        desk.at("a", 5)


def test_a_name_that_somebody_took_meanwhile() -> None:
    desk = Desk()
    desk.at("a", 5)
    desk.ask(BranchRequest(session_id="a", new_id="b", chunk=1))
    desk.ask(open_request("b"))
    reply = desk.run()
    assert isinstance(reply, ErrorReply) and reply.code == SessionError.code
    assert desk.counts().sessions == 2
    with pytest.raises(SessionError):
        desk.ask(BranchRequest(session_id="a", new_id="b"))


def test_a_light_snapshot_that_does_not_fit_leaves_no_session() -> None:
    desk = Desk()
    light = desk.at("a", 3).light_snapshot()
    good = msgspec.structs.replace(open_request("b"), light=light.encode())
    assert desk.ask(good) is None
    reply = desk.run()
    assert isinstance(reply, OpenReply) and (reply.next_chunk, reply.rebuilt) == (3, "exact")
    others = msgspec.structs.replace(light, weights="others").encode()
    desk.ask(msgspec.structs.replace(open_request("c"), light=others))
    assert isinstance(desk.run(), ErrorReply)
    counts = desk.counts()
    assert (counts.sessions, counts.slots, counts.rebuilds) == (2, 0, 1)


def test_a_file_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    """The session goes on, and may end, while it is written."""
    desk, path = Desk(), str(tmp_path / "a")
    session = desk.at("a", 3)
    assert desk.ask(SnapshotRequest(session_id="a", path=path)) is None
    session._index = 4
    desk.ask(CloseRequest(session_id="a"))
    reply = desk.run()
    assert isinstance(reply, SavedReply)
    assert (reply.chunk, reply.path, reply.bytes) == (3, path, len(Path(path).read_text()))
    assert Path(path).read_text() == "1 3"
    desk.at("a", 3)
    desk.ask(SnapshotRequest(session_id="a", path=str(tmp_path / "nowhere" / "x")))
    reply = desk.run()
    assert isinstance(reply, ErrorReply) and reply.code == SnapshotError.code
    desk.ask(SnapshotRequest(session_id="a", path=path))
    desk.rank.close_all()
    assert isinstance(desk.told[-1], ErrorReply) and len(desk.rank.moves) == 0

"""One writer per socket: groups stay together, the queue is bounded, a gone peer frees everyone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tests.fakes import FakeClock, FakeTransport, settle
from worldline.server.outbox import QUEUE_LIMIT, Outbox, SocketClosed
from worldline.server.waiting import stop

pytestmark = pytest.mark.anyio


class Line:
    """An outbox with its writer running."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.outbox = Outbox(self.transport, FakeClock())
        self.writer = asyncio.create_task(self.outbox.run())


@pytest.fixture
async def line() -> AsyncGenerator[Line]:
    made = Line()
    yield made
    await stop(made.writer)


async def test_nothing_comes_between_a_header_and_its_payload(line: Line) -> None:
    line.transport.open.clear()
    sends = [
        asyncio.create_task(line.outbox.send(b"header", b"payload")),
        asyncio.create_task(line.outbox.send(b"error")),
        asyncio.create_task(line.outbox.send(b"header2", b"payload2")),
    ]
    await settle()
    line.transport.open.set()
    await asyncio.gather(*sends)
    assert line.transport.sent == [b"header", b"payload", b"error", b"header2", b"payload2"]


async def test_a_cancelled_sender_never_leaves_half_a_group(line: Line) -> None:
    line.transport.open.clear()
    send = asyncio.create_task(line.outbox.send(b"header", b"payload"))
    await settle()
    await stop(send)
    line.transport.open.set()
    await line.outbox.send(b"next")
    assert line.transport.sent == [b"header", b"payload", b"next"]


async def test_senders_wait_for_a_slow_reader(line: Line) -> None:
    line.transport.open.clear()
    sends = [asyncio.create_task(line.outbox.send(bytes([i]))) for i in range(50)]
    await settle()
    assert line.outbox.waiting == QUEUE_LIMIT
    assert not any(send.done() for send in sends)
    line.transport.open.set()
    await asyncio.gather(*sends)
    assert line.transport.sent == [bytes([i]) for i in range(50)]


async def test_a_gone_peer_frees_every_sender(line: Line) -> None:
    line.transport.open.clear()
    sends = [asyncio.create_task(line.outbox.send(bytes([i]))) for i in range(50)]
    await settle()
    line.transport.gone = True
    line.transport.open.set()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert {type(result) for result in results} == {SocketClosed}
    with pytest.raises(SocketClosed):
        await line.outbox.close(1000, "")


async def test_nothing_follows_a_close_frame(line: Line) -> None:
    await line.outbox.send(b"last")
    await line.outbox.close(1000, "done")
    with pytest.raises(SocketClosed):
        await line.outbox.send(b"late")
    assert (line.transport.sent, line.transport.closed) == ([b"last"], (1000, "done"))


async def test_an_unexpected_failure_reaches_the_sender_and_ends_the_line(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(data: bytes | memoryview) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(line.transport, "send", broken)
    with pytest.raises(ZeroDivisionError):
        await line.outbox.send(b"x")
    with pytest.raises(SocketClosed):
        await line.outbox.send(b"y")
    assert not line.writer.done()

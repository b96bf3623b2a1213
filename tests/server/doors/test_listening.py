"""Real sockets: what is refused before there is a request, and that tokens leave no trace."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Callable, Generator, Iterable
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.fakes import LIMIT_S
from tests.server.doors.exposed import Exposed, exposed
from tests.server.doors.knocking import BOSS, LIVE, MAINLINE, VISITOR
from worldline.server.doors.listening import GuardedSocket, PatientHttp
from worldline.server.logs import configure_logging

KIB = 1024


@pytest.fixture(scope="module")
def server() -> Generator[Exposed]:
    with exposed(max_connections=40) as running:
        yield running


def live(server: Exposed, *protocols: str, **more: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}{LIVE}"
    offered: Any = ["worldline.v1", *protocols]
    return connect(url, subprotocols=offered, max_size=None, **more)


def say(connection: ClientConnection, **message: Any) -> dict[str, Any]:
    """Send a message; the answer."""
    connection.send(msgspec.msgpack.encode(message))
    return hear(connection)


def hear(connection: ClientConnection) -> dict[str, Any]:
    data = connection.recv(timeout=LIMIT_S)
    assert isinstance(data, bytes)
    return msgspec.msgpack.decode(data)


def close_code(connection: ClientConnection, *, after: Iterable[bytes] = ()) -> int | None:
    """The code of the server's close, during or after a message in these fragments."""
    with pytest.raises(ConnectionClosed) as closed:
        if after:
            connection.send(after)
        while True:
            connection.recv(timeout=LIMIT_S)
    return closed.value.rcvd and closed.value.rcvd.code


def ready_with_sub_protocol(server: Exposed) -> None:
    with live(server, f"bearer.{VISITOR}") as connection:
        assert connection.subprotocol == "worldline.v1"
        assert say(connection, type="hello")["type"] == "ready"


def ready_with_hello(server: Exposed) -> None:
    with live(server) as connection:
        assert say(connection, type="hello", token=VISITOR)["type"] == "ready"


def refused_in_hello(server: Exposed) -> None:
    with live(server) as connection:
        assert say(connection, type="hello", token=f"{VISITOR}x")["code"] == "unauthorized"
        assert close_code(connection) == 4401


def refused_sub_protocol(server: Exposed) -> None:
    with live(server, f"bearer.{VISITOR}x") as connection:
        assert hear(connection)["code"] == "unauthorized"
        assert close_code(connection) == 4401


def mainline_with_header(server: Exposed) -> None:
    headers = {"Authorization": f"Bearer {VISITOR}"}
    url = f"ws://127.0.0.1:{server.port}{MAINLINE}"
    with connect(url, additional_headers=headers, max_size=None) as connection:
        assert say(connection, type="init")["content"] == "invalid generate request"


def mainline_without(server: Exposed) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{server.port}{MAINLINE}?token={VISITOR}")
    assert refused.value.response.status_code == 401


def routes(server: Exposed) -> None:
    url = f"http://127.0.0.1:{server.port}/v1/models"
    assert httpx.get(url).status_code == 401
    assert httpx.get(f"{url}?api_key={VISITOR}").status_code == 401
    headers = {"Authorization": f"Bearer {VISITOR}"}
    assert httpx.get(url, headers=headers).status_code == 200
    assert httpx.get(f"http://127.0.0.1:{server.port}/").status_code == 200


WAYS = [ready_with_sub_protocol, ready_with_hello, refused_in_hello, refused_sub_protocol]
WAYS += [mainline_with_header, mainline_without, routes]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_tokens_work_and_leave_no_trace_in_the_log(
    server: Exposed, way: Callable[[Exposed], None]
) -> None:
    names = ("worldline", "uvicorn")
    before = [(logging.getLogger(n).handlers[:], logging.getLogger(n).level) for n in names]
    log = io.StringIO()
    configure_logging("DEBUG", log)
    try:
        way(server)
    finally:
        for name, (handlers, level) in zip(names, before, strict=True):
            logger = logging.getLogger(name)
            logger.handlers[:], logger.propagate = handlers, True
            logger.setLevel(level)
    assert log.getvalue() or way is routes
    assert VISITOR not in log.getvalue()


def test_before_a_token_a_message_is_small_and_after_it_large(server: Exposed) -> None:
    with live(server) as connection:
        connection.send(bytes(17 * KIB))
        assert close_code(connection) == 1009
    with live(server) as connection:
        say(connection, type="hello", token=VISITOR)
        connection.send(bytes(2000 * KIB))
        assert hear(connection)["type"] == "error"


def test_a_gigabyte_before_a_token_is_refused_by_its_header(server: Exposed) -> None:
    with live(server) as connection:
        # A masked binary frame that says it has 2**30 bytes; not one of them is sent.
        connection.socket.sendall(b"\x82\xff" + (2**30).to_bytes(8, "big") + bytes(4))
        assert close_code(connection) == 1009


def test_fragments_before_a_token_add_up(server: Exposed) -> None:
    with live(server) as connection:
        # More than the socket's buffers hold: a server that stopped reading would reset us.
        assert close_code(connection, after=[bytes(KIB)] * 20_000) == 1009


@pytest.mark.parametrize("beats", [True, False])
def test_a_socket_with_our_own_heartbeat_has_no_other(
    beats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinged: list[str] = []
    schedule = GuardedSocket.schedule_ping

    def note(self: GuardedSocket) -> None:
        pinged.append(self.scope["path"])
        schedule(self)

    monkeypatch.setattr(GuardedSocket, "schedule_ping", note)
    settings: dict[str, Any] = {} if beats else {"heartbeat_s": 0.0}
    with exposed(**settings) as server:
        ready_with_sub_protocol(server)
        mainline_with_header(server)
    assert pinged == ([MAINLINE] if beats else [LIVE, MAINLINE])


def test_compression_is_not_offered_so_nothing_unpacks(server: Exposed) -> None:
    with live(server, f"bearer.{VISITOR}", compression="deflate") as connection:
        assert connection.protocol.extensions == []
        connection.socket.sendall(b"\xc2\x80" + bytes(4))  # says that it is compressed
        assert close_code(connection) == 1002


@pytest.mark.parametrize("head", [b"GET /%b HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: %b\r\n"])
def test_a_head_without_end_is_not_kept(server: Exposed, head: bytes) -> None:
    start, _, _ = head.partition(b"%b")
    with server.raw() as raw:
        raw.sendall(start)
        sent, answer = 0, b""
        try:
            while sent < 256 * 1024 * KIB:
                raw.sendall(b"a" * 64 * KIB)
                sent += 64 * KIB
        except OSError:  # cut, or closed after an answer
            pass
        assert sent < 64 * 1024 * KIB  # what fits into the buffers between us, not a gigabyte
        try:
            answer = raw.recv(KIB)
        except OSError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert httpx.get(f"http://127.0.0.1:{server.port}/healthz").status_code == 200


def test_a_body_that_says_it_is_a_gigabyte_is_not_read(server: Exposed) -> None:
    with server.raw() as raw:
        raw.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
            b"Authorization: Bearer " + VISITOR.encode() + b"\r\n\r\n"
        )
        assert raw.recv(KIB).startswith(b"HTTP/1.1 413")


def test_one_connection_too_many_is_cut(server: Exposed) -> None:
    held: list[socket.socket] = []
    try:
        cut = 0
        for _ in range(60):
            raw = server.raw()
            held.append(raw)
        for raw in held[45:]:
            raw.settimeout(LIMIT_S)
            try:
                cut += raw.recv(1) == b""
            except OSError:
                cut += 1
        assert cut == 15
    finally:
        for raw in held:
            raw.close()


def test_a_proxy_on_this_machine_says_whose_limits_count() -> None:
    with exposed(requests_per_minute=2) as running:
        url = f"http://127.0.0.1:{running.port}/v1/models"
        forwarded = {"X-Forwarded-For": "203.0.113.5"}
        codes = [httpx.get(url, headers=forwarded).status_code for _ in range(3)]
        assert codes == [401, 401, 429]
        other = {"X-Forwarded-For": "203.0.113.6"}
        assert httpx.get(url, headers=other).status_code == 401
        chained = {"X-Forwarded-For": "127.0.0.1, 203.0.113.5"}  # what a peer claims comes first
        assert httpx.get(url, headers=chained).status_code == 429
        assert [httpx.get(url).status_code for _ in range(3)] == [401] * 3


class Loop:
    """Timers that are fired by hand."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay, call))
        return self.timers[-1]

    @property
    def running(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def create_task(self, work: Any) -> Any:
        work.close()
        return Done()


class Done:
    def add_done_callback(self, call: object) -> None:
        """Never done."""


class Timer:
    def __init__(self, delay: float, call: Callable[[], None]) -> None:
        self.delay, self.call, self.cancelled = delay, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Transport:
    """As much of a transport as the protocol looks at."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def get_extra_info(self, name: str) -> Any:
        return None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def slow(limit: int | None = None) -> tuple[PatientHttp, Loop, Transport]:
    loop, transport = Loop(), Transport()

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = uvicorn.Config(app, timeout_keep_alive=7, limit_concurrency=limit, log_config=None)
    protocol = PatientHttp(config, ServerState(), {}, loop)  # pyright: ignore
    protocol.connection_made(transport)  # pyright: ignore
    return protocol, loop, transport


def test_a_head_that_drips_is_cut_in_time() -> None:
    protocol, loop, transport = slow()
    for piece in (b"GET / HT", b"TP/1.1\r\n", b"Host: x\r\n", b"X-Slow: 1\r\n"):
        protocol.data_received(piece)
    (timer,) = loop.running  # the first one still: pieces do not buy time
    assert timer.delay == 7
    timer.call()
    assert transport.aborted


def test_a_connection_that_says_nothing_is_cut_too() -> None:
    _, loop, transport = slow()
    loop.running[0].call()
    assert transport.aborted


def test_a_whole_head_stops_the_timer() -> None:
    protocol, loop, transport = slow()
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert loop.running == []
    loop.timers[0].call()  # fired at the same moment
    assert not transport.aborted


def test_administrators_have_a_port_of_their_own() -> None:
    with exposed(admin=True) as running:
        main, admin = (f"http://127.0.0.1:{port}" for port in (running.port, running.admin))
        boss = {"Authorization": f"Bearer {BOSS}"}
        for path in ("/metrics", "/admin/worlds", "/admin/leaks", "/admin/traces"):
            assert httpx.get(main + path, headers=boss).status_code == 404
            assert httpx.get(admin + path).status_code == 200  # it is on loopback
        assert "worldline_leaked" in httpx.get(f"{admin}/metrics").text
        assert httpx.get(f"{admin}/healthz").status_code == 200
        assert httpx.get(f"{admin}/v1/models").status_code == 404
        elsewhere = {"Origin": "https://evil.example"}
        assert httpx.get(f"{admin}/metrics", headers=elsewhere).status_code == 403
        rebound = {"Host": "evil.example"}
        assert httpx.get(f"{admin}/metrics", headers=rebound).status_code == 403


def test_an_admin_port_that_others_can_reach_asks_for_an_administrator() -> None:
    with exposed(admin=True, admin_host="0.0.0.0") as running:
        url = f"http://127.0.0.1:{running.admin}"
        assert httpx.get(f"{url}/metrics").status_code == 401
        for token, status in ((VISITOR, 403), (BOSS, 200)):
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.get(f"{url}/metrics", headers=headers).status_code == status
            assert httpx.get(f"{url}/v1/traces/x", headers=headers).status_code in (403, 404)
        assert httpx.get(f"{url}/readyz").status_code in (200, 503)

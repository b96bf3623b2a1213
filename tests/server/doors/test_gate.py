"""The doors as a whole: who gets in by which way, what is hidden, and what a refusal looks like."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes import settle
from tests.server.doors.knocking import (
    BOSS,
    LIVE,
    MAINLINE,
    VISITOR,
    Behind,
    Knock,
    behind,
    keyring,
)
from worldline.core.config import ServerConfig
from worldline.core.errors import ConfigError
from worldline.server.doors.keys import Keyring
from worldline.server.doors.policy import policy_of

pytestmark = pytest.mark.anyio

HELLO = {"type": "hello", "version": 1, "client": "test", "formats": ["jpeg"]}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def exposed() -> Behind:
    return behind(keyring())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_nobody_serves_others_without_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="no keys"):
        policy_of(ServerConfig(host=host), Keyring())
    assert policy_of(ServerConfig(host=host), keyring()).keyring.needed


async def test_loopback_is_open_to_programs_and_to_its_own_page() -> None:
    house = behind()
    for headers in ({}, {"origin": "http://127.0.0.1:30000"}):
        answer = await house.ask("/v1/models", host="127.0.0.1:30000", headers=headers)
        assert answer.status_code == 200
    assert house.refused == {}


async def test_a_page_from_elsewhere_does_not_reach_loopback() -> None:
    house = behind()
    headers = {"host": "127.0.0.1:30000", "origin": "https://evil.example"}
    answer = await house.ask("/v1/models", host="127.0.0.1:30000", headers=headers)
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert (await Knock(house, MAINLINE, headers=headers).next())["status"] == 403
    live = Knock(house, LIVE, headers=headers, protocols=["worldline.v1"])
    assert await live.next() == {
        "type": "websocket.accept",
        "subprotocol": "worldline.v1",
        "headers": [],
    }
    said = await live.message()
    assert (said["type"], said["code"], said["fatal"]) == ("error", "forbidden", True)
    assert (await live.next())["code"] == 4403
    assert house.seen == []
    assert house.refused == {"forbidden": 3}


async def test_a_name_pointed_at_loopback_does_not_reach_it() -> None:
    house = behind()
    headers = {"origin": "http://rebound.example:30000"}
    for given in ({}, headers):  # a page's GET of its own origin carries no Origin
        answer = await house.ask("/v1/models", host="rebound.example:30000", headers=given)
        assert answer.status_code == 403
    assert house.seen == []


async def test_an_allowed_page_gets_in_and_may_read() -> None:
    house = behind(allow_origins=("https://friend.example",))
    headers = {"origin": "https://friend.example"}
    answer = await house.ask("/v1/models", host="127.0.0.1:30000", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"
    asks = {**headers, "access-control-request-method": "GET"}
    preflight = await house.ask("/v1/x", "OPTIONS", host="127.0.0.1:30000", headers=asks)
    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    assert len(house.seen) == 1


@pytest.mark.parametrize("path", ["/v1/models", "/v1/traces/x", "/metrics", "/admin/worlds", "/x"])
async def test_an_exposed_server_asks_for_a_token(exposed: Behind, path: str) -> None:
    answer = await exposed.ask(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await exposed.ask(path, headers=bearer("wrong-wrong-wrong-wrong"))).status_code == 401
    assert (await exposed.ask(path, headers=bearer(BOSS))).status_code == 200
    assert len(exposed.seen) == 1


@pytest.mark.parametrize("path", ["/metrics", "/admin/worlds", "/admin"])
async def test_administration_is_for_administrators(exposed: Behind, path: str) -> None:
    assert (await exposed.ask(path, headers=bearer(VISITOR))).status_code == 403
    assert (await exposed.ask("/v1/models", headers=bearer(VISITOR))).status_code == 200
    assert (await exposed.ask("/metricsx", headers=bearer(VISITOR))).status_code == 200


@pytest.mark.parametrize("path", ["/", "/app.js", "/healthz", "/health", "/readyz"])
async def test_the_page_itself_needs_none_but_only_to_be_read(exposed: Behind, path: str) -> None:
    assert (await exposed.ask(path)).status_code == 200
    assert (await exposed.ask(path, "POST")).status_code == 401


@pytest.mark.parametrize(
    "query", [f"token={VISITOR}", f"access_token={VISITOR}", f"api_key={VISITOR}"]
)
async def test_a_token_in_the_url_opens_nothing(exposed: Behind, query: str) -> None:
    assert (await exposed.ask(f"/v1/models?{query}")).status_code == 401
    knock = Knock(exposed, MAINLINE, query=query.encode())
    assert (await knock.next())["status"] == 401


async def test_the_mainline_endpoint_takes_a_header(exposed: Behind) -> None:
    refused = Knock(exposed, MAINLINE)
    assert (await refused.next())["status"] == 401
    old = Knock(exposed, MAINLINE, http_response=False)
    assert (await old.next())["type"] == "websocket.close"
    knock = Knock(exposed, MAINLINE, headers=bearer(VISITOR))
    assert (await knock.next())["type"] == "websocket.accept"
    knock.send(b"init")
    assert await knock.message() == {"client": "key:ann"}
    await knock.leave()


async def test_a_browser_shows_its_token_as_a_sub_protocol(exposed: Behind) -> None:
    knock = Knock(exposed, protocols=["worldline.v1", f"bearer.{VISITOR}"])
    assert (await knock.next())["subprotocol"] == "worldline.v1"
    assert exposed.seen[0]["subprotocols"] == ["worldline.v1"]
    assert VISITOR not in repr(exposed.seen)
    knock.send(HELLO)
    assert await knock.message() == {"client": "key:ann"}
    assert knock.max_message == [ServerConfig().max_message_bytes]
    await knock.leave()


async def test_a_wrong_sub_protocol_token_is_told_in_words(exposed: Behind) -> None:
    knock = Knock(exposed, protocols=["worldline.v1", "bearer.wrong-wrong-wrong"])
    assert (await knock.next())["subprotocol"] == "worldline.v1"
    said = await knock.message()
    assert said["code"] == "unauthorized"
    assert "wrong-wrong" not in repr(said)
    assert (await knock.next())["code"] == 4401
    assert exposed.seen == []


async def test_hello_may_bring_the_token_and_it_goes_no_further(exposed: Behind) -> None:
    knock = Knock(exposed, protocols=["worldline.v1"])
    await knock.next()
    assert knock.max_message == []  # still the listener's small limit
    knock.send({**HELLO, "token": VISITOR})
    assert await knock.message() == {"client": "key:ann"}
    assert knock.max_message == [ServerConfig().max_message_bytes]
    assert VISITOR.encode() not in exposed.heard[0]
    knock.send({"type": "ping", "at_ms": 1.0})
    assert await knock.message() == {"client": "key:ann"}
    await knock.leave()


@pytest.mark.parametrize(
    "first",
    [
        HELLO,
        {**HELLO, "token": None},
        {**HELLO, "token": ""},
        {**HELLO, "token": "wrong-wrong-wrong-wrong"},
        {**HELLO, "token": "x" * 4096},
        {**HELLO, "token": 7},
        {"type": "enter", "prompt": "a lake", "image": b""},
        {"type": "ping", "at_ms": 1.0},
        b"\xc1",
        b"",
        "hello",
        b"\x91" * 5000,
    ],
)
async def test_nothing_else_is_heard_before_a_token(exposed: Behind, first: Any) -> None:
    knock = Knock(exposed, protocols=["worldline.v1"])
    await knock.next()
    knock.send(first)
    assert (await knock.message())["code"] == "unauthorized"
    assert (await knock.next())["code"] == 4401
    await knock.leave()
    assert exposed.heard == [("left", 4401)]
    assert exposed.refused == {"unauthorized": 1}


async def test_too_many_sockets_are_told_when_to_come_back() -> None:
    house = behind(keyring(), sockets_per_minute=3)
    for _ in range(3):
        knock = Knock(house, headers=bearer(VISITOR))
        await knock.next()
        await knock.leave()
    knock = Knock(house, headers=bearer(VISITOR))
    await knock.next()
    said = await knock.message()
    assert (said["code"], said["retryable"]) == ("rate_limited", True)
    assert 0 < said["retry_after_ms"] <= 20_000
    assert (await knock.next())["code"] == 4429
    near = Knock(house, headers=bearer(VISITOR), address=("127.0.0.1", 5))
    assert (await near.next())["type"] == "websocket.accept"  # this machine's own is never limited
    await near.leave()
    await house.clock.advance(20.1)
    again = Knock(house, headers=bearer(VISITOR))
    await again.next()
    again.send(HELLO)
    assert "client" in await again.message()
    await again.leave()


async def test_sockets_of_one_address_are_counted_while_open() -> None:
    house = behind(keyring(), sockets_per_address=2, sockets_per_minute=0)
    knocks = [Knock(house, headers=bearer(VISITOR)) for _ in range(3)]
    for knock in knocks:
        await knock.next()
    assert (await knocks[2].message())["code"] == "rate_limited"
    await knocks[0].leave()
    again = Knock(house, headers=bearer(VISITOR))
    await again.next()
    again.send(HELLO)
    assert "client" in await again.message()
    for knock in (knocks[1], again):
        await knock.leave()


async def test_requests_beyond_the_rate_get_429() -> None:
    house = behind(keyring(), requests_per_minute=2)
    codes = [(await house.ask("/v1/models")).status_code for _ in range(3)]
    assert codes == [401, 401, 429]
    late = await house.ask("/v1/models", headers=bearer(VISITOR))
    assert late.status_code == 429
    assert 1 <= int(late.headers["retry-after"]) <= 30


async def test_a_fast_socket_is_read_slower_and_loses_nothing() -> None:
    house = behind(messages_per_second=10)
    knock = Knock(house, headers={"host": "127.0.0.1:30000"})
    await knock.next()
    for number in range(45):
        knock.send(str(number))
    await settle(500)
    assert len(house.heard) == 40  # four seconds' worth at once
    assert len(house.clock.sleeping) == 1
    for _ in range(5):
        await house.clock.advance(0.11)
        await settle(50)
    assert house.heard == [str(number) for number in range(45)]
    await knock.leave()


async def test_bytes_count_too() -> None:
    house = behind(bytes_per_second=1000, max_message_bytes=2000)
    knock = Knock(house, headers={"host": "127.0.0.1:30000"})
    await knock.next()
    for _ in range(3):
        knock.send(b"x" * 1500)
    await settle(200)
    assert len(house.heard) == 2
    await house.clock.advance(0.51)
    await settle(50)
    assert len(house.heard) == 3
    await knock.leave()


async def test_a_body_has_a_limit() -> None:
    house = behind(max_body_bytes=100)
    small = await house.ask("/v1/x", "POST", host="127.0.0.1", content=b"x" * 100)
    assert small.json()["body"] == 100
    large = await house.ask("/v1/x", "POST", host="127.0.0.1", content=b"x" * 101)
    assert large.status_code == 413


async def test_a_socket_that_shows_no_token_is_given_up_in_time(exposed: Behind) -> None:
    knock = Knock(exposed, protocols=["worldline.v1"])
    await knock.next()
    await exposed.clock.until_sleeping(ServerConfig().head_timeout_s)
    await exposed.clock.advance(ServerConfig().head_timeout_s)
    assert (await knock.message())["code"] == "timed_out"
    assert (await knock.next())["code"] == 4408
    await knock.leave()
    assert exposed.clock.sleeping == []
    assert exposed.refused == {"timed_out": 1}


async def test_who_shows_none_cannot_take_all_places() -> None:
    house = behind(keyring(), max_sockets=4, sockets_per_minute=0)
    strangers = [Knock(house, protocols=["worldline.v1"]) for _ in range(3)]
    for knock in strangers:
        await knock.next()
    assert (await strangers[2].message())["code"] == "rate_limited"
    assert (await strangers[2].next())["code"] == 4429
    known = Knock(house, protocols=["worldline.v1", f"bearer.{VISITOR}"])
    assert (await known.next())["type"] == "websocket.accept"
    strangers[0].send({**HELLO, "token": VISITOR})  # a stranger no more
    assert await strangers[0].message() == {"client": "key:ann"}
    another = Knock(house, protocols=["worldline.v1"])
    await another.next()
    await settle()
    assert len(house.seen) == 4
    for knock in (strangers[0], strangers[1], known, another):
        await knock.leave()

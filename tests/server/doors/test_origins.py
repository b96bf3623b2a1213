"""Host names and origins: every pair here was thought of by somebody with bad intentions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldline.core.errors import ConfigError, ForbiddenError
from worldline.server.doors.origins import check_host, check_origin, origin_rule

LOCAL = origin_rule((), local_only=True)
FRIENDS = origin_rule(("https://Friend.example", "http://localhost:5173"), local_only=True)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:30000",
        "LOCALHOST:1",
        "localhost.",
        "127.0.0.1",
        "127.8.8.8:80",
        "[::1]:30000",
        "[::1]",
        None,
    ],
)
def test_names_of_this_machine(host: str | None) -> None:
    check_host(host, LOCAL)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "0.0.0.0:30000",
        "localhost@evil.example",
        "evil.localhost",
        "[::]",
        "",
        "[::1",
        "127.0.0.1:x",
        "10.0.0.1",
    ],
)
def test_names_of_others(host: str) -> None:
    with pytest.raises(ForbiddenError):
        check_host(host, LOCAL)
    check_host(host, origin_rule((), local_only=False))  # a server with keys has any name


def test_the_host_of_an_allowed_origin_is_known() -> None:
    check_host("friend.example", FRIENDS)
    check_host("friend.example:8443", FRIENDS)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "anything"),
        ("http://127.0.0.1:30000", "127.0.0.1:30000"),
        ("http://localhost", "localhost:80"),
        ("https://play.example", "play.example"),
        ("https://play.example", "play.example:443"),
        ("http://[::1]:30000", "[::1]:30000"),
    ],
)
def test_our_own_page(origin: str | None, host: str) -> None:
    assert check_origin(origin, host, LOCAL) is False


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:30000"),  # another server on this machine
        ("http://localhost:30000", "127.0.0.1:30000"),
        ("https://evil.example", "127.0.0.1:30000"),
        ("null", "127.0.0.1:30000"),
        ("file://", "127.0.0.1:30000"),
        ("http://127.0.0.1:30000.evil.example", "127.0.0.1:30000"),
        ("http://127.0.0.1:30000@evil.example", "127.0.0.1:30000"),
        ("chrome-extension://127.0.0.1:30000", "127.0.0.1:30000"),
        ("http://127.0.0.1:99999", "127.0.0.1:30000"),
        ("http://127.0.0.1:30000", None),
        ("", "127.0.0.1:30000"),
    ],
)
def test_pages_of_others(origin: str, host: str | None) -> None:
    with pytest.raises(ForbiddenError):
        check_origin(origin, host, LOCAL)


def test_allowed_pages() -> None:
    assert check_origin("https://friend.example", "127.0.0.1:1", FRIENDS)
    assert check_origin("http://localhost:5173", "127.0.0.1:1", FRIENDS)
    with pytest.raises(ForbiddenError):
        check_origin("http://friend.example", "127.0.0.1:1", FRIENDS)  # not the same scheme
    everybody = origin_rule(("*",), local_only=True)
    assert check_origin("https://evil.example", "127.0.0.1:1", everybody)
    check_host("evil.example", everybody)


@pytest.mark.parametrize("origin", ["friend.example", "https://friend.example/page", "", "https:"])
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ConfigError, match="no origin"):
        origin_rule((origin,), local_only=True)


NETLOC = st.text(st.sampled_from("localhst127.0:[]@/%evil-x\u0130\u2024 "), max_size=24)
ORIGIN = st.builds("{}{}".format, st.sampled_from(["http://", "https://", "ws://", ""]), NETLOC)


@given(NETLOC, ORIGIN | NETLOC)
def test_no_text_gets_past_that_means_somebody_else(host: str, origin: str) -> None:
    try:
        check_host(host, LOCAL)
    except ForbiddenError:
        pass
    else:
        assert re.fullmatch(r"(localhost\.?|127[\d.]+|\[::1\])(:\d*)?", host, re.ASCII | re.I), host
    try:
        assert check_origin(origin, host, LOCAL) is False
    except ForbiddenError:
        return
    assert origin.split("//")[1].split(":")[0] == host.split(":")[0]

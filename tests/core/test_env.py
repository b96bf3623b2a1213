"""The environment variables: typed, complete, refused when unreadable."""

from __future__ import annotations

import msgspec
import pytest

from worldline.core.env import KNOBS, Env, apply_openmp_policy, openmp_policy, read_env, read_secret
from worldline.core.errors import ConfigError


def test_every_knob_is_described() -> None:
    assert set(KNOBS) == {field.name for field in msgspec.structs.fields(Env)}


def test_nothing_set() -> None:
    assert read_env({}) == Env()


def test_values_are_typed() -> None:
    env = read_env(
        {
            "WORLDLINE_THREADS": "2",
            "WORLDLINE_BROWSER": "false",
            "WORLDLINE_MODE": "fast",
            "WORLDLINE_LOG_LEVEL": "error",
            "OTHER": "x",
        }
    )
    assert env == Env(threads=2, browser=False, mode="fast", log_level="error")


@pytest.mark.parametrize(
    ("name", "value"),
    [("THREADS", "two"), ("MODE", "quick"), ("LOG_LEVEL", "loud"), ("BROWSER", "?")],
)
def test_unreadable_values_are_named(name: str, value: str) -> None:
    with pytest.raises(
        ConfigError, match=f"WORLDLINE_{name}.*got {'.' if value == '?' else value}"
    ):
        read_env({f"WORLDLINE_{name}": value})


def test_the_openmp_policy_leaves_what_the_user_set() -> None:
    environ = {"OMP_WAIT_POLICY": "active"}
    apply_openmp_policy(environ)
    assert environ == {"OMP_WAIT_POLICY": "active", "KMP_BLOCKTIME": "0"}
    assert openmp_policy(3)["OMP_NUM_THREADS"] == "3"


def test_a_secret_is_read_but_not_shown() -> None:
    environ = {"WORLDLINE_API_KEYS": "ann:0123456789abcdef", "WORLDLINE_JWT_SECRET": ""}
    found = read_secret("api_keys", environ)
    assert found is not None and found.reveal() == "ann:0123456789abcdef"
    assert "0123" not in repr(found)
    assert read_secret("jwt_secret", environ) is None

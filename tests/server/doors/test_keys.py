"""Keys, signed tokens and secrets: what opens, what does not, and what never shows."""

from __future__ import annotations

import copy
import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldline.cli.doctor import variables
from worldline.core.errors import ConfigError, UnauthorizedError
from worldline.core.secret import Secret
from worldline.server.doors.clients import Client
from worldline.server.doors.keys import Key, Keyring, new_key, parse_keys, read_keys
from worldline.server.doors.tokens import token_rule

ANN = "ann-secret-0123456789"
SIGNING = Secret("a-signing-secret-of-64-bytes-or-more-" + "x" * 40)


def signed(secret: str = SIGNING.reveal(), algorithm: str = "HS256", **claims: Any) -> str:
    import jwt

    given = {"sub": "ann", "exp": time.time() + 1e6, **claims}
    kept = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(kept, secret, algorithm=algorithm)


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(ANN)
    key = Key("ann", secret)
    for shown in (repr(secret), str(secret), f"{secret:>40}", f"{key}", repr(Keyring([key]))):
        assert ANN not in shown
    assert ANN not in json.dumps({"key": key}, default=str)
    for store in (pickle.dumps, copy.deepcopy, msgspec.json.encode):
        with pytest.raises(TypeError):
            store(secret)
    assert secret.matches(ANN)
    assert not secret.matches(ANN[:-1])


def test_a_key_opens_for_its_owner_only() -> None:
    ring = Keyring([Key("ann", Secret(ANN)), Key("boss", Secret("b" * 20), admin=True)])
    assert ring.who(ANN) == Client("key:ann")
    assert ring.who("b" * 20) == Client("key:boss", admin=True)
    for wrong in ("", ANN + "x", ANN[:-1], ANN.upper(), "b" * 5000, "\ud800", "ключ" * 5):
        with pytest.raises(UnauthorizedError) as caught:
            ring.who(wrong)
        assert not wrong or wrong not in str(caught.value)


def test_keys_are_read_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\nann:{ANN}\nboss:{'b' * 20}:admin\n")
    ann, boss = read_keys(file)
    assert (ann.name, ann.admin, ann.secret.reveal()) == ("ann", False, ANN)
    assert (boss.name, boss.admin) == ("boss", True)


@pytest.mark.parametrize(
    "line",
    [
        f"ann:{ANN}/+=",
        f"ann:{'x' * 257}",
        "ann",
        "ann:",
        "ann:short",
        f":{ANN}",
        f"ann:{ANN}:root",
        f"ann:{ANN} x",
        f"a b:{ANN}",
    ],
)
def test_a_key_that_cannot_be_used_is_named_but_not_shown(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_keys([line], "WORLDLINE_API_KEYS")
    assert "WORLDLINE_API_KEYS, item 1" in str(caught.value)
    assert ANN not in str(caught.value)


def test_files_without_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# none\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("empty", "binary", "missing"):
        with pytest.raises(ConfigError):
            read_keys(tmp_path / name)


def test_one_name_has_one_key() -> None:
    with pytest.raises(ConfigError, match="one name"):
        Keyring([Key("ann", Secret(ANN)), Key("ann", Secret("b" * 20))])


def test_new_keys_differ_and_can_be_used() -> None:
    first, second = new_key("a"), new_key("b")
    assert first.secret.reveal() != second.secret.reveal()
    assert parse_keys([f"a:{first.secret.reveal()}"], "here")[0].secret.matches(
        first.secret.reveal()
    )


def test_a_signed_token_names_its_client() -> None:
    ring = Keyring(rule=token_rule(SIGNING))
    assert ring.needed
    assert ring.who(signed()) == Client("token:ann")
    assert ring.who(signed(admin=True)) == Client("token:ann", admin=True)
    assert ring.who(signed(admin="yes")) == Client("token:ann")


@pytest.mark.parametrize(
    "token",
    [
        signed(exp=time.time() - 60),
        signed(exp=None),
        signed(sub=None),
        signed(sub=""),
        signed(sub="x" * 200),
        signed(sub="x" * 129),
        signed(nbf=time.time() + 3600),
        signed("another-secret-of-many-bytes-" + "x" * 40),
        signed(algorithm="HS384"),
        signed()[:-2],
        signed(aud="somebody-else"),
        "a.b.c",
        "..",
    ],
)
def test_other_signed_tokens_open_nothing(token: str) -> None:
    ring = Keyring(rule=token_rule(SIGNING, audience="worldline"))
    good = signed(aud="worldline")
    assert ring.who(good).name == "token:ann"
    with pytest.raises(UnauthorizedError) as caught:
        ring.who(token)
    assert token not in str(caught.value)


def test_an_unsigned_token_opens_nothing() -> None:
    head = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"  # {"alg":"none","typ":"JWT"}
    body = signed().split(".")[1]
    with pytest.raises(UnauthorizedError):
        Keyring(rule=token_rule(SIGNING)).who(f"{head}.{body}.")


def test_a_short_signing_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="too short"):
        token_rule(Secret("x" * 31))


def test_without_pyjwt_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ConfigError, match="PyJWT"):
        token_rule(SIGNING)


PARTS = st.text(max_size=30) | st.sampled_from(signed().split("."))


@given(st.builds("{}.{}.{}".format, PARTS, PARTS, PARTS) | st.text(max_size=60))
def test_any_text_is_refused_in_words(token: str) -> None:
    ring = Keyring([Key("ann", Secret(ANN))], token_rule(SIGNING))
    try:
        assert ring.who(token).name == "token:ann"  # parts of good ones may find each other
    except UnauthorizedError as error:
        assert len(token) < 12 or token not in str(error)


def test_doctor_says_that_there_is_a_secret_and_not_which() -> None:
    found = {f.name: f.value for f in variables({"WORLDLINE_API_KEYS": f"ann:{ANN}"})}
    assert found["WORLDLINE_API_KEYS"] == "set"
    assert found["WORLDLINE_JWT_SECRET"] == "unset"
    assert ANN not in repr(found)

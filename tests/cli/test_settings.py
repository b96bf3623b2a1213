"""From options, a file and the environment to settings and keys, before any model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worldline.cli.main import parse
from worldline.cli.options import Play, Serve
from worldline.cli.settings import keyring_of, server_config
from worldline.core.config import ServerConfig
from worldline.core.errors import ConfigError

SECRET = "0123456789abcdef-x"
KEYS = {"WORLDLINE_API_KEYS": f"ann:{SECRET}"}


def silent(options: Serve, environ: dict[str, str]) -> Any:
    return keyring_of(options, server_config(options), environ, tell=None)


def test_defaults_are_the_settings_own() -> None:
    assert server_config(Serve()) == ServerConfig()


def test_who_plays_at_home_is_not_hurried(tmp_path: Path) -> None:
    assert server_config(Play()) == ServerConfig(idle_lease_s=0)
    file = tmp_path / "server.toml"
    file.write_text("idle_lease_s = 9")
    assert server_config(Play(config=file)).idle_lease_s == 9


def test_a_world_to_walk_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = server_config(Play(world=Path("walk.wl")))
    assert config.world_file == str(tmp_path / "walk.wl")


def test_a_file_sets_what_no_option_does(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('seats = 5\ngrace_s = 7.5\nport = 4000\nallow_origins = ["https://a.example"]')
    config = server_config(Serve(config=file, port=5000, tls="self-signed"))
    assert (config.seats, config.grace_s, config.port) == (5, 7.5, 5000)
    assert config.allow_origins == ("https://a.example",)
    assert config.tls == "self-signed"
    assert server_config(Serve(config=file, seats=3)).seats == 3


def test_an_option_wins_over_the_file_with_the_default_too(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(
        'host = "0.0.0.0"\nseats = 5\nseat_wait_s = 1\ninit_timeout_s = 1\nwarmup_wait_s = 1\n'
        'admin_host = "0.0.0.0"'
    )
    given = "--host 127.0.0.1 --seats 2 --seat-wait 15 --init-timeout 30 --warmup-wait 120"
    words = [*given.split(), "--admin-host", "127.0.0.1", "--config", str(file)]
    options = parse(["serve", *words])
    assert isinstance(options, Serve)
    assert server_config(options) == ServerConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seets = 3", "seets"),
        ('seats = "three"', "seats"),
        ("seats = 0", "nobody could enter"),
        ("seats = ", "cannot be read"),
        ("grace_s = -1", "grace_s"),
        ("grace_s = nan", "grace_s"),
        ("port = 70000", "no such port"),
        ("admin_port = 70000", "no such port"),
    ],
)
def test_a_file_with_a_mistake_costs_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        server_config(Serve(config=file))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        server_config(Serve(config=tmp_path / "none.toml"))


def test_loopback_needs_no_keys_and_others_do(tmp_path: Path) -> None:
    assert not silent(Serve(), {}).needed
    with pytest.raises(ConfigError, match="no keys"):
        silent(Serve(host="0.0.0.0"), {})
    with pytest.raises(ConfigError, match="no keys"):
        silent(Serve(admin_port=9000, admin_host="0.0.0.0"), {})
    assert silent(Serve(host="0.0.0.0"), KEYS).who(SECRET).name == "key:ann"
    assert silent(Serve(), KEYS).needed  # keys that were given are asked for
    file = tmp_path / "keys"
    file.write_text(f"bob:{SECRET}y\n")
    both = silent(Serve(host="0.0.0.0", api_keys=file), KEYS)
    assert {both.who(SECRET).name, both.who(f"{SECRET}y").name} == {"key:ann", "key:bob"}


def test_a_person_at_a_terminal_is_shown_a_key_for_this_run() -> None:
    told: list[str] = []
    options = Serve(host="0.0.0.0")
    ring = keyring_of(options, server_config(options), {}, tell=told.append)
    (text,) = told
    secret = text.splitlines()[1].strip()
    assert ring.who(secret).admin
    assert secret not in repr(ring)
    assert keyring_of(Serve(), ServerConfig(), {}, tell=told.append).needed is False
    keyring_of(options, server_config(options), KEYS, tell=told.append)
    assert len(told) == 1


def test_signed_tokens(tmp_path: Path) -> None:
    file = tmp_path / "signing"
    file.write_text("a-signing-secret-of-32-bytes-or-more\n")
    assert silent(Serve(host="0.0.0.0", jwt_secret=file), {}).needed
    assert silent(Serve(), {"WORLDLINE_JWT_SECRET": "x" * 32}).needed
    with pytest.raises(ConfigError, match="too short"):
        silent(Serve(), {"WORLDLINE_JWT_SECRET": "x" * 31})
    with pytest.raises(ConfigError, match="cannot be read"):
        silent(Serve(jwt_secret=tmp_path / "none"), {})


def test_origins_are_checked_at_the_start() -> None:
    with pytest.raises(ConfigError, match="no origin"):
        silent(Serve(allow_origin=("example.org",)), {})

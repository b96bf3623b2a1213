"""The set-up script: what it installs, when it skips the work; a dead index stalls nobody."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract import tree


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup", tree.ROOT / "tools" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_playing_needs_neither_tests_nor_real_checkpoints(setup: ModuleType) -> None:
    assert setup.packages(dev=False, wheel=None) == ["-e", ".[video]"]
    wanted = setup.packages(dev=True, wheel=None)
    assert wanted[:2] == ["-e", ".[video,rtc,models]"]
    assert {item.split(">=")[0] for item in wanted[2:]} >= {"pytest", "ruff", "pyright", "loq"}


def test_a_wheel_is_installed_from_its_file(setup: ModuleType, tmp_path: Path) -> None:
    (wanted,) = setup.packages(dev=False, wheel=tmp_path / "worldline-1-py3-none-any.whl")
    assert wanted == f"{tmp_path}/worldline-1-py3-none-any.whl[video]"


def test_groups_include_each_other(setup: ModuleType) -> None:
    groups = {"a": ["x", {"include-group": "b"}], "b": ["y"]}
    assert setup.expand(groups, "a") == ["x", "y"]


@pytest.mark.parametrize(
    ("have", "wanted_dev", "current"),
    [
        ({"key": "k", "dev": False}, False, True),
        ({"key": "k", "dev": True}, False, True),
        ({"key": "k", "dev": False}, True, False),
        ({"key": "old", "dev": True}, False, False),
        (None, False, False),
        ("half a stamp", False, False),
    ],
)
def test_the_stamp_decides_whether_anything_is_installed(
    setup: ModuleType, tmp_path: Path, *, have: object, wanted_dev: bool, current: bool
) -> None:
    stamp = tmp_path / "stamp.json"
    if have is not None:
        stamp.write_text(have if isinstance(have, str) else json.dumps(have))
    assert setup.is_current(stamp, {"key": "k", "dev": wanted_dev}) is current


def test_the_key_follows_the_wheel(setup: ModuleType, tmp_path: Path) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"1")
    first = setup.state_key(wheel)
    wheel.write_bytes(b"2")
    assert len({first, setup.state_key(wheel), setup.state_key(None)}) == 3


def test_an_index_that_accepts_and_never_answers_is_given_up(setup: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert setup.answers(url, 0.2) is False


def test_an_address_where_nobody_listens_is_given_up(setup: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert setup.answers(f"http://127.0.0.1:{port}/", 5.0) is False


def test_a_directory_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    command = [sys.executable, str(tree.ROOT / "tools" / "setup.py"), "--venv", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no virtual environment" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"

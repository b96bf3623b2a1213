"""`serve` and `play`: ports, addresses, and a real server that ends without a trace."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import worlds
from tests.runtime.fake_engine import shared_names
from worldline.cli import serve
from worldline.cli.main import main
from worldline.cli.options import ModelOptions
from worldline.cli.saved import load_for
from worldline.core.config import ServerConfig
from worldline.core.env import Env
from worldline.core.errors import ConfigError
from worldline.core.walked import Walked

RUN = "import sys; from worldline.cli.main import main; sys.exit(main())"


def test_the_next_free_port_unless_one_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(serve, "DEFAULT_PORT", port)
        with serve.bind("127.0.0.1", None) as listener:
            assert port < listener.getsockname()[1] < port + serve.PORTS_TRIED
        with pytest.raises(ConfigError, match=f"port {port}; expected a free port"):
            serve.bind("127.0.0.1", port)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        serve.bind("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="cannot listen on no such host"):
        serve.bind("no such host", 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="not on this system")
def test_the_kernel_holds_little_for_a_slow_reader() -> None:
    with serve.bind("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection:
                held = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
                assert held == serve.UNSENT_BYTES


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:30000/"),
        ("0.0.0.0", "http://127.0.0.1:30000/"),
        ("::", "http://[::1]:30000/"),
        ("a.host", "http://a.host:30000/"),
    ],
)
def test_the_printed_address_can_be_opened_here(host: str, address: str) -> None:
    assert serve.page_address(ServerConfig(host=host)) == address


def test_the_address_leads_to_the_world_that_was_given() -> None:
    address = serve.page_address(ServerConfig(world_file="walk.wl"))
    assert address == "http://127.0.0.1:30000/#world"


def test_a_walk_is_walked_on_with_what_made_it() -> None:
    def load(asked: ModelOptions, /, **made: object) -> ModelOptions:
        return load_for(Walked(worlds.start(), worlds.made(**made)).file(), asked)

    asked = load(ModelOptions(), model="pocket", weights="random-0", options={"kv": "8bit"})
    assert asked == ModelOptions(
        model="pocket", random_weights=True, mode="exact", dtype="float32", threads=1, kv="8bit"
    )
    mine = ModelOptions(model="models/mine", mode="fast", threads=2, lossy=("last_step_kv",))
    kept = load(mine, options={"lossy": ("still_window=9",)})
    assert kept == dataclasses.replace(mine, dtype="float32")
    for model in ("somebody/weights", "/etc", "pocket=/etc", ""):
        with pytest.raises(ConfigError, match="no preset"):
            load(ModelOptions(), model=model)


def test_a_world_that_cannot_be_read_starts_no_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "walk.wl"
    path.write_bytes(b"no world")
    assert main(["play", str(path), "--no-browser"]) == 2
    assert capsys.readouterr().err.startswith("error [world_damaged]: this is no world file")


def test_no_browser_where_none_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not serve.can_open_browser(Env())
    monkeypatch.setenv("DISPLAY", ":0")
    assert serve.can_open_browser(Env())
    assert not serve.can_open_browser(Env(browser=False))
    monkeypatch.setenv("SSH_CONNECTION", "somewhere")
    assert not serve.can_open_browser(Env())


@contextmanager
def playing(repo_root: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A real `play` process in a group of its own, and the address that it printed."""
    command = [sys.executable, "-c", RUN, "play", "--random-weights", "--no-browser"]
    process = subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=repo_root,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        assert " is at http://" in line, process.stderr.read()
        yield process, line.split()[3]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_ends_quietly(
    number: signal.Signals, code: int, repo_root: Path
) -> None:
    with playing(repo_root) as (process, address):
        with urllib.request.urlopen(f"{address}v1/models") as reply:
            assert json.load(reply)["data"][0]["id"] == "pocket"
        os.killpg(process.pid, number)  # as a terminal does: the worker gets it too
        out, err = process.communicate(timeout=30)  # ends when the worker has closed its end
    assert (process.returncode, out, err) == (code, "", "")
    assert not shared_names(process.pid)


def test_a_model_that_cannot_be_loaded_starts_no_server(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, "serve", "--port", "0", "--model", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error [")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the worker in /proc")
def test_a_worker_that_dies_is_replaced_and_warmed_up(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDLINE_LOG_LEVEL", "info")
    with playing(repo_root) as (process, _):
        assert process.stderr is not None
        too_late = threading.Timer(120, process.kill)
        too_late.start()
        events = (json.loads(line)["event"] for line in process.stderr if line.startswith("{"))
        try:
            assert "ready" in events
            os.kill(worker_of(process.pid), signal.SIGKILL)
            assert "ready" in events, "nobody warmed the next one up"
        finally:
            too_late.cancel()


def worker_of(pid: int) -> int:
    """The child process that holds the model."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    ids = [int(name) for file in children for name in file.read_text().split()]
    (worker,) = [i for i in ids if b"spawn_main" in Path(f"/proc/{i}/cmdline").read_bytes()]
    return worker

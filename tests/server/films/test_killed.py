"""A real server killed under its films, at any moment: none is lost, none is made twice.

One kill by default; `WORLDLINE_KILL_SERVERS=20` for as many.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import LIMIT_S
from tests.server.films.filming import picture

pytest.importorskip("av")

KILLS = int(os.environ.get("WORLDLINE_KILL_SERVERS", "1"))
CHUNKS = 20 + 20 * KILLS
MODEL = "still-64x48"  # quick to start, and always makes the same


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server process on the queue in `folder`, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["serve", "--model", MODEL, "--port", str(port), "--films", str(folder)]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "worldline", *command], stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S) as client:
            until(lambda: is_ready(process, client))
            yield process, client
    finally:
        process.kill()
        process.wait(LIMIT_S)


def is_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> bool:
    assert process.poll() is None, "the server has ended"
    with contextlib.suppress(httpx.TransportError):
        return client.get("/readyz").status_code == 200
    return False


def until(done: Any, limit_s: float = 3 * LIMIT_S) -> None:
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def ask(client: httpx.Client, chunks: int) -> str:
    fields = {"prompt": "a gate", "chunks": str(chunks), "actions": "w-40,wl-80"}
    files = {"input_reference": ("start.png", picture())}
    response = client.post("/v1/videos", data=fields, files=files)
    assert response.status_code == 200, response.text
    return response.json()["id"]


def shown(client: httpx.Client, id: str) -> dict[str, Any]:
    return client.get(f"/v1/videos/{id}").json()


def test_films_survive_whatever_ends_the_server(tmp_path: Path) -> None:
    moments = random.Random(KILLS)
    ids: list[str] = []
    for kill in range(KILLS):
        with server(tmp_path) as (process, client):
            ids = ids or [ask(client, CHUNKS), ask(client, 2)]
            at = moments.randint(kill * CHUNKS // KILLS, (kill + 1) * CHUNKS // KILLS - 1)
            until(lambda at=at, client=client, id=ids[0]: shown(client, id)["chunks"] >= at)
            process.send_signal(signal.SIGKILL)
    with server(tmp_path) as (_, client):
        until(lambda: shown(client, ids[1])["status"] == "completed")
        films = [shown(client, id) for id in ids]
        assert [film["status"] for film in films] == ["completed"] * 2
        assert [film["frames"] for film in films] == [12 * CHUNKS - 3, 21]
        survived = client.get(f"/v1/videos/{ids[0]}/content").content
        again = ask(client, CHUNKS)
        until(lambda: shown(client, again)["status"] == "completed")
        assert client.get(f"/v1/videos/{again}/content").content == survived
        assert len(client.get("/v1/videos").json()["data"]) == 3

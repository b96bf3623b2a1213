"""Packaged weights, a worker process, real sockets: two visitors, and bad company beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import worldline
from tests.server.live_server import LiveServer
from worldline.models.pocket import params as pocket
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import WorkerSettings

GALLERY = Path(pocket.__file__).with_name("gallery")
SCRIPTS = {0: [["w"], ["w", "l"], ["l"], []], 1: [["j"], ["s"], ["d", "k"], ["w"]]}
CHUNKS = 4


def start_of(visitor: int) -> dict[str, Any]:
    """A start world of the gallery."""
    return json.loads((GALLERY / "gallery.json").read_text())[visitor]


def init(visitor: int) -> dict[str, Any]:
    """What an old client sends first."""
    world = start_of(visitor)
    return {
        "type": "init",
        "prompt": world["prompt"],
        "first_frame": (GALLERY / world["file"]).read_bytes(),
        "size": "160x96",
        "seed": world["seed"],
        "max_chunks": CHUNKS,
        "condition_inputs": {"camera_actions": SCRIPTS[visitor]},
        "realtime_output_format": "raw",
    }


def alone(visitor: int) -> list[NDArray[np.uint8]]:
    """The frames of the same world in this process, with nobody beside it."""
    world = start_of(visitor)
    picture = np.asarray(Image.open(GALLERY / world["file"]).convert("RGB"))
    loaded = worldline.load("pocket", threads=1)
    with loaded.start(picture, world["prompt"], world["seed"]) as session:
        return [session.step([keys]).frames for keys in SCRIPTS[visitor]]


@pytest.fixture(scope="module")
def worker() -> Generator[WorkerHandle]:
    handle = WorkerHandle.spawn(WorkerSettings(model="pocket", threads=1))
    yield handle
    handle.shutdown()


def walk(server: LiveServer, visitor: int, frames: dict[int, list[bytes]]) -> None:
    """One visitor from init to close."""
    with server.client() as client:
        client.send(init(visitor))
        for _ in range(CHUNKS):
            *batches, _stats = client.chunk()
            frames[visitor].append(b"".join(batch.payload or b"" for batch in batches))
        assert client.closed() == (1000, "generation complete")


def disturb(server: LiveServer) -> None:
    """What no visitor should do, on connections of its own."""
    for nonsense in (b"\xc1", b"\x81", b"not msgpack at all"):
        with server.client() as client:
            client.socket.send(nonsense)
            assert client.error()["content"] == "invalid generate request"
    with server.client() as client:
        client.send(init(0) | {"first_frame": b"\x89PNG broken"})
        assert client.error()["code"] == "invalid_image"


@pytest.mark.timeout(300)
def test_two_visitors_see_what_each_would_see_alone(worker: WorkerHandle) -> None:
    frames: dict[int, list[bytes]] = {0: [], 1: []}
    with LiveServer(worker, seats=2) as server:
        visits = [threading.Thread(target=walk, args=(server, v, frames)) for v in frames]
        for visit in visits:
            visit.start()
        disturb(server)
        for visit in visits:
            visit.join(240)
    for visitor, seen in frames.items():
        assert seen == [chunk.tobytes() for chunk in alone(visitor)]

"""A walk recorded live and replayed by the command in a new process: identical, bit for bit.

WORLDLINE_REPLAYED_CHUNKS sets how long the walk is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.fakes import LIMIT_S
from tests.server.live.test_comings_and_goings import get, wait_for
from tests.server.live_server import LiveServer
from worldline.client import Client, World, WorldOptions
from worldline.models.pocket import params as pocket
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import WorkerSettings

GALLERY: Final = Path(pocket.__file__).with_name("gallery")
CHUNKS: Final = int(os.environ.get("WORLDLINE_REPLAYED_CHUNKS", "12"))
BACK: Final = 4  # chunks that are walked twice

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 5 * CHUNKS)]


def reach(world: World, place: int) -> None:
    """Until so many chunks of the walk were seen."""
    for _ in world.frames():
        if world.stats is not None and world.stats.place >= place:
            return


def walk(world: World) -> None:
    """Keys, a stick, a turn, words, a pause, and a stretch that is walked anew."""
    world.press("w", "l")
    reach(world, CHUNKS // 4)
    world.move(x=0.4, z=-0.3, yaw=0.2)
    world.look(yaw=35.0, pitch=-8.0)
    reach(world, CHUNKS // 2)
    world.prompt("a forest in the evening", blend_chunks=3)
    world.applied(world.press("i"), LIMIT_S)
    world.applied(world.rewind(max(1, CHUNKS // 2 - BACK)), LIMIT_S)
    world.release()
    world.press("a")
    world.pause()
    world.wait(lambda: world.state == "paused", LIMIT_S)
    world.resume()
    reach(world, CHUNKS - 1)


def test_a_walk_recorded_live_is_replayed_identical(tmp_path: Path) -> None:
    handle = WorkerHandle.spawn(WorkerSettings(model="pocket", threads=1))
    start = json.loads((GALLERY / "gallery.json").read_text())[0]
    options = WorldOptions(seed=start["seed"], format="raw")
    path = tmp_path / "walk.wl"
    try:
        with LiveServer(handle, seats=1, warmup_chunks=1) as server:
            wait_for(lambda: get(server.port, "/readyz")[0] == 200, "never ready")
            client = Client(f"http://127.0.0.1:{server.port}")
            image = GALLERY / start["file"]
            with client.world(image, start["prompt"], options=options, realtime=False) as world:
                walk(world)
                path.write_bytes(client.fetch(world.answer(world.save(), LIMIT_S).url))
    finally:
        handle.shutdown()
    script = "import sys; from worldline.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "replay", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["identical"] is True
    assert told["chunks"] >= CHUNKS

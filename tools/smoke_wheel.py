"""Serve one session from an installed worldline and walk through it: `python tools/smoke_wheel.py`.

Run by CI with the Python of an empty environment that holds the wheel only. Starts `worldline
serve`, waits for /readyz, fetches the page, speaks the wire protocol as a client would; exits 1 and
says why if pictures do not arrive, do not change, or the pressed key's id does not come back.
"""

from __future__ import annotations

import argparse
import io
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 240.0
CHUNKS = 6
STOPPED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def main() -> int:
    """Start the server, check it, stop it; the exit status says whether all of it worked."""
    parser = argparse.ArgumentParser(description="serve one session from the installed package")
    parser.add_argument("--model", default="pocket")
    args = parser.parse_args()
    check_origin()
    port = free_port()
    command = [str(Path(sysconfig.get_path("scripts")) / "worldline"), "serve"]
    command += ["--model", args.model, "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(server, port)
            check_page(port)
            walk(port)
        except Exception as error:
            print(f"smoke: FAILED: {error!r}\n--- server ---\n{tail(log)}", flush=True)
            return 1
        finally:
            server.terminate()
            status = server.wait(timeout=60)
    print(f"smoke: server stopped with status {status}", flush=True)
    return 0 if status in STOPPED else 1


def check_origin() -> None:
    """Make sure that the installed package is tried, not the checkout around this file."""
    import worldline

    home = Path(worldline.__file__).resolve()
    if home.is_relative_to(ROOT / "src"):
        raise SystemExit(f"smoke: {home} is the checkout, not an installed wheel")
    print(f"smoke: worldline {worldline.__version__}", flush=True)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    """Poll /readyz until it answers 200; raise if the server ends or takes too long."""
    start = time.monotonic()
    while time.monotonic() - start < READY_SECONDS:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                print(f"smoke: ready after {time.monotonic() - start:.1f} s", flush=True)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise TimeoutError(f"/readyz did not answer 200 within {READY_SECONDS:.0f} s")


def check_page(port: int) -> None:
    """The page must come with the wheel."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as reply:
        body = reply.read().decode()
    if "<script" not in body:
        raise RuntimeError(f"no page at /: {body[:200]!r}")


def walk(port: int) -> None:
    """Start a session from a painted picture, hold W and L, and judge the chunks that come back."""
    init = {"type": "init", "prompt": "a sandy court of tall red columns at noon", "seed": 7}
    init |= {"first_frame": picture(), "max_chunks": CHUNKS}
    press = {"mode": "state", "transitions": [{"actions": ["w", "l"], "client_ts_ms": 1}]}
    event = {"type": "event", "kind": "camera_actions", "payload": press, "event_id": 1}
    url = f"ws://127.0.0.1:{port}/v1/realtime_video/generate"
    chunks: dict[int, list[NDArray[np.uint8]]] = {}
    echoed: set[int] = set()
    with connect(url, max_size=None, compression=None) as ws:
        ws.send(msgspec.msgpack.encode(init))
        ws.send(msgspec.msgpack.encode(event))
        for header, payload in batches(ws):
            frames = np.frombuffer(payload, np.uint8)
            shape = (header["num_frames"], header["height"], header["width"], 3)
            chunks.setdefault(header["chunk_index"], []).append(frames.reshape(shape))
            echoed.add(header.get("event_id", 0))
    judge([np.concatenate(parts) for _, parts in sorted(chunks.items())], echoed)


def batches(ws: ClientConnection) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield header and payload of every frame batch until the server ends the walk."""
    for message in ws:
        assert isinstance(message, bytes), "the server speaks binary only"
        body = msgspec.msgpack.decode(message)
        if body["type"] == "error":
            raise RuntimeError(f"the server answered with an error: {body}")
        if body["type"] == "frame_batch":
            yield body, body["payload"]
        elif body["type"] == "frame_batch_header":
            payload = ws.recv(timeout=60)
            assert isinstance(payload, bytes), "payloads are binary"
            yield body, payload


def judge(chunks: list[NDArray[np.uint8]], echoed: set[int]) -> None:
    """Raise unless every chunk came, the picture moves, and the key's id came back."""
    if len(chunks) != CHUNKS:
        raise RuntimeError(f"expected {CHUNKS} chunks, got {len(chunks)}")
    if 1 not in echoed:
        raise RuntimeError(f"the event id 1 never came back, only {sorted(echoed)}")
    film = np.concatenate(chunks).astype(np.float32)  # F H W 3
    moved = np.abs(film[1:] - film[:-1]).mean(axis=(1, 2, 3))  # F-1
    if not (moved > 0.05).any() or np.abs(film[-1] - film[0]).mean() < 1.0:
        raise RuntimeError(f"the picture stands still: mean changes {moved.round(3).tolist()}")
    print(f"smoke: {len(film)} frames {film.shape[2]}x{film.shape[1]}, they move", flush=True)


def picture() -> bytes:
    """A JPEG with ground, sky and columns, so that a turn shows."""
    canvas = np.zeros((96, 160, 3), np.uint8)
    canvas[:48] = (140, 180, 230)
    canvas[48:] = (200, 170, 120)
    for left in range(10, 160, 30):
        canvas[20:70, left : left + 8] = (170, 60, 50)
    out = io.BytesIO()
    Image.fromarray(canvas).save(out, "JPEG", quality=92)
    return out.getvalue()


def tail(log: IO[bytes]) -> str:
    """The last of what the server printed."""
    log.seek(0)
    return log.read().decode(errors="replace")[-4000:]


if __name__ == "__main__":
    sys.exit(main())

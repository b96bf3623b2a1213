"""From nothing to the first frame: a server is started as `worldline play` starts it, and visited.

Every run is a new process. What lies between two marks is read off the server's own log lines as
they arrive here; the visitor connects as soon as the address is printed and waits like any browser.
Knows nothing about options and imports no torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
from PIL import Image
from websockets.sync.client import connect

from worldline.core.errors import CapacityError, ProtocolError, WorkerDiedError

LIMIT_S = 300.0  # for all of it, on a busy machine, with a large model
STOP_S = 30.0  # its worlds are told first
PATH = "/v1/realtime_video/generate"
ANNOUNCED = re.compile(r" is at http(://\S+)/ ")
# In the order in which they come. The worker's parts are in the log line of the loaded model.
PARTS = ("command", "worker", "imports", "load", "listen", "warm-up", "first chunk")
LOADED, READY, ADDRESS, FRAME = "model loaded", "ready", "address", "frame"
WORKER_PARTS = ("process_ms", "imports_ms", "load_ms")
TOTAL = "first frame"


class StartFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from the start of the process, per part and in all, of every run.

    `cold` is the first run, which may have had to read files from the disk and to compile; `warm`
    the medians of the others.
    """

    arguments: tuple[str, ...]
    runs: tuple[dict[str, float], ...]
    cold: dict[str, float]
    warm: dict[str, float] | None


class _Line(NamedTuple):
    """One line of a server's output, and when it came; `text` of the last one when it `ended`."""

    at: float
    text: str
    ended: bool = False


Lines = queue.SimpleQueue[_Line]


def measure_start(
    arguments: Sequence[str], runs: int, on_run: Callable[[int, int], None] = lambda i, n: None
) -> StartFigures:
    """Start `worldline play ARGUMENTS` `runs` times. Raises: WorkerDiedError, CapacityError."""
    found: list[dict[str, float]] = []
    for run in range(runs):
        found.append(one_start(arguments))
        on_run(run + 1, runs)
    again = found[1:]
    names = [*PARTS, TOTAL]
    warm = {n: round(statistics.median(run[n] for run in again), 1) for n in names if again}
    return StartFigures(
        arguments=tuple(arguments), runs=tuple(found), cold=found[0], warm=warm or None
    )


def one_start(arguments: Sequence[str]) -> dict[str, float]:
    """Milliseconds of each part of one start.

    Raises: WorkerDiedError, CapacityError, ProtocolError.
    """
    start = time.perf_counter()
    seen: list[_Line] = []
    with _server(arguments) as lines:
        while not seen or address_of(seen[-1].text) is None:
            seen.append(_next(lines, start))
        _visit(f"ws{address_of(seen[-1].text)}{PATH}")
        frame = time.perf_counter()
        seen += _waiting(lines)
    return parts_of([(line.at - start, line.text) for line in seen], frame - start)


def parts_of(lines: Sequence[tuple[float, str]], frame: float) -> dict[str, float]:
    """Milliseconds of each part; `lines` are what the server printed, and when, in seconds."""
    marks = {FRAME: frame}
    worker = (0.0, 0.0, 0.0)
    for at, text in lines:
        if address_of(text) is not None:
            marks[ADDRESS] = at
        found = _log_line(text)
        if found.get("event") in (LOADED, READY):
            marks[found["event"]] = at
        if found.get("event") == LOADED:
            worker = tuple(float(found[name]) / 1000 for name in WORKER_PARTS)
    command = marks[LOADED] - sum(worker)
    ends = [marks.get(mark, marks[FRAME]) for mark in (LOADED, ADDRESS, READY, FRAME)]
    later = [end - begin for begin, end in pairwise(ends)]
    spent = [command, *worker, *later]
    parts = {name: round(s * 1000, 1) for name, s in zip(PARTS, spent, strict=True)}
    return {**parts, TOTAL: round(frame * 1000, 1)}


def address_of(line: str) -> str | None:
    """What follows `http` in the line that announces the page; None in any other line."""
    found = ANNOUNCED.search(line)
    return None if found is None or line.startswith("{") else found[1]


def _log_line(text: str) -> dict[str, Any]:
    """A line of the log; empty for any other line."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _visit(address: str) -> None:
    """Open a world and wait for its first frame, as a visitor does. Raises: ProtocolError."""
    init = {
        "type": "init",
        "prompt": "a place to measure",
        "first_frame": picture_file(),
        "realtime_output_format": "jpeg",
        "max_chunks": 1,
    }
    with connect(address, max_size=None, open_timeout=LIMIT_S) as socket:
        socket.send(msgspec.msgpack.encode(init))
        message = _decoded(socket.recv(LIMIT_S))
        if message.get("type") == "frame_batch_header":
            socket.recv(LIMIT_S)  # its payload
        elif message.get("type") != "frame_batch":
            raise ProtocolError("the server sent no frame", got=message)


def _decoded(data: str | bytes) -> dict[str, Any]:
    if isinstance(data, str):
        raise ProtocolError("the server sent text", got=data[:200])
    return msgspec.msgpack.decode(data, type=dict[str, Any])


def picture_file() -> bytes:
    """A small PNG file; what it shows does not change the time."""
    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "PNG")
    return out.getvalue()


def command_line() -> list[str]:
    """How `worldline` is run from here: the installed script, as users do, else this Python."""
    script = Path(sys.executable).with_name("worldline")
    code = "import sys; from worldline.cli.main import main; sys.exit(main())"
    return [str(script)] if script.exists() else [sys.executable, "-c", code]


@contextlib.contextmanager
def _server(arguments: Sequence[str]) -> Generator[Lines]:
    """A server of its own, and its output line by line with the time of each; ended on leaving."""
    quiet = {"WORLDLINE_LOG_LEVEL": "info", "WORLDLINE_BROWSER": "false"}
    process = subprocess.Popen(
        [*command_line(), "play", "--port", "0", *arguments],
        env=os.environ | quiet,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None, "it was started with a pipe"
    lines = Lines()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        end(process)
        reader.join()
        process.stdout.close()


def end(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, then make it."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(stream: IO[str], lines: Lines) -> None:
    last = ""
    for text in stream:
        lines.put(_Line(time.perf_counter(), text))
        last = text
    lines.put(_Line(time.perf_counter(), last, ended=True))


def _next(lines: Lines, start: float) -> _Line:
    rest = max(0.0, LIMIT_S - (time.perf_counter() - start))
    try:
        line = lines.get(timeout=rest)
    except queue.Empty:
        raise CapacityError("no address in time", expected=f"{LIMIT_S:g} s") from None
    if line.ended:
        raise WorkerDiedError("the server ended while starting", got=line.text.strip())
    return line


def _waiting(lines: Lines) -> Generator[_Line]:
    """What has arrived by now."""
    with contextlib.suppress(queue.Empty):
        while not (line := lines.get_nowait()).ended:
            yield line


def as_table(figures: StartFigures) -> str:
    """The figures as lines of text."""
    lines = [f"worldline play {' '.join(figures.arguments)}".rstrip()]
    lines.append(f"  {'':<14}{'first run':>12}" + (f"{'again':>12}" if figures.warm else ""))
    for name in (*PARTS, TOTAL):
        again = "" if figures.warm is None else f"{figures.warm[name]:>9.0f} ms"
        lines.append(f"  {name:<14}{figures.cold[name]:>9.0f} ms{again}")
    return "\n".join(lines)

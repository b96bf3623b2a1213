"""A `worldline serve` of its own for a test: started on a free port, waited for, ended."""

from __future__ import annotations

import http.client
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO
from urllib.parse import urlsplit

START_LIMIT_S = 240.0  # loading and warm-up on a busy machine
STOP_LIMIT_S = 30.0
POLL_S = 0.2


@contextmanager
def serving(arguments: Sequence[str] = ()) -> Generator[str]:
    """Yields the address of a server that is ready. Raises: RuntimeError with its last output."""
    command = [
        sys.executable,
        "-c",
        "import sys; from worldline.cli.main import main; sys.exit(main())",
    ]
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output = _Output(process.stdout)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        address = output.wait_for(r"http://\S+/", deadline)
        _wait_until_ready(address, deadline, output)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            output.close()


class _Output:
    """Reads a process's output all the time, so that it never blocks on a full pipe."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None, "the process was started with a pipe"
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, pattern: str, deadline: float) -> str:
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"no line like {pattern} in time:\n{self.tail()}") from None
            if line is None:
                raise RuntimeError(f"the server ended while starting:\n{self.tail()}")
            if found := re.search(pattern, line):
                return found[0]

    def tail(self) -> str:
        return "".join(self.seen[-30:])

    def close(self) -> None:
        self._thread.join()
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            self.seen.append(line)
            self._lines.put(line)
        self._lines.put(None)


def _wait_until_ready(address: str, deadline: float, output: _Output) -> None:
    """Poll `/readyz` until it answers 200: the server is then warm."""
    place = urlsplit(address)
    assert place.hostname is not None, "the address was printed by the server"
    status = 0
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
        try:
            connection.request("GET", "/readyz")
            status = connection.getresponse().status
        finally:
            connection.close()
        if status == 200:
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"/readyz answered {status} until the end:\n{output.tail()}")

"""A `worldline serve` of its own for a measurement: started on a free port, waited for, ended."""

from __future__ import annotations

import http.client
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import IO, Final
from urllib.parse import urlsplit

from worldline.bench.start import LIMIT_S, address_of, command_line, end
from worldline.core.errors import CapacityError, WorkerDiedError

POLL_S: Final = 0.2


@contextmanager
def own_server(arguments: Sequence[str]) -> Generator[str]:
    """The address of a warm server. Raises: WorkerDiedError, CapacityError."""
    process = subprocess.Popen(
        [*command_line(), "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None, "it was started with a pipe"
    output = _Output(process.stdout)
    try:
        ends = time.monotonic() + LIMIT_S
        address = output.address(ends)
        while not _ready(address):
            if process.poll() is not None:
                raise WorkerDiedError("the server ended while starting", got=output.last)
            if time.monotonic() > ends:
                raise CapacityError("the server is not ready in time", expected=f"{LIMIT_S:g} s")
            time.sleep(POLL_S)
        yield address
    finally:
        end(process)
        output.close()


class _Output:
    """Reads a process's output all the time, so that it never blocks on a full pipe."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._found: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=5)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def last(self) -> str:
        """The last lines."""
        return " | ".join(line.strip() for line in self._tail)

    def address(self, ends: float) -> str:
        """Wait for the line that names it."""
        try:
            found = self._found.get(timeout=max(0.0, ends - time.monotonic()))
        except queue.Empty:
            raise CapacityError("no address in time", expected=f"{LIMIT_S:g} s") from None
        if found is None:
            raise WorkerDiedError("the server ended while starting", got=self.last)
        return f"http{found}"

    def close(self) -> None:
        """After the process has ended."""
        self._thread.join()
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            self._tail.append(line)
            if (found := address_of(line)) is not None:
                self._found.put(found)
        self._found.put(None)


def _ready(address: str) -> bool:
    """Whether it is warm."""
    place = urlsplit(address)
    assert place.hostname is not None, "the address was printed by the server"
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()

"""Plain pages for a browser: a tiny HTTP server on loopback, gone with its test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def answering(handler: Callable[..., BaseHTTPRequestHandler]) -> Generator[str]:
    """The origin of a server whose requests are answered by `handler`."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def one_page(html: bytes) -> Generator[str]:
    """The origin of a server that answers everything with `html`."""
    with answering(partial(_OnePage, html)) as origin:
        yield origin


class Silent(BaseHTTPRequestHandler):
    """Keeps its requests out of a test's output."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class _OnePage(Silent):
    def __init__(self, html: bytes, *request: Any) -> None:
        self._html = html
        super().__init__(*request)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self._html)

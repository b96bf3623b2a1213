"""Shared by all tests: quiet threads, no network, recorded references, what CI must not skip."""

from __future__ import annotations

import os

# Before torch can be imported: a test run shares the machine with what it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"

import ipaddress
import socket
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
IN_TREE = ROOT / "tests" / "parity" / "data"
WHOLE = ROOT.parent / "shared" / "golden"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The server runs on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The recorded references: the whole directory where it lies beside the checkout, else ours."""
    return WHOLE if WHOLE.is_dir() else IN_TREE


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """Find one recorded file by name, in the tree first; skips where only the whole set has it."""

    def find(name: str) -> Path:
        for folder in (IN_TREE, WHOLE):
            if (folder / name).is_file():
                return folder / name
        pytest.skip(f"{name} is not among the references in tests/parity/data")

    return find


@pytest.fixture(autouse=True)
def same_environment() -> Generator[None]:
    """Put back what a test, or a command run in this process, did to the environment."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Generator[None]:
    """Refuse connections that would leave the machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def checked_connect(sock: socket.socket, address: Any) -> None:
        refuse_outside(sock, address)
        return connect(sock, address)

    def checked_connect_ex(sock: socket.socket, address: Any) -> int:
        refuse_outside(sock, address)
        return connect_ex(sock, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", checked_connect)
        patch.setattr(socket.socket, "connect_ex", checked_connect_ex)
        yield


def refuse_outside(sock: socket.socket, address: Any) -> None:
    """Raise for an internet address that is not this machine's loopback."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = str(address[0])
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        raise RuntimeError(f"a test tried to reach {address}")


def browser_required() -> bool:
    """Whether a skipped browser test counts as a failure (CI sets this)."""
    return os.environ.get("WORLDLINE_REQUIRE_BROWSER") == "1"


@cache
def required_cases() -> tuple[str, ...]:
    """The tests that must run, from the file that CI let `tools/ci/cases.py` write."""
    path = os.environ.get("WORLDLINE_REQUIRE_CASES")
    return tuple(Path(path).read_text(encoding="utf-8").split()) if path else ()


def is_part(item: pytest.Item, node: str) -> bool:
    """Whether a test is the node that is named, or one of its tests or parameters."""
    return item.nodeid == node or item.nodeid.startswith((f"{node}::", f"{node}["))


def pytest_collection_finish(session: pytest.Session) -> None:
    if browser_required() and not any(item.get_closest_marker("browser") for item in session.items):
        raise pytest.UsageError("no browser test was collected, but one is required")
    for node in required_cases():
        if not any(is_part(item, node) for item in session.items):
            raise pytest.UsageError(f"{node} was not collected, but this case is required")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    if not report.skipped:
        return report
    if browser_required() and item.get_closest_marker("browser"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but a browser is required: {report.longrepr}"
    elif any(is_part(item, node) for node in required_cases()):
        report.outcome = "failed"
        report.longrepr = f"skipped, but this case is required: {report.longrepr}"
    return report

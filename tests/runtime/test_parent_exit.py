"""A parent that ends, in whatever way, leaves no worker process and no shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.fake_engine import shared_names

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

PARENT = """
import os, pathlib, signal, sys, threading
from tests.runtime import fake_engine
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import StepRequest

def main():
    handle = WorkerHandle.spawn(fake_engine.settings())
    handle.open(fake_engine.open_request("a"))
    result = step(handle, 0)
    print(os.getpid(), handle.pid, flush=True)
    {how}

def step(handle, index, prompt=None):
    return handle.step(
        StepRequest(session_id="a", chunk_index=index, actions=((), ()), prompt=prompt)
    )

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    "how",
    [
        "return",
        "raise SystemExit(3)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_a_parent_that_ends_leaves_no_worker_and_no_memory(
    how: str, tmp_path: Path, repo_root: Path
) -> None:
    done = run_parent(how, tmp_path, repo_root)
    assert "leaked" not in done.stderr and "Traceback" not in done.stderr
    parent, worker = map(int, done.stdout.split())
    assert not shared_names(parent)
    assert_gone(worker)


def run_parent(how: str, tmp_path: Path, repo_root: Path) -> subprocess.CompletedProcess[str]:
    """Run a process that starts a worker and then ends in the given way."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(how=how))
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(repo_root), str(repo_root / "src")])}
    # Reading both streams to their end waits for the worker too: it has inherited them.
    return subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_parent_killed_while_the_worker_computes(tmp_path: Path, repo_root: Path) -> None:
    """The slot still has a name then; the resource tracker removes it, and says so."""
    how = (
        f"path = pathlib.Path({str(tmp_path / 'never')!r}); "
        "threading.Thread(target=step, args=(handle, 1, f'wait {path}'), daemon=True).start(); "
        "fake_engine.wait_for_file(fake_engine.started(path)); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = run_parent(how, tmp_path, repo_root)
    parent, worker = map(int, done.stdout.split())
    assert not shared_names(parent)
    assert_gone(worker)


def assert_gone(pid: int) -> None:
    """The process has ended (its new parent may not have collected it yet)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return
    assert state == "Z"

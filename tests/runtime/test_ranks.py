"""Several ranks of one worker, around a fake engine: alike in all they do, and ended as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.runtime import fake_ranks
from tests.runtime.fake_engine import (
    CHUNK,
    open_request,
    shared_names,
    started,
    wait_for_file,
)
from tests.runtime.test_parent_exit import assert_gone
from worldline.core.errors import CheckpointError, ControlError, PromptError, WorkerDiedError
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import StepRequest
from worldline.runtime.ranks import Accord
from worldline.runtime.supervisor import SupervisedHandle

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")

IDLE = ((),) * CHUNK


def step(handle: WorkerHandle | SupervisedHandle, index: int, prompt: str | None = None) -> int:
    """One pixel of a session's next chunk."""
    request = StepRequest(session_id="a", chunk_index=index, actions=IDLE, prompt=prompt)
    with handle.step(request) as result:
        return int(result.frames[0, 0, 0, 0])


def meetings(pid: int) -> list[Path]:
    """Folders in which ranks of a parent have met and that nobody has removed."""
    return list(Path(tempfile.gettempdir()).glob(f"worldline-ranks-{pid}-*"))


@pytest.fixture
def workers() -> Generator[list[WorkerHandle]]:
    """Workers that a test starts; afterwards no process, memory or folder of theirs is left."""
    made = list[WorkerHandle]()
    yield made
    for handle in made:
        handle.shutdown()
        for pid in handle.pids:
            assert_gone(pid)
    assert not shared_names()
    assert not meetings(os.getpid())


@pytest.fixture
def three(workers: list[WorkerHandle]) -> WorkerHandle:
    """A worker of three ranks with an open session, two chunks old."""
    workers.append(WorkerHandle.spawn(fake_ranks.settings(3)))
    workers[0].open(open_request("a", seed=5))
    assert [step(workers[0], i) for i in range(2)] == [5, 6]
    return workers[0]


def test_all_ranks_are_asked_for_the_same(workers: list[WorkerHandle], tmp_path: Path) -> None:
    """What rank 0 decides by itself too: when to move a piece, when to prepare."""
    handle = WorkerHandle.spawn(fake_ranks.settings(3, f"note {tmp_path / 'notes'}"))
    workers.append(handle)
    handle.open(open_request("a", seed=7))
    handle.open(open_request("b", seed=9))
    actions = (("w", "j"), ("a",))
    with handle.step(StepRequest(session_id="a", chunk_index=0, actions=actions)):
        pass
    for bad, error in ((("?",), ControlError), ((), PromptError)):
        prompt = None if bad else "refuse"
        request = StepRequest(session_id="a", chunk_index=1, actions=(bad, ()), prompt=prompt)
        with pytest.raises(error):
            handle.step(request)
    handle.park("b")
    assert step(handle, 1, "a new prompt") == 8
    handle.unpark("b")
    handle.reset("a", 3)
    assert step(handle, 0) == 3
    handle.close("a")
    handle.close("b")
    assert handle.counts().sessions == 0
    handle.shutdown()
    notes = [(tmp_path / f"notes.{rank}").read_text() for rank in range(3)]
    assert notes[0] == notes[1] == notes[2]
    for word in ("start 7", "('w', 'j')", "move True", "prepare", "a new prompt", "reset 3"):
        assert word in notes[0]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_dies_ends_them_all(three: WorkerHandle, rank: int) -> None:
    os.kill(three.pids[rank], signal.SIGKILL)
    three.wait_until_ended()
    with pytest.raises(WorkerDiedError) as caught:
        step(three, 2)
    assert caught.value.got == f"rank {rank}: signal SIGKILL"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_in_the_middle_of_a_chunk(
    three: WorkerHandle, rank: int, tmp_path: Path
) -> None:
    """The others wait in vain for it, as in a collective."""
    never = tmp_path / "never"
    results: list[BaseException] = []

    def walk() -> None:
        try:
            step(three, 2, f"wait {never}")
        except BaseException as error:
            results.append(error)

    walking = threading.Thread(target=walk)
    walking.start()
    wait_for_file(started(never))
    os.kill(three.pids[rank], signal.SIGKILL)
    walking.join()
    (error,) = results
    assert isinstance(error, WorkerDiedError) and error.got == f"rank {rank}: signal SIGKILL"
    assert not three.alive()


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("rank1 exit now", "rank 1: exit code 7"),
        ("rank2 raise now", "rank 2: exit code 70"),
        ("rank1 refuse it", "rank 1: error invalid_prompt"),
        ("rank1 drift", "chunk 2, path"),
        ("rank0 left alone", "rank 0: exit code 75"),
    ],
)
def test_a_rank_that_does_something_else_ends_them_all(
    three: WorkerHandle, prompt: str, said: str
) -> None:
    """Whoever fails by itself has not done what the others did: none of them can go on."""
    with pytest.raises(WorkerDiedError) as first:
        for index in (2, 3):  # rank 0 may have answered before another was heard
            step(three, index, prompt if index == 2 else None)
            three.wait_until_ended()
    assert said in str(first.value)


@pytest.mark.parametrize("rank", [1])
def test_a_rank_that_hangs_is_found(three: WorkerHandle, rank: int) -> None:
    """Stopped at once and for good, as a driver does it that never comes back."""
    step(three, 2, "rank9 hang")  # so that the place is known, and not cold
    three.reset("a")
    for index in range(2):
        step(three, index)
    with pytest.raises(WorkerDiedError) as caught:
        step(three, 2, f"rank{rank} hang")
        three.wait_until_ended()
        step(three, 3)
    assert caught.value.got is not None
    assert caught.value.got.startswith(f"rank {rank} did not get on for ")


def test_a_stopped_rank_that_was_idle_is_found_when_it_is_needed(three: WorkerHandle) -> None:
    os.kill(three.pids[2], signal.SIGSTOP)
    with pytest.raises(WorkerDiedError, match="rank 2 did not get on"):
        step(three, 2)
        three.wait_until_ended()
        step(three, 3)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_load_says_why(workers: list[WorkerHandle], rank: int) -> None:
    handle = WorkerHandle(fake_ranks.settings(2, f"broken{rank} weights"))
    workers.append(handle)
    with pytest.raises(CheckpointError, match="got weights"):
        handle.wait_until_loaded()


def test_a_rank_that_dies_while_it_loads(workers: list[WorkerHandle]) -> None:
    handle = WorkerHandle(fake_ranks.settings(2, "dies1"))
    workers.append(handle)
    with pytest.raises(WorkerDiedError, match="rank 1: exit code 9"):
        handle.wait_until_loaded()


def test_others_take_over(workers: list[WorkerHandle]) -> None:
    settings, ready = fake_ranks.settings(2), threading.Semaphore(0)

    def start() -> WorkerHandle:
        workers.append(WorkerHandle(settings))
        return workers[-1]

    workers.append(WorkerHandle.spawn(settings))
    handle = SupervisedHandle(workers[0], start, pause=lambda _: False, on_restart=ready.release)
    handle.open(open_request("a", seed=1))
    assert step(handle, 0) == 1
    os.kill(workers[0].pids[1], signal.SIGKILL)
    assert ready.acquire(timeout=30)
    with pytest.raises(WorkerDiedError, match="rank 1"):
        step(handle, 1)
    handle.close("a")
    handle.open(open_request("a", seed=2))
    assert step(handle, 0) == 2
    handle.shutdown()


PARENT = """
import os, pathlib, signal, sys, threading
from tests.runtime import fake_engine, fake_ranks
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import StepRequest

if __name__ == "__main__":
    handle = WorkerHandle.spawn(fake_ranks.settings(3))
    handle.open(fake_engine.open_request("a"))
    step = StepRequest(session_id="a", chunk_index=0, actions=((), ()))
    handle.step(step).release()
    print(os.getpid(), *handle.pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_parent_that_is_killed_leaves_no_rank(tmp_path: Path, repo_root: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(repo_root), str(repo_root / "src")])}
    done = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    parent, *ranks = map(int, done.stdout.split())
    assert len(ranks) == 3
    for pid in ranks:
        assert_gone(pid)
    assert not shared_names(parent)
    assert not meetings(parent)


def test_an_accord_forgets_what_all_have_said() -> None:
    accord = Accord(3)
    assert accord.hear(1, 7, "chunk 0") is None
    assert accord.hear(0, 7, "chunk 0") is None
    assert accord.hear(2, 7, "chunk 0") is None
    assert accord.hear(2, 7, "chunk 1") is None, "another call of that number would be another"
    wrong = accord.hear(0, 7, "chunk 2")
    assert wrong is not None and "rank 0: chunk 2; rank 2: chunk 1" in wrong

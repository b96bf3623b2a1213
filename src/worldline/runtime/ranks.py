"""The processes of one worker, parent side: started together, watched, and ended together.

One rank that dies, gets on no more (`progress`), fails to load or does not do what the others do
ends them all: what is left of a chunk that was cut among them is of no use. Knows nothing of calls
and sessions; the handle that owns it is told once, before anything is waited for. Torch-free.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Final

from worldline.core.clock import Clock, MonotonicClock
from worldline.runtime import protocol, spawn
from worldline.runtime.progress import Watch
from worldline.runtime.protocol import Answer, ErrorReply, Outcome, WorkerSettings, outcome_of
from worldline.runtime.worker import LEFT, passes_of

LOOK_S: Final = 0.1  # between two looks at the stamps
_EXIT_LIMIT_S: Final = 5.0
_Outcomes = dict[int, dict[int, str]]  # by call and rank


class Accord:
    """Whether every rank says the same of each call; pure."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._open: _Outcomes = {}

    def hear(self, rank: int, call: int, outcome: str) -> str | None:
        """What is wrong, once two of them say different things."""
        said = self._open.setdefault(call, {})
        said[rank] = outcome
        if len(set(said.values())) > 1:
            told = "; ".join(f"rank {who}: {what}" for who, what in sorted(said.items()))
            return f"the ranks disagree about a call: {told}"
        if len(said) == self._size:
            del self._open[call]
        return None


class Ranks:
    """Running from the moment it is made until `end`. `pipe` is that of rank 0."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        sent: Callable[[], int],
        on_trouble: Callable[[], None],
        on_refusal: Callable[[ErrorReply], None],
        clock: Clock | None = None,
    ) -> None:
        """`sent` counts the calls that went to rank 0.

        `on_trouble` is called when they are to be ended though none has ended by itself,
        `on_refusal` when a rank could not load; both from threads of ours.
        """
        self._sent, self._on_trouble, self._on_refusal = sent, on_trouble, on_refusal
        self._clock = clock or MonotonicClock()
        self._started = spawn.start_ranks(settings)
        self._processes, self._pipes = self._started.processes, self._started.pipes
        self._accord = Accord(passes_of(settings))
        self._lock = threading.Lock()  # guards the accord and the reason
        self._reason: str | None = None
        self._gone: set[object] = set()  # sentinels of who had ended when the first was missed
        self._ending = threading.Event()
        followers = range(1, len(self._processes))
        self._threads = [
            threading.Thread(target=self._read, args=(rank,), name=f"rank-{rank}", daemon=True)
            for rank in followers
        ]
        self._threads.append(threading.Thread(target=self._watch, name="rank-watch", daemon=True))
        self.pipe = self._pipes[0]
        self.pids = [spawn.pid_of(process) for process in self._processes]

    def start(self) -> None:
        """Begin to listen and to watch, once the owner can be told."""
        for thread in self._threads:
            thread.start()

    def hear(self, answer: Answer) -> None:
        """What rank 0 has answered: the others are to have done the same."""
        outcome = outcome_of(answer.body)
        if outcome is not None and answer.id != protocol.UNASKED:
            self._compare(0, answer.id, outcome)

    def expect_end(self) -> None:
        """From here on nobody is blamed for ending."""
        self._ending.set()

    def kill(self) -> None:
        """End all of them now; does not wait."""
        self._ending.set()
        with contextlib.suppress(ValueError):  # they have ended long ago
            for process in self._processes:
                process.kill()

    def end(self) -> None:
        """Wait for rank 0, which is ending, and end the others; they may have a moment if it went
        in good order. Called by one thread: waiting in two loses exit codes."""
        leader, *others = self._processes
        leader.join(_EXIT_LIMIT_S)  # the pipe ends a moment before the process
        if leader.exitcode == 0:
            for process in others:
                process.join(_EXIT_LIMIT_S)
        ended = self._ended()
        self.kill()
        for process in self._processes:
            process.join()
        with self._lock:
            self._reason = self._reason or self._how(self._gone or ended)
        for thread in self._threads:
            thread.join()
        for pipe in self._pipes[1:]:
            pipe.close()
        for process in self._processes:
            process.close()
        if self._started.meeting is not None:
            shutil.rmtree(self._started.meeting, ignore_errors=True)

    def why(self) -> str:
        """How they ended, in words."""
        with self._lock:
            return self._reason or "no exit code"

    def _ended(self) -> set[object]:
        return set(wait([process.sentinel for process in self._processes], timeout=0))

    def _how(self, ended: set[object]) -> str:
        """Of those that ended by themselves the one that did not merely follow another."""
        told = [
            (rank, process.exitcode)
            for rank, process in enumerate(self._processes)
            if process.sentinel in ended
        ]
        first = next((one for one in told if one[1] != LEFT), (told or [(0, None)])[0])
        how = spawn.describe_exit(first[1])
        return how if len(self._processes) == 1 else f"rank {first[0]}: {how}"

    def _read(self, rank: int) -> None:
        """Thread: what another rank than 0 says, until it has ended."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                answer = protocol.decode_answer(self._pipes[rank].recv_bytes())
                if isinstance(answer.body, Outcome):
                    self._compare(rank, answer.id, answer.body.what)
                elif isinstance(answer.body, ErrorReply):
                    self._on_refusal(answer.body)
        wait([self._processes[rank].sentinel], _EXIT_LIMIT_S)
        self._trouble(None)

    def _compare(self, rank: int, call: int, outcome: str) -> None:
        with self._lock:
            wrong = self._accord.hear(rank, call, outcome)
        if wrong is not None:
            self._trouble(wrong)

    def _watch(self) -> None:
        """Thread: look at the stamps until the end."""
        watch = Watch(self._started.board, len(self._processes))
        before = self._clock.now()
        while not self._ending.wait(LOOK_S):
            now = self._clock.now()
            # Where we were not there to look, nobody is to blame for that time.
            stall = watch.look(min(now - before, 2 * LOOK_S), self._sent())
            before = now
            if stall is not None:
                return self._trouble(str(stall))

    def _trouble(self, reason: str | None) -> None:
        """Tell the owner and end them all; None: a rank has ended, which its exit code tells."""
        if self._ending.is_set():
            return
        with self._lock:
            self._reason = self._reason or reason
            self._gone = self._gone or self._ended()
        if reason is not None:  # now: what hangs may take its time to end
            self._on_trouble()
        with contextlib.suppress(ValueError):  # it has ended meanwhile
            self._processes[0].kill()  # whoever reads its pipe calls `end`

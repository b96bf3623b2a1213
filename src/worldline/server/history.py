"""The walk of one session: what each chunk was asked for, and the newest place to go on from.

Kept by the server and not by the worker, so that it outlives the worker: from it a session is made
again on another one (`server.recovery`), and from it a world file is written. Both dialects use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from worldline.core.chunk import PICTURES
from worldline.core.snapshot import LightSnapshot, decode_chunk, decode_snapshot
from worldline.core.walk import Stepped
from worldline.runtime.handle import StepResult
from worldline.runtime.protocol import OpenReply, Rebuilt, RewoundReply, StepRequest

WHOLE_BYTES: Final = 64 * 2**20  # of latents
REBUILD_S: Final = 5.0  # of context passes: so long, a lost world comes back bit for bit


class History:
    """Of a session that began under `prompt`. `place` is the chunk that comes next.

    `exact` says that what was seen is what the walk gives when it is walked again: no longer once
    the session was brought back from its window alone.
    """

    def __init__(self, prompt: str, steps: Sequence[Stepped] = ()) -> None:
        self.first_prompt = prompt
        self.exact = True
        self._steps = list(steps)
        self._context_s = 0.0  # of one chunk
        self._start: LightSnapshot | None = None
        self._light: LightSnapshot | None = None

    @property
    def place(self) -> int:
        """How many chunks were walked; the index of the next."""
        return len(self._steps)

    @property
    def prompt(self) -> str:
        """The words in force now, or where a blend is heading."""
        said = (step.prompt for step in reversed(self._steps) if step.prompt is not None)
        return next(said, self.first_prompt)

    @property
    def steps(self) -> Sequence[Stepped]:
        """What every chunk was asked for."""
        return self._steps

    @property
    def light(self) -> LightSnapshot | None:
        """The newest snapshot, of this place or an earlier one."""
        return self._light

    @property
    def to_open(self) -> LightSnapshot | None:
        """The newest snapshot, whole where making all of it again takes no longer than that."""
        light = self._light
        if light is None or not light.next_chunk:
            return None
        whole = light.is_whole and len(light.chunks) * self._context_s <= REBUILD_S
        return light if whole else light.trimmed()

    @property
    def nbytes(self) -> int:
        """Bytes of the snapshot's numbers."""
        return 0 if self._light is None else self._light.nbytes

    def opened(self, reply: OpenReply) -> None:
        """The session was opened, for the first time or again, where the walk stands or before."""
        self._mark(reply.rebuilt)
        if not reply.light:
            self._light = None
        elif reply.next_chunk == 0:
            self._begin(decode_snapshot(reply.light))
        elif self._light is None or self._light.next_chunk != reply.next_chunk:
            self._light = decode_snapshot(reply.light)

    def rewound(self, reply: RewoundReply) -> None:
        """The session stands before an earlier chunk; what came after is forgotten."""
        self._mark(reply.rebuilt)
        self._cut(reply.chunk)
        if reply.light and (self._light is None or self._light.next_chunk != reply.chunk):
            self._light = decode_snapshot(reply.light)

    def made(self, step: StepRequest, result: StepResult) -> Stepped:
        """The chunk of `step` was made, the next one."""
        assert step.chunk_index == self.place, f"chunk {step.chunk_index} after {self.place}"
        timings = result.timings
        self._context_s = (timings.context_ms + timings.conditions_ms) / 1000
        made = Stepped(
            motions=step.motions,
            actions=step.actions if step.motions is None else None,
            prompt=step.prompt,
            blend_chunks=step.blend_chunks,
            steps=step.steps,
        )
        self._keep(result.kept, self.place)
        self._steps.append(made)
        return made

    def repeated(self, step: StepRequest, kept: bytes) -> None:
        """A chunk of the walk was made once more, in a session that was opened again."""
        self._keep(kept, step.chunk_index)

    def hashed(self, chunk: int, made: Stepped, digest: bytes) -> None:
        """The digest of the pictures of `made`, unless the walk has gone back meanwhile."""
        if self.exact and chunk < self.place and self._steps[chunk] is made:
            self._steps[chunk] = made._replace(digest=digest)

    def restart(self, seed: int | None) -> None:
        """Back to the start, perhaps with another seed."""
        self._steps.clear()
        self.exact = True
        if self._start is not None:
            start = self._start if seed is None else msgspec.structs.replace(self._start, seed=seed)
            self._begin(start)

    def branch(self, chunk: int) -> History:
        """The first `chunk` chunks of the same walk, for a branch."""
        copied = History(self.first_prompt, self._steps)
        copied.exact, copied._context_s = self.exact, self._context_s
        copied._start, copied._light = self._start, self._light
        copied._cut(chunk)
        return copied

    def become(self, other: History) -> None:
        """The session stands where `other` does, a walk that began as this one did."""
        self.exact, self._steps[:] = other.exact, other._steps
        self._start, self._light = other._start, other._light

    def request(self, session_id: str, chunk: int) -> StepRequest:
        """What makes `chunk` of the walk once more."""
        return request_of(self._steps[chunk], session_id, chunk)

    def _keep(self, kept: bytes, chunk: int) -> None:
        light = self._light
        if not kept or light is None or light.next_chunk != chunk:
            return  # an older place is kept: what came since is walked again
        if light.everything and light.nbytes >= WHOLE_BYTES:
            light = msgspec.structs.replace(light, everything=False)
        self._light = light.with_chunk(decode_chunk(kept))

    def _begin(self, start: LightSnapshot) -> None:
        self._start = start
        self._light = msgspec.structs.replace(start, everything=True)

    def _cut(self, chunk: int) -> None:
        assert 0 <= chunk <= self.place, f"chunk {chunk} of {self.place}"
        del self._steps[chunk:]
        light, start = self._light, self._start
        if light is not None and light.next_chunk > chunk:
            self._light = None if start is None else light.before(chunk, start)

    def _mark(self, rebuilt: Rebuilt) -> None:
        if rebuilt == "window":
            self.exact = False


def request_of(step: Stepped, session_id: str, chunk: int) -> StepRequest:
    """A recorded chunk as the engine is asked for it."""
    return StepRequest(
        session_id=session_id,
        chunk_index=chunk,
        motions=step.motions,
        actions=step.actions or (),
        prompt=step.prompt,
        blend_chunks=step.blend_chunks,
        steps=step.steps,
        keep=True,
    )


def seconds_at(chunk: int, reply: OpenReply) -> float:
    """How long a walk of so many chunks is, in seconds of video."""
    frames = PICTURES * reply.chunk * chunk
    return (frames - PICTURES + 1) / reply.fps if chunk else 0.0

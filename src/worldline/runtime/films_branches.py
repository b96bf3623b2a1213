"""The branches of guidance: one network pass under the prompt, one under the negative prompt.

A branch has its own text and, in a causal model, its own ring of keys and values. Both share
positions and camera. They run as one batch, one after the other, or each on a device of its own;
which of these changes rounding only.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from worldline.models.lingbot.blocks import TextAttend
from worldline.ops.attention import Attend, FullAttention
from worldline.ops.block_math import PLAIN
from worldline.runtime.conditions import Moved
from worldline.runtime.inputs import (
    CONTEXT_STEP,
    CONTEXT_TIMESTEP,
    chunk_inputs,
    project_text,
    time_tables,
)
from worldline.runtime.passes import ChunkInputs, context_pass, denoise_pass
from worldline.runtime.shared import Engine
from worldline.runtime.state import PromptStates, SessionState
from worldline.sampling.guidance import guide


class Ask(NamedTuple):
    """One forward: the input `[1, 36, T, h, w]`, the timestep, and which expert is asked."""

    x: Tensor
    timestep: float
    expert: int = 0


class Scene(NamedTuple):
    """What the passes over some latent frames share."""

    frames: range
    motion: Moved


class Branch:
    """One text on one device. `engines` holds one network, or two experts that share all else."""

    def __init__(
        self, engines: tuple[Engine, ...], state: SessionState, prompt: PromptStates
    ) -> None:
        self._engines = engines
        self._prompt = prompt
        self.state = state
        self._expert = 0
        self._scene: Scene | None = None
        self._inputs: ChunkInputs | None = None

    @property
    def engine(self) -> Engine:
        """The network asked last."""
        return self._engines[self._expert]

    def aim(self, scene: Scene) -> None:
        """Turn to other latent frames."""
        self._scene = scene
        self.drop()

    def drop(self) -> None:
        """Forget what only the passes over these frames need."""
        self._inputs = None
        for engine in self._engines:
            engine.workspace.clear()

    def use(self, expert: int) -> None:
        """Ask another expert from now on; what was made by the first is freed."""
        if expert != self._expert:
            self.drop()
            self.state.caches.clear()
            self._expert = expert

    def inputs(self, like: ChunkInputs | None = None) -> ChunkInputs:
        """What its passes take; with `like`, that of the other branch, only the text is its own."""
        if like is not None:
            return like._replace(cross=self._cross())
        if self._inputs is None:
            assert self._scene is not None, "aim comes first"
            self._inputs = chunk_inputs(
                self.engine,
                self.state,
                self._scene.motion,
                prompt=self._prompt,
                frames=self._scene.frames,
            )
        return self._inputs

    def _cross(self) -> tuple[TextAttend, ...]:
        text = self._prompt.current
        made = self.state.caches.get(
            "cross_kv", (), lambda: project_text(self.engine, self._prompt), sources=(text,)
        )
        return tuple(made)

    def flow(self, ask: Ask, attend: Attend, *, like: ChunkInputs | None = None) -> Tensor:
        """The flow `[1, 16, T, h, w]` under this text, on this branch's device."""
        engine = self.engine
        time = time_tables(engine.dit, self.state.caches, 0, ask.timestep)
        x = ask.x.to(engine.dit.device)
        return denoise_pass(engine.dit, x, time=time, inputs=self.inputs(like), kv=attend)

    def commit(self, x: Tensor, *, like: ChunkInputs | None = None) -> None:
        """Context pass over `x [1, 36, T, h, w]`, the clean latents: what the ring remembers."""
        engine = self.engine
        time = time_tables(engine.dit, self.state.caches, CONTEXT_STEP, CONTEXT_TIMESTEP)
        x = x.to(engine.dit.device)
        context_pass(engine.dit, x, time=time, inputs=self.inputs(like), kv=self.state.kv)


class Branches(Protocol):
    """How flows come about; `causal` models attend to a ring, others to the frames at hand."""

    def aim(self, scene: Scene) -> None:
        """Turn to other latent frames."""
        ...

    def flow(self, ask: Ask) -> Tensor:
        """The guided flow `[1, 16, T, h, w]`, on the main device."""
        ...

    def commit(self, x: Tensor) -> None:
        """Context pass of every branch; causal models only."""
        ...

    def close(self) -> None:
        """Free what outlives a chunk."""
        ...


class Alone:
    """No guidance: the prompt's branch only."""

    def __init__(self, branch: Branch, *, causal: bool) -> None:
        self._branch, self._causal = branch, causal

    def aim(self, scene: Scene) -> None:
        """See `Branches`."""
        self._branch.aim(scene)

    def flow(self, ask: Ask) -> Tensor:
        """See `Branches`."""
        self._branch.use(ask.expert)
        return self._branch.flow(ask, attend_of(self._branch, causal=self._causal))

    def commit(self, x: Tensor) -> None:
        """See `Branches`."""
        self._branch.commit(x)

    def close(self) -> None:
        """See `Branches`."""
        self._branch.drop()


class InTurn:
    """Both branches one after the other on one device: the least memory."""

    def __init__(self, branch: Branch, negative: Branch, *, causal: bool, scale: float) -> None:
        self._branch, self._negative = branch, negative
        self._causal, self._scale = causal, scale

    def aim(self, scene: Scene) -> None:
        """See `Branches`."""
        self._branch.aim(scene)
        self._negative.aim(scene)

    def flow(self, ask: Ask) -> Tensor:
        """See `Branches`."""
        self._use(ask.expert)
        shared = self._branch.inputs()
        flow = self._branch.flow(ask, attend_of(self._branch, causal=self._causal)).clone()
        attend = attend_of(self._negative, causal=self._causal)
        return guide(flow, self._negative.flow(ask, attend, like=shared), self._scale)

    def commit(self, x: Tensor) -> None:
        """See `Branches`."""
        self._branch.commit(x)
        self._negative.commit(x, like=self._branch.inputs())

    def close(self) -> None:
        """See `Branches`."""
        self._branch.drop()
        self._negative.drop()

    def _use(self, expert: int) -> None:
        self._branch.use(expert)
        self._negative.use(expert)


class Together(InTurn):
    """Both branches as one batch of two: fewer and larger products, twice the workspace."""

    def flow(self, ask: Ask) -> Tensor:
        """See `Branches`."""
        self._use(ask.expert)
        shared = self._branch.inputs()
        other = self._negative.inputs(shared)
        engine = self._branch.engine
        cross = tuple(_Both(*pair) for pair in zip(shared.cross, other.cross, strict=True))
        # In plain PyTorch: kernels take one text and one camera per token of a batch of one.
        inputs = shared._replace(cross=cross, math=PLAIN)
        attend: Attend = FullAttention()
        if self._causal:
            attend = _Rings(self._branch.state.kv, self._negative.state.kv)
        time = time_tables(engine.dit, self._branch.state.caches, 0, ask.timestep)
        x = ask.x.expand(2, *ask.x.shape[1:])
        flows = denoise_pass(engine.dit, x, time=time, inputs=inputs, kv=attend)
        return guide(flows[:1], flows[1:], self._scale)


class Apart:
    """Each branch on a device of its own, at the same time; `negative`'s network is a second one.

    A thread waits for the second device; the networks are asked by one thread each.
    """

    def __init__(self, branch: Branch, negative: Branch, *, causal: bool, scale: float) -> None:
        self._branch, self._negative = branch, negative
        self._causal, self._scale = causal, scale
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="negative")

    def aim(self, scene: Scene) -> None:
        """See `Branches`."""
        self._branch.aim(scene)
        self._negative.aim(scene)

    def flow(self, ask: Ask) -> Tensor:
        """See `Branches`."""
        coming: Future[Tensor] = self._beside.submit(self._unconditional, ask)
        try:
            self._branch.use(ask.expert)
            flow = self._branch.flow(ask, attend_of(self._branch, causal=self._causal))
        finally:
            other = coming.result()
        return guide(flow, other.to(flow.device), self._scale)

    def commit(self, x: Tensor) -> None:
        """See `Branches`."""
        coming = self._beside.submit(self._remember, x)
        try:
            self._branch.commit(x)
        finally:
            coming.result()

    def close(self) -> None:
        """See `Branches`."""
        self._beside.shutdown()
        self._branch.drop()
        self._negative.drop()

    @torch.no_grad()
    def _unconditional(self, ask: Ask) -> Tensor:
        self._negative.use(ask.expert)
        return self._negative.flow(ask, attend_of(self._negative, causal=self._causal))

    @torch.no_grad()
    def _remember(self, x: Tensor) -> None:
        self._negative.commit(x)


def attend_of(branch: Branch, *, causal: bool) -> Attend:
    """What a branch's self-attention meets: its ring, or nothing but the frames at hand."""
    return branch.state.kv if causal else FullAttention()


class _Both(NamedTuple):
    """The texts of two branches of a batch."""

    first: TextAttend
    second: TextAttend

    def attend(self, query: Tensor) -> Tensor:
        """Cross-attention of `query [2, L, N, D]`, each row to its own text."""
        return torch.cat([self.first.attend(query[:1]), self.second.attend(query[1:])])


class _Rings(NamedTuple):
    """The rings of two branches of a batch; an `ops.attention.Attend`."""

    first: Attend
    second: Attend

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend `q, k, v [2, L, N, D]`, each row to its own ring."""
        pairs = (self.first, slice(0, 1)), (self.second, slice(1, 2))
        return torch.cat([attend(layer, q[row], k[row], v[row]) for attend, row in pairs])

"""Both sides of guidance: which networks, texts and rings they have, and how they are to run.

In one batch where a branch alone leaves the device idle and twice the workspace is free, else one
after the other; with a second device, at the same time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from worldline.core.errors import CapacityError, ConfigError
from worldline.core.film import FilmRequest
from worldline.models.lingbot.dit import LingBotDiT
from worldline.runtime.assembly import take_ring
from worldline.runtime.films_branches import Alone, Apart, Branch, Branches, InTurn, Together
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.memory import Kept, budget_bytes
from worldline.runtime.passes import EagerPasses
from worldline.runtime.session import Session
from worldline.runtime.shared import Engine
from worldline.runtime.state import PromptStates, SessionState
from worldline.runtime.step_cache import StepCache
from worldline.runtime.text_cache import Text

if TYPE_CHECKING:
    from worldline.runtime.engine import World

NO_GUIDANCE = 1.0
# Batches of two are worth it while one branch alone leaves the device idle.
BATCHED_TOKENS = 4096
APART = "apart"  # a third way beside those a request can name: with a second device


_WAYS = {"batched": Together, "sequence": InTurn, APART: Apart}


class Negative(NamedTuple):
    """The negative side of a film; `holder` is where its ring came from, if it has one."""

    state: SessionState
    holder: Engine | None

    def close(self) -> None:
        """Give the ring back."""
        if self.holder is not None:
            self.holder.rings.give(self.state.kv)
            self.holder.ledger.close(self.state.session_id)


class Sides:
    """Both sides of guidance, and how they run."""

    def __init__(
        self,
        world: World,
        request: FilmRequest,
        session: Session,
        *,
        scale: float,
        partner: World | None,
    ) -> None:
        """Takes an open session, and does not close it. Raises `ConfigError` for a partner that is
        of no use."""
        self._world, self._request, self._session = world, request, session
        self._scale, self._partner = scale, partner
        self._text = negative_text(world, request, scale)
        if partner is not None and self._text is None:
            raise ConfigError("without guidance there is nothing for a second device to do")
        if partner is not None and partner.info.weights != world.info.weights:
            raise ConfigError("the second device has other weights", got=partner.info.weights)

    @property
    def _causal(self) -> bool:
        return not self._world.preset.bidirectional

    def choose(self, before: str | None) -> str:
        """How the branches run; of a film that goes on, as `before`."""
        state, engine = self._session.state, self._session.engine
        tokens = state.settings.chunk * state.geometry.tokens_per_frame
        apart = self._partner is not None
        way = choose_way(engine, self._request, tokens=tokens, partner=apart)
        if before not in _WAYS or self._request.branches != "auto" or (before == APART) != apart:
            return way
        return before

    def branches(self, way: str) -> tuple[Branches, Negative | None]:
        """The branches, and the negative side, if there is one."""
        session, causal = self._session, self._causal
        engines = engines_of(self._world, session.engine)
        branch = Branch(engines, session.state, session.state.prompt)
        if self._text is None:
            return Alone(branch, causal=causal), None
        where = engines if self._partner is None else self._engines_of_partner()
        states = self._text.states.to(where[0].dit.device)
        prompt = PromptStates(states, states, states, rows=self._text.rows)
        state = replace(session.state, prompt=prompt, caches=StepCache(where[0].without))
        state.session_id = f"{session.state.session_id}/negative"
        if causal:
            state.kv = self._second_ring(where[0], state)
        negative = Branch(where, state, prompt)
        made = _WAYS[way](branch, negative, causal=causal, scale=self._scale)
        return made, Negative(state, where[0] if causal else None)

    def _engines_of_partner(self) -> tuple[Engine, ...]:
        assert self._partner is not None
        state = self._session.state
        return engines_of(self._partner, self._partner.engine(state.geometry, state.settings))

    def _second_ring(self, engine: Engine, state: SessionState) -> FrameRing:
        """Room for the negative side's keys and values. Raises `CapacityError`."""
        dit = engine.dit
        taken = Kept.of(dit.params, state.settings, state.geometry, dtype=dit.dtype).ring
        engine.ledger.admit(state.session_id, taken)
        try:
            return take_ring(engine, state.geometry, state.settings)
        except BaseException:
            engine.ledger.close(state.session_id)
            raise


def pass_bytes(dit: LingBotDiT, tokens: int) -> int:
    """Bytes that one pass over so many tokens takes at once, roughly: the widest of a block's
    operations, the float32 stream around it, and the camera."""
    params, size = dit.params, dit.dtype.itemsize
    stream, heads, inner = 20 * params.dim, 8 * params.dim * size, 2 * params.ffn_dim * size
    return tokens * (stream + heads + inner + 32 * params.control_channels)


def check_pass(engine: Engine, tokens: int) -> tuple[int, int]:
    """Bytes that are free, and what a pass takes.

    Raises `CapacityError` where it does not fit: on all ranks, if one of them has too little.
    """
    dit = engine.dit
    room, once = budget_bytes(dit.device, 0), pass_bytes(dit, tokens)
    if not engine.shards.group.every(once <= room):
        raise CapacityError(
            "this many latent frames at once do not fit",
            expected=f"a smaller --chunk or --size: {room >> 20} MiB are free",
            got=f"{once >> 20} MiB for a pass",
        )
    return room, once


def choose_way(engine: Engine, request: FilmRequest, *, tokens: int, partner: bool) -> str:
    """How both branches run: as asked for, or as fits. Raises `CapacityError` where none does."""
    if partner:
        return APART
    room, once = check_pass(engine, tokens)
    if request.branches != "auto":
        return request.branches
    fits = tokens <= BATCHED_TOKENS and 2 * once <= room and engine.math.name == "torch"
    # Ranks may have different memory free, and must go the same way.
    return "batched" if engine.shards.group.agree(fits) else "sequence"


def engines_of(world: World, engine: Engine) -> tuple[Engine, ...]:
    """The networks of a film, each with a workspace of its own: live worlds step in between."""
    own = engine._replace(
        workspace=StepCache(engine.without), buffers=StepCache(), passes=engine.passes.eager
    )
    low = world.components.low_noise_dit
    if low is None:
        return (own,)
    if "qkv" not in engine.without and not low.offloaded:
        low.join_projections()
    return own, own._replace(dit=low, passes=EagerPasses(low), workspace=StepCache(engine.without))


def negative_text(world: World, request: FilmRequest, scale: float) -> Text | None:
    """The text of the unconditional branch; None where there is no guidance."""
    asked = request.negative_prompt
    words = world.preset.negative_prompt if asked is None else asked
    return world.shared.negatives.get(words, guidance=scale)

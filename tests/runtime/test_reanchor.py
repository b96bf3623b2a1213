"""Moving the origin of time: exact in real arithmetic, bounded positions, sink included."""

from __future__ import annotations

import numpy as np
import torch

from tests import tiny
from worldline.ops.rope import apply_rope, rope_table
from worldline.runtime.engine import World
from worldline.runtime.session import Session

CHUNKS = 14  # 42 latent frames: seven times the limit below


def latents_of(world: World) -> tuple[list[torch.Tensor], Session]:
    """Committed keys after each chunk, turned back to absolute time, and the session."""
    session = world.start(tiny.picture(), tiny.PROMPT, 3)
    frames = []
    for _ in range(CHUNKS):
        frames.append(torch.from_numpy(session.step([("w",), (), ("l",)]).frames.astype(np.int16)))
    return frames, session


def test_outputs_do_not_depend_on_the_origin() -> None:
    plain, far = latents_of(tiny.world())
    moved, near = latents_of(tiny.world(reanchor_at=6))
    assert far.state.anchor == 0
    assert near.state.anchor > 30
    for a, b in zip(plain, moved, strict=True):
        assert (a - b).abs().max() <= 1  # a value on the edge between two of 256 levels may flip
    back = rope_table([near.state.anchor], 1, 1, head_dim=near.engine.dit.params.head_dim)
    for layer in range(near.state.kv.params.layers):
        ours, theirs = (s.state.kv.in_time_order(layer, 3 * CHUNKS)[0] for s in (near, far))
        torch.testing.assert_close(apply_rope(ours, back), theirs, atol=1e-5, rtol=1e-5)


def test_positions_stay_below_the_limit() -> None:
    session = tiny.world(reanchor_at=20).start(tiny.picture(), tiny.PROMPT)
    moves = 0
    for _ in range(CHUNKS):
        before = session.state.anchor
        session.step()
        moves += session.state.anchor != before
        assert session.state.next_frame - session.state.anchor <= 20
    assert 1 < moves <= 42 / (20 - 20 // 2 - 3)

"""A world on several ranks gives what it gives on one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from tests.runtime.parallel.cases import Size
from worldline.runtime.parallel.group import Group

EVEN = Size(64, 48, 3)  # 36 tokens
ONE_MORE = Size(48, 48, 1)  # 9 tokens, 4k+1
THREE_MORE = Size(80, 48, 1)  # 15 tokens, 4k+3


@pytest.mark.parametrize("size", [EVEN, ONE_MORE, THREE_MORE], ids=["36", "9", "15"])
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_latents_equal_those_of_one_rank(ranks: int, size: Size) -> None:
    """The window is full after two chunks of three frames, or seven of one."""
    chunks = 4 if size.chunk == 3 else 9
    alone = cases.walk(cases.begin(cases.world(), size), chunks)

    def run(group: Group) -> cases.Walked:
        with cases.begin(cases.world(group), size) as session:
            assert session.state.kv.params.heads == cases.HEADS // ranks
            return cases.walk(session, chunks)

    together = on_ranks(ranks, run)
    assert cases.farthest(alone, together[0]) <= 1e-5
    for other in together[1:]:  # ranks never drift apart
        assert cases.farthest(together[0], other) == 0
    difference = alone.frames.astype(int) - together[0].frames
    assert np.abs(difference).max() <= 1
    assert torch.cat([x.flatten() for x in alone.latents]).std() > 0.1

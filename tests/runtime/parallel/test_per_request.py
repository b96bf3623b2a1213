"""Sharing is switched off for one world: from the SDK's options to each rank's session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests import tiny
from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from worldline.client.entering import to_enter
from worldline.client.options import WorldOptions
from worldline.core.live.client import Enter
from worldline.runtime import protocol
from worldline.runtime.parallel.group import Group
from worldline.runtime.protocol import Call, OpenReply, OpenRequest
from worldline.runtime.rank import Rank
from worldline.server.live.opening import to_open


@pytest.mark.parametrize("sharded", [True, False])
def test_the_wish_reaches_the_session_of_every_rank(sharded: bool) -> None:
    picture = np.ascontiguousarray(tiny.picture())
    wish = to_enter(WorldOptions(sharded=sharded), prompt=tiny.PROMPT)
    asked = to_open(wish, picture, session_id="s")
    sent = protocol.decode_call(protocol.encode(Call(1, asked)))  # as it crosses

    def run(group: Group) -> int:
        world: Any = cases.world(group)  # as a worker loads it
        rank = Rank(world)
        assert isinstance(sent.body, OpenRequest)
        reply = rank.answer(sent.body, lambda _: None)
        assert isinstance(reply, OpenReply)
        (ring,) = world.shared.rings.held
        rank.close_all()
        return ring.params.heads

    whole, half = cases.HEADS, cases.HEADS // 2
    assert on_ranks(2, run) == ([half, half] if sharded else [whole, whole])


def test_worlds_are_shared_out_unless_somebody_says_otherwise() -> None:
    assert Enter().sharded and WorldOptions().sharded
    assert to_open(Enter(prompt="a"), tiny.picture(), session_id="s").sharded

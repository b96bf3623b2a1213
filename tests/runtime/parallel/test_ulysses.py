"""A world on several ranks gives what it gives on one, and sends what the formula says."""

from __future__ import annotations

import itertools
import math
import os
from functools import cache

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests import tiny
from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from tests.runtime.parallel.cases import Size, Walked
from worldline.core.config import EngineOptions
from worldline.core.errors import AbortedError, ConfigError
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.collectives import ALONE, Collectives, Split
from worldline.ops.shard import TokenShard
from worldline.runtime.engine import World
from worldline.runtime.loader import load_components
from worldline.runtime.parallel.expected import Sent, Sharing, expected, formula
from worldline.runtime.parallel.group import Group
from worldline.runtime.parallel.shards import check_degree

EVEN = Size(64, 48, 3)  # 36 tokens
ONE_MORE = Size(48, 48, 1)  # 9 tokens, 4k+1
THREE_MORE = Size(80, 48, 1)  # 15 tokens, 4k+3
CASES = list(itertools.product((2, 3, 4), (EVEN, ONE_MORE, THREE_MORE)))
# Every number of ranks with every size; some of each else.
EXHAUSTIVE = "WORLDLINE_ALL_RANKS" in os.environ
CHUNKS = {3: 4, 1: 6}  # by frames of a chunk: until the window has rolled over


@cache
def alone(size: Size) -> Walked:
    """The walk of one rank."""
    return cases.walk(cases.begin(cases.world(), size), CHUNKS[size.chunk])


@pytest.mark.parametrize(
    ("ranks", "size"), CASES if EXHAUSTIVE else [(2, THREE_MORE), (3, EVEN), (4, ONE_MORE)]
)
def test_latents_equal_those_of_one_rank(ranks: int, size: Size) -> None:
    def run(group: Group) -> Walked:
        with cases.begin(cases.world(group), size) as session:
            assert session.state.kv.params.heads == cases.HEADS // ranks
            return cases.walk(session, CHUNKS[size.chunk])

    first, *others = on_ranks(ranks, run)
    assert cases.farthest(alone(size), first) <= 1e-5
    for other in others:  # ranks never drift apart
        assert cases.farthest(first, other) == 0
    assert np.abs(alone(size).frames.astype(int) - first.frames).max() <= 1
    assert torch.cat([x.flatten() for x in alone(size).latents]).std() > 0.1


@pytest.mark.parametrize(
    ("ranks", "size", "whole"),
    [(*case, whole) for case in CASES for whole in (False, True)]
    if EXHAUSTIVE
    else [(2, EVEN, True), (2, THREE_MORE, True), (4, THREE_MORE, False)],
)
def test_a_chunk_sends_what_the_formula_says(ranks: int, size: Size, whole: bool) -> None:
    def run(group: Group) -> dict[str, Sent]:
        world = cases.world(group, without=["update_cache_only"] if whole else [])
        with cases.begin(world, size) as session:
            session.step()
            group.traffic.clear()
            session.step()
        calls, nbytes = group.traffic.calls, group.traffic.nbytes
        names = [name for name in calls if not name.startswith("vae")]
        return {name: Sent(calls[name], nbytes[name]) for name in names}

    per_rank = on_ranks(ranks, run)
    params = cases.dit_params()
    sharing = Sharing(
        ranks=ranks,
        tokens=size.tokens,
        width=params.dim,
        heads=params.num_heads,
        layers=params.num_layers,
        steps=4,
        itemsize=4,
        values=4 * params.out_dim,
        whole_context=whole,
    )
    wanted = expected(sharing)
    for sent in per_rank:
        assert {name: of.calls for name, of in sent.items()} == {
            name: of.calls for name, of in wanted.items()
        }
    for name, of in wanted.items():
        assert sum(sent[name].nbytes for sent in per_rank) == of.nbytes
    if whole:  # then nothing is saved, and it is the formula to the byte
        blocks = wanted["qkv"] + wanted["heads"]
        assert blocks == formula(sharing)
        numbers = 4 * (size.tokens / ranks) * params.dim * 4 * (ranks - 1) / ranks
        assert blocks.nbytes == round(ranks * numbers * params.num_layers * 5)


def test_the_14b_sends_what_the_plan_says() -> None:
    """9.6, 7.2 and 4.2 GB a chunk on each of 2, 4 and 8 GPUs."""
    for ranks, gigabytes in ((2, 9.6), (4, 7.2), (8, 4.2)):
        sharing = Sharing(ranks, 4680, 5120, 40, 40, 4, 2, 64)
        assert formula(sharing).nbytes / ranks / 1e9 == pytest.approx(gigabytes, rel=0.01)
        assert formula(sharing).calls == 400
    assert expected(Sharing(1, 4680, 5120, 40, 40, 4, 2, 64)) == {}


@pytest.mark.parametrize(
    "variant",
    [
        cases.Variant(reanchor_at=8),
        cases.Variant(options=EngineOptions(recache=True, camera_cache="off")),
        cases.Variant(options=EngineOptions(lossy=("still_window=5", "sink_distance=10"))),
        cases.Variant(options=EngineOptions(lossy=("last_step_kv",)), window=-1),
        cases.Variant(without=("ring_order", "text_pads", "qkv", "buffers")),
    ],
    ids=["reanchoring", "recache", "levers", "growing", "without"],
)
def test_everything_else_goes_on_as_before(variant: cases.Variant) -> None:
    size = Size(48, 16, 3)  # 9 tokens on two ranks: uneven
    single = cases.walk(variant.begin(size), 3)

    def run(group: Group) -> Walked:
        return cases.walk(variant.begin(size, group), 3)

    for together in on_ranks(2, run):
        assert cases.farthest(single, together) <= 1e-5


def test_int8_keys_are_rounded_alike() -> None:
    """A scale belongs to a token and a head, so a rank rounds what one alone rounds."""
    variant = cases.Variant(options=EngineOptions(kv="8bit"))
    single = cases.walk(variant.begin(EVEN), 2)
    together = on_ranks(2, lambda group: cases.walk(variant.begin(EVEN, group), 2))
    assert cases.farthest(single, together[0]) <= 1e-3


def test_a_parked_session_comes_back_to_every_rank() -> None:
    def run(group: Group) -> Walked:
        session = cases.begin(cases.world(group), EVEN)
        cases.walk(session, 1)
        session.prepare()
        session.park()
        return cases.walk(session, 1, start=1)

    whole = alone(EVEN)
    for parked in on_ranks(2, run):
        assert cases.farthest(Walked(whole.latents[:2], whole.frames), parked) <= 1e-5


def test_a_session_may_ask_not_to_be_shared_out() -> None:
    def run(group: Group) -> tuple[Walked, int, int]:
        world = cases.world(group)
        with cases.begin(world, EVEN, sharded=False) as session:
            group.traffic.clear()
            walked = cases.walk(session, 2)
            return walked, sum(group.traffic.calls.values()), session.state.kv.params.heads

    for walked, calls, heads in on_ranks(2, run):
        expected_latents = alone(EVEN).latents[:2]
        assert all(map(torch.equal, walked.latents, expected_latents))
        assert (calls, heads) == (0, cases.HEADS)


def test_one_rank_never_shares_anything_out() -> None:
    def run(group: Group) -> tuple[Walked, int]:
        with cases.begin(cases.world(group), EVEN) as session:
            return cases.walk(session, 2), sum(group.traffic.calls.values())

    ((walked, calls),) = on_ranks(1, run)
    assert calls == 0
    assert all(map(torch.equal, walked.latents, alone(EVEN).latents[:2]))


def test_all_ranks_give_a_chunk_up_where_rank_0_does() -> None:
    """Rank 1 hears of it from nobody else; both then make the chunk they would have made."""

    def run(group: Group) -> tuple[int, Walked]:
        session = cases.begin(cases.world(group), EVEN)
        cases.walk(session, 1)
        passes = 0

        def aborted() -> bool:
            nonlocal passes
            passes += 1
            return group.rank == 0 and passes == 3

        with pytest.raises(AbortedError):
            session.step(aborted=aborted)
        return passes, cases.walk(session, 1, start=1)

    for passes, walked in on_ranks(2, run):
        assert passes == 3
        assert cases.farthest(Walked(alone(EVEN).latents[:2], walked.frames), walked) <= 1e-5


def test_a_rank_alone_cannot_give_a_chunk_up() -> None:
    def run(group: Group) -> Walked:
        session = cases.begin(cases.world(group), EVEN)
        session.step(aborted=lambda: group.rank == 1)
        return cases.walk(session, 0)

    assert len({float(walked.latents[0].sum()) for walked in on_ranks(2, run)}) == 1


@pytest.mark.parametrize("frames", [2, 3])  # 30 and 45 tokens
@pytest.mark.parametrize("per_token", [False, True], ids=["one time", "a time per token"])
def test_the_bidirectional_form_equals_one_rank(frames: int, per_token: bool) -> None:
    params = msgspec.structs.replace(cases.dit_params(), control_dim=7)
    dit = LingBotDiT(params)
    tiny.build(dit, 3)
    generator = torch.Generator().manual_seed(5)
    tokens = 15 * frames

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x, control = drawn(2, 36, frames, 6, 10), drawn(2, 448, frames, 6, 10)
    text = drawn(2, 10, 24)
    t = torch.rand(2, tokens, generator=generator) * 1000
    t = t if per_token else t[:, 0]
    whole = dit(x, t, text=text, control=control)

    def run(group: Group) -> Tensor:
        shard = TokenShard(group, Split.of(tokens, group.size))
        with torch.no_grad():
            return dit(x, t, text=text, control=control, shard=shard)

    for ranks in (2, 4):
        for flow in on_ranks(ranks, run):
            torch.testing.assert_close(flow, whole, rtol=0, atol=1e-5)


def test_unusable_degrees_are_refused_and_the_usable_listed() -> None:
    with pytest.raises(ConfigError, match="ring attention is not supported"):
        check_degree(40, 4, ring=2)
    with pytest.raises(ConfigError, match="one of 1, 2, 4, 5, 8, 10, 20, 40; got 3"):
        check_degree(40, 3)
    with pytest.raises(ConfigError, match="one of 1, 2, 3, 4, 6, 12; got 5"):
        on_ranks(5, cases.world)
    check_degree(3, 2, uneven=True)
    with pytest.raises(ConfigError, match="one of 1, 2, 3; got 4"):
        check_degree(3, 4, uneven=True)


@pytest.mark.parametrize("ranks", [2, 3] if EXHAUSTIVE else [2])
def test_the_three_heads_of_the_pocket_world_go_on_two_ranks_and_on_three(ranks: int) -> None:
    def walk(group: Collectives = ALONE) -> tuple[NDArray[np.uint8], int]:
        world = World(load_components("pocket", device="cpu", dtype="float32"), group=group)
        with world.start(tiny.picture(), tiny.PROMPT, 7) as session:
            frames = [session.step([("w",)]).frames for _ in range(3)]
            return np.concatenate(frames), session.state.kv.params.heads

    alone, _ = walk()
    made = on_ranks(ranks, walk)
    error = float(np.square(alone.astype(float) - made[0][0]).mean())  # frames gather on rank 0
    assert error == 0 or 10 * math.log10(255**2 / error) >= 60
    assert [heads for _, heads in made] == ([2, 1] if ranks == 2 else [1, 1, 1])


def test_a_picture_of_fewer_tokens_than_ranks_is_refused() -> None:
    def run(group: Group) -> None:
        made = cases.world(group)
        with pytest.raises(ConfigError, match="too little to share; expected at least 4; got 1"):
            cases.begin(made, Size(16, 16, 1))
        # A chunk of it would do, but not the part of a chunk that is left of a window.
        with pytest.raises(ConfigError, match="too little to share; expected at least 4; got 2"):
            cases.begin(made, Size(32, 16, 3))

    on_ranks(4, run)

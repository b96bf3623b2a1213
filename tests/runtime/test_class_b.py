"""Savings of class B: exact in real arithmetic, so within 1e-5 of the plain way over six chunks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests import tiny
from worldline.models.lingbot.blocks import TextKV
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.attention import attention
from worldline.runtime import conditions, pipeline
from worldline.runtime.engine import World
from worldline.runtime.inputs import project_text
from worldline.runtime.loader import load_components
from worldline.runtime.savings import SAVINGS
from worldline.runtime.text_rows import (
    LEAST_MERGED,
    ROWS_STEP,
    DistinctText,
    distinct_text,
    kept_rows,
    merged_attention,
    true_rows,
)

CLASS_B = [name for name, saving in SAVINGS.items() if saving.kind == "B"]
BOUND = 1e-5
CHUNKS = 6
LONG_TEXT = 160  # rows: enough of them are padding to be merged
WALK = [[(), ("w",), ("w", "l")], [("s",)] * 3, None, [("i",), ("j",), ("d", "k")]]


def long_world(without: set[str]) -> World:
    return tiny.world(text=tiny.HashText(LONG_TEXT), without=without)


@torch.no_grad()
def film(without: set[str]) -> Tensor:
    """The latents of six chunks; the prompt is blended into another in the third.

    Not the video: the small model's random decoder makes thirty times as much of a difference.
    """
    latents = []
    with long_world(without).start(tiny.picture(), tiny.PROMPT, 3, window=7, sink=2) as session:
        for i in range(CHUNKS):
            if i == 2:
                text = session.engine.text("a green valley under a very wide sky")
                state = session.state
                state.prompt = conditions.switch_prompt(state.prompt, text, 2)
            clock = session.engine.clock()
            made = pipeline.next_chunk(session.engine, session.state, WALK[i % 4], clock)
            latents.append(made.latents)
    return torch.cat(latents, dim=2)


@pytest.fixture(scope="module")
def complete() -> Tensor:
    return film(set())


@pytest.mark.parametrize("off", [*([name] for name in CLASS_B), CLASS_B], ids=",".join)
def test_a_class_b_saving_stays_within_the_bound(off: list[str], complete: Tensor) -> None:
    plain = film(set(off))
    assert plain.abs().max() > 0.1
    apart = (plain - complete).abs().max()
    assert apart <= BOUND
    assert apart > 0 or not {"text_pads", "ring_order"} & set(off), "this saving did nothing"


def test_the_pocket_worlds_video_stays_within_the_bound() -> None:
    """Video of trained weights; its sixteen rows of text are never merged."""
    components = load_components("pocket", device="cpu")
    videos = []
    for off in (set[str](), {"ring_order"}):
        with World(components, without=off).start(tiny.picture(), tiny.PROMPT, 3) as session:
            videos.append([])
            for i in range(12):  # the window of eight wraps
                clock = session.engine.clock()
                with torch.no_grad():
                    made = pipeline.next_chunk(
                        session.engine, session.state, [("w", "l")[i % 2]], clock
                    )
                videos[-1].append(made.video)
    ours, plain = (torch.cat(v, dim=2) for v in videos)
    assert 0 < (ours - plain).abs().max() <= BOUND


def test_the_padding_of_a_long_prompt_is_one_key() -> None:
    with long_world(set()).start(tiny.picture(), tiny.PROMPT) as session:
        session.step()
        state = session.state
        text = project_text(session.engine, state.prompt)
        assert state.prompt.rows == len(tiny.PROMPT.split()) < ROWS_STEP
    for one in text:
        assert isinstance(one, DistinctText)
        assert one.k.shape[1] == ROWS_STEP + 1 and one.merged == LONG_TEXT - ROWS_STEP
        assert one.bias.dtype == torch.float32
    with tiny.world().start(tiny.picture(), tiny.PROMPT) as session:  # ten rows: not worth it
        text = project_text(session.engine, session.state.prompt)
        assert all(isinstance(one, TextKV) for one in text)


def test_how_many_rows_are_kept() -> None:
    assert kept_rows(7, 512) == 32
    assert kept_rows(32, 512) == 32
    assert kept_rows(33, 512) == 64
    assert kept_rows(0, 512) == 0
    assert kept_rows(512 - LEAST_MERGED, 512) == 512 - LEAST_MERGED
    assert kept_rows(512 - LEAST_MERGED + 1, 512) is None
    assert kept_rows(8, 16) is None


def test_true_rows() -> None:
    states = torch.zeros(1, 6, 3)
    assert true_rows(states) == 0
    states[0, 1, 2] = 1e-30
    assert true_rows(states) == 2
    states[0, 5, 0] = -1
    assert true_rows(states) == 6


@pytest.mark.parametrize("rows", [0, 5, 40])
def test_merged_rows_are_attended_like_all(rows: int) -> None:
    """Both forms, the one with a bias and the one that flash attention on a GPU takes."""
    world = long_world(set())
    dit: LingBotDiT = world.components.dit
    generator = torch.Generator().manual_seed(rows)
    states = torch.zeros(1, LONG_TEXT, tiny.HashText.text_dim)
    states[:, :rows] = torch.randn(1, rows, states.shape[2], generator=generator)
    query = torch.randn(1, 11, 2, 24, generator=generator)
    kept = kept_rows(rows, LONG_TEXT)
    assert kept is not None
    whole = dit.cross_kv(dit.embed_text(states))
    for full, short in zip(whole, distinct_text(dit, states, kept), strict=True):
        assert isinstance(short, DistinctText)
        expected = full.attend(query)
        torch.testing.assert_close(short.attend(query), expected, atol=BOUND, rtol=0)
        if kept == 0:
            continue
        q, k, v = (t.transpose(1, 2) for t in (query, short.k, short.v))
        merged = merged_attention(q, k, v, short.merged).transpose(1, 2)
        torch.testing.assert_close(merged, expected, atol=BOUND, rtol=0)


def test_the_count_of_merged_rows_is_not_rounded_to_half_precision() -> None:
    """With equal keys the merged row's share is its count by the sum; bfloat16 would miss it."""
    kept, count = 32, 480
    q = torch.zeros(1, 1, 1, 16, dtype=torch.bfloat16)
    k = torch.zeros(1, 1, kept + 1, 16, dtype=torch.bfloat16)
    v = torch.zeros_like(k)
    v[:, :, -1] = 1
    share = count / (count + kept)
    rounded = math.exp(float(torch.tensor(math.log(count)).bfloat16()))
    assert abs(rounded / (rounded + kept) - share) > 2e-4
    bias = torch.zeros(1, 1, 1, kept + 1)
    bias[..., -1] = math.log(count)
    keys, values = (t.transpose(1, 2).float() for t in (k, v))
    one = DistinctText(keys, values, bias, count).attend(q.transpose(1, 2).float())
    torch.testing.assert_close(one, torch.full_like(one, share), atol=1e-6, rtol=0)
    merged = merged_attention(q.float(), k.float(), v.float(), count)
    torch.testing.assert_close(merged, torch.full_like(merged, share), atol=1e-6, rtol=0)
    assert attention(q, k, v).dtype == torch.bfloat16

"""The computed work: equal to the published figures, to the networks, and to what torch counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from tests import tiny
from worldline.bench.arithmetic import (
    ChunkSize,
    block_flops,
    camera_block_flops,
    chunk_flops,
    context_flops,
    float32_parameters,
    parameters,
    pass_flops,
    pass_traffic,
)
from worldline.bench.decode_work import decode_flops
from worldline.bench.ruler import chunk_size, chunk_work
from worldline.core.config import EngineOptions
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.preset import RuntimeValues, resolve_runtime
from worldline.models.registry import PRESETS, get_preset
from worldline.runtime.memory import Kept
from worldline.runtime.savings import SAVINGS
from worldline.runtime.session import Session
from worldline.runtime.state import Geometry

TERA = 1e12
TOKENS, KEYS = 4680, 28080  # three latent frames of 832x480, a window of 18
SIZE = ChunkSize(TOKENS, KEYS, 4, 3 * 832 * 480)
FAST = get_preset("lingbot-world-fast").dit
SMALL = get_preset("lingbot-world-v2-1.3b").dit


def attention_flops(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
    """The CPU's attention kernel, which torch's own counter does not know."""
    del rest, options
    return sdpa_flop_count(q, k, v)


def counted(run: Callable[[], object]) -> int:
    """FLOPs of everything `run` does, as torch counts them."""
    kernels = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops}
    with FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        run()
    return int(counter.get_total_flops())


def test_published_figures_of_the_14b() -> None:
    parts = pass_flops(FAST, TOKENS, KEYS)
    assert sum(parts.values()) / TERA == pytest.approx(221, rel=0.005)
    assert parts["self_attention"] / TERA == pytest.approx(108, rel=0.005)
    linear = 5 * (parts["projections"] + parts["feed_forward"]) / TERA
    assert linear == pytest.approx(559, rel=0.005)
    assert 5 * parts["cross_attention"] / TERA == pytest.approx(10, rel=0.05)
    assert FAST.num_layers * camera_block_flops(FAST, TOKENS) / TERA == pytest.approx(39, rel=0.01)
    assert parameters(FAST) / 1e9 == pytest.approx(18.5, rel=0.005)


def test_published_figures_of_a_chunk() -> None:
    """1147 with the camera once and a whole context pass, 1304 with the camera in every pass."""
    whole = {"update_cache_only"}
    once = chunk_flops(FAST, SIZE, without=whole).total
    assert once / TERA == pytest.approx(1147, rel=0.002)
    again = chunk_flops(FAST, SIZE, without=whole, camera_cache=False).total
    assert again / TERA == pytest.approx(1304, rel=0.002)
    assert chunk_flops(SMALL, SIZE, without=whole).total / TERA == pytest.approx(185, rel=0.01)
    skipped = sum(block_flops(FAST, TOKENS, KEYS).values()) - 4 * TOKENS * FAST.dim**2
    spared = once - chunk_flops(FAST, SIZE).total
    assert spared == skipped + pass_flops(FAST, TOKENS, KEYS)["head"]


def test_published_sizes() -> None:
    settings = resolve_runtime(get_preset("lingbot-world-fast"), None, RuntimeValues(window=18))
    kept = Kept.of(FAST, settings, Geometry(832, 480), dtype=torch.bfloat16)
    assert kept.ring == 18 * 1_277_952_000
    assert kept.prompt / 1e9 == pytest.approx(0.42, rel=0.005)
    assert kept.camera / 1e9 == pytest.approx(3.83, rel=0.002)


@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_those_of_the_network(name: str) -> None:
    dit = get_preset(name).dit
    state = meta_state(name)
    assert parameters(dit) == sum(t.numel() for t in state.values())
    full = [
        t.numel()
        for key, t in state.items()
        if LingBotDiT.storage_dtype(key, torch.bfloat16) == torch.float32
    ]
    assert float32_parameters(dit) == sum(full)


@cache
def meta_state(name: str) -> dict[str, Tensor]:
    """Names and shapes of a preset's transformer."""
    with torch.device("meta"):
        return LingBotDiT(get_preset(name).dit).state_dict()


def test_buffers_are_those_of_a_session() -> None:
    world = tiny.world()
    with world.start(tiny.picture(), tiny.PROMPT) as session:
        for _ in range(2):
            session.step()
        state, params = session.state, world.components.dit.params
        kept = Kept.of(params, state.settings, state.geometry, dtype=torch.float32)
        assert kept.ring == state.kv.nbytes
        cross = session.state.caches.get("cross_kv", (), list, sources=session_text(session))
        assert kept.prompt == sum(t.nbytes for kv in cross for t in kv)


def session_text(session: Session) -> tuple[Tensor]:
    """What the text's keys and values were made from."""
    return (session.state.prompt.current,)


def full_session(**options: Any) -> tuple[Any, Session]:
    """A world, and a session whose window is full and whose next chunk encodes nothing."""
    world = tiny.world(**options)
    session = world.start(tiny.picture(), tiny.PROMPT)
    while session.state.next_frame < session.window:
        session.step([("w",)] * session.chunk)
    session.prepare()
    return world, session


@pytest.mark.parametrize("off", [(), *((name,) for name in SAVINGS), tuple(SAVINGS)])
def test_a_chunk_is_what_torch_counts(off: tuple[str, ...]) -> None:
    world, session = full_session(without=off)
    found = counted(lambda: session.step([("w", "l")] * session.chunk))
    work = chunk_work(world, session, session.state.kv.visible_tokens)
    assert found == sum(sum(parts.values()) for parts in work.flops.values())


def test_a_chunk_without_the_camera_cache_is_what_torch_counts() -> None:
    world, session = full_session(options=EngineOptions(camera_cache="off"))
    found = counted(lambda: session.step([("j",)] * session.chunk))
    work = chunk_work(world, session, session.state.kv.visible_tokens)
    assert found == sum(sum(parts.values()) for parts in work.flops.values())
    assert work.moved["conditions"] == 0


def test_a_new_prompt_costs_its_projections_once() -> None:
    world, session = full_session()
    found = counted(lambda: session.step(prompt="a frozen lake at night"))
    params = world.components.dit.params
    size = chunk_size(session, session.state.kv.visible_tokens)
    decoder = decode_flops(world.preset, session.chunk, session.state.geometry.latent)
    assert found == chunk_flops(params, size, prompt_chunk=True).total + decoder


def test_the_context_pass_is_a_denoise_pass_less_its_tail() -> None:
    whole, short = (f(FAST, TOKENS, KEYS) for f in (pass_flops, context_flops))
    assert short["self_attention"] * FAST.num_layers == whole["self_attention"] * (
        FAST.num_layers - 1
    )
    assert "head" not in short


def test_traffic_grows_by_what_is_read() -> None:
    """One more key costs its key and value in every block; the camera cache is read per pass."""
    one_more = SIZE._replace(keys=KEYS + 1)
    row = 2 * FAST.num_layers * FAST.dim * 2
    assert pass_traffic(FAST, one_more, width=2) - pass_traffic(FAST, SIZE, width=2) == row
    kept = pass_traffic(FAST, SIZE, width=2)
    again = pass_traffic(FAST, SIZE, width=2, camera_cache=False)
    made = FAST.num_layers * 4 * (FAST.dim**2 + FAST.dim) * 2
    assert again - kept == made - row * TOKENS


@pytest.mark.slow
def test_published_figure_of_the_decoder() -> None:
    """About 40 TFLOP for 12 frames of 832x480, scaled from a measurement at another height."""
    flops = decode_flops(get_preset("lingbot-world-fast"), 3, (60, 104))
    assert flops / TERA == pytest.approx(40, rel=0.03)

"""The memory plan: what a loaded model really takes, and what is known of the large ones."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import msgspec
import pytest
import torch

import worldline
from worldline.bench.census import tensors_in, weigh
from worldline.bench.chunk import ChunkRequest, controls, open_session, warmup_chunks
from worldline.bench.dry_run import decoding
from worldline.bench.live import LivePeak, peak_bytes
from worldline.bench.plan import Wanted, plan_memory, wanted
from worldline.bench.workspace import highest, workspace_bytes
from worldline.core.config import EngineOptions
from worldline.models.preset import resolve_runtime
from worldline.models.registry import get_preset
from worldline.models.wan.params import WanVAEParams
from worldline.models.wan.vae import WanVAE
from worldline.runtime.parts import on_meta

GB = 1e9
CPU = torch.device("cpu")


def test_the_plan_of_the_pocket_world_is_what_it_takes() -> None:
    """Held between chunks and taken inside one, each within 5 %."""
    world = worldline.load("pocket", device="cpu", mode="exact", dtype="float32")
    parts = world.components
    with open_session(world, ChunkRequest(chunks=1)) as session:
        for chunk in range(warmup_chunks(session, parts.vae.stationary_latent)):
            session.step(controls(session, chunk))
            session.prepare()
        state = dataclasses.replace(session.state, timeline=None)  # on the host
        measured = weigh(tensors_in([parts.dit, parts.vae, parts.text, state])).nbytes
        inside = workspace_bytes(lambda: session.step(controls(session, session.next_chunk)), CPU)
    plan = plan_memory(on_cpu())
    assert plan.held() == pytest.approx(measured, rel=0.05)
    assert plan.peak() == pytest.approx(measured + inside, rel=0.05)


def on_cpu(**changes: object) -> Wanted:
    """The pocket world in float32 on a CPU, as it is by default, or changed."""
    preset = get_preset("pocket")
    settings = msgspec.structs.replace(resolve_runtime(preset), **changes)
    size = preset.width, preset.height
    return Wanted(preset, *size, settings, cuda=False, dtype=torch.float32)


def test_a_longer_window_takes_what_its_frames_take() -> None:
    short, long = plan_memory(on_cpu(window=4)), plan_memory(on_cpu(window=12))
    ring = "keys and values"
    assert long.session.pop(ring) == 3 * short.session.pop(ring)
    assert (long.session, long.weights, long.chunk) == (short.session, short.weights, short.chunk)
    assert short.peak(sessions=3) - short.peak() == 2 * (short.held(2) - short.held(1))


@pytest.mark.slow
def test_the_plan_of_the_large_model_holds_what_is_known() -> None:
    """Facts: 37 GB weights, 11.4 GB text encoder, 23.0 GB of keys and values, 3.8 GB of camera
    tables, 3.8 GB of decoder history in float32, which a decode holds twice."""
    preset = get_preset("lingbot-world-fast")
    plan = plan_memory(wanted(preset))
    assert plan.weights["transformer"] / GB == pytest.approx(37.46, rel=0.001)
    assert plan.weights["text encoder"] / GB == pytest.approx(11.36, rel=0.001)
    assert plan.session["keys and values"] / GB == pytest.approx(23.0, rel=0.001)
    history = plan.session["decoder history"]
    assert history / GB == pytest.approx(3.78, rel=0.01)
    assert plan.chunk["decode"] > history
    assert plan.chunk["passes"] / GB > 3.83

    small = plan_memory(
        wanted(
            preset,
            mode="8bit",
            options=EngineOptions(
                kv="8bit", text_encoder="cpu", camera_cache="off", decoder="tiny"
            ),
        )
    )
    assert 0.5 < small.weights["transformer"] / plan.weights["transformer"] < 0.75
    assert small.session["keys and values"] / GB == pytest.approx(11.5 * (1 + 4 / 128), rel=0.01)
    assert "text encoder" not in small.weights and small.prompt == 0
    assert small.chunk["passes"] < plan.chunk["passes"] / 2
    assert small.session["decoder history"] < history / 10


@pytest.mark.slow
def test_an_offloaded_model_takes_its_slots_only() -> None:
    preset = get_preset("lingbot-world-fast")
    whole = plan_memory(wanted(preset)).weights["transformer"]
    options = EngineOptions(offload="blocks", resident_blocks=2, text_encoder="swap")
    plan = plan_memory(wanted(preset, options=options))
    assert plan.weights["transformer"] < 2.5 * whole / 40 + 1 * GB
    assert plan.prompt / GB == pytest.approx(11.36, rel=0.001)
    both = plan.chunk["passes"] + plan.chunk["decode"]
    assert plan.peak() == plan.held() + max(plan.chunk["encode"], both, plan.prompt)


def test_more_latent_frames_at_once_hold_no_more_histories() -> None:
    """Between two latent frames of one decode the older history is given up layer by layer."""
    params, grid = get_preset("lingbot-world-fast").vae, (8, 12)
    assert isinstance(params, WanVAEParams)
    vae = on_meta(WanVAE, params)
    one, three = (decoding(vae, chunk, grid) for chunk in (1, 3))
    assert one.history == three.history
    assert three.workspace - one.workspace < one.history / 5  # frames, but no second history


def test_the_peak_of_what_lives_at_once() -> None:
    def run() -> None:
        a = torch.empty(100)  # 400 bytes
        b = a + 1
        del a
        b.mul_(2)  # nothing new
        c = b[:10]  # a view
        del b, c
        torch.empty(50)

    assert peak_bytes(run) == 800
    outside = torch.empty(1000)
    assert peak_bytes(lambda: outside.add_(1)) == 0
    with LivePeak() as live:
        kept = torch.empty(10, device="meta")
        assert live.now == kept.untyped_storage().nbytes() == 40
        del kept
        assert live.now == 0 and live.peak == 40


def test_what_an_operator_takes_is_seen() -> None:
    a = torch.ones(500)

    def run() -> None:
        b = a + 1
        c = b + 1
        del b
        (c + 1).sum()

    assert 4000 <= workspace_bytes(run, CPU) < 4200
    events = [(3, -10), (1, 10), (2, 30), (4, 5)]
    told = [
        SimpleNamespace(
            name=lambda: "[memory]", start_ns=lambda at=at: at, nbytes=lambda size=size: size
        )
        for at, size in events
    ]
    assert highest(told) == 40

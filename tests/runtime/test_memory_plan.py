"""What is planned is what is measured; and what does not fit is refused before it is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

import worldline
from tests import tiny
from worldline.bench.chunk import ChunkRequest, controls, open_session, warmup_chunks
from worldline.bench.plan import Wanted, plan_memory
from worldline.bench.workspace import workspace_bytes
from worldline.core.config import EngineOptions
from worldline.core.errors import CapacityError
from worldline.models.preset import resolve_runtime
from worldline.runtime import memory
from worldline.runtime.engine import World
from worldline.runtime.ledger import Ledger
from worldline.runtime.memory import Kept
from worldline.runtime.memory_plan import MemoryPlan
from worldline.runtime.state import Geometry
from worldline.runtime.weigh import tensors_in, weigh

CPU = torch.device("cpu")
NO_TIMELINE = EngineOptions(timeline_mb=0)  # what a session was lies on the host


def test_the_numbers_of_the_pocket_world_are_what_it_takes() -> None:
    """Weights and one more session within 5 % of what is measured, one chunk within 10 %."""
    world = worldline.load(
        "pocket", device="cpu", mode="exact", dtype="float32", options=NO_TIMELINE
    )
    info, parts = world.info, world.components
    weights = weigh(tensors_in([parts.dit, parts.vae, parts.text])).nbytes
    assert info.weights_bytes == pytest.approx(weights, rel=0.05)
    with open_session(world, ChunkRequest(chunks=1)) as session:
        for chunk in range(warmup_chunks(session, parts.vae.stationary_latent)):
            session.step(controls(session, chunk))
        held = weigh(tensors_in(session.state)).nbytes
        inside = workspace_bytes(lambda: session.step(controls(session, session.next_chunk)), CPU)
    assert weigh(tensors_in([parts.dit, parts.vae, parts.text])).nbytes == weights
    assert info.session_bytes == pytest.approx(held, rel=0.05)
    assert info.workspace_bytes == pytest.approx(inside, rel=0.1)  # it sees less than the allocator
    assert info.budget_bytes > info.weights_bytes + info.workspace_bytes + info.session_bytes


def test_both_plans_agree() -> None:
    """The one without a model and the one that runs it; also at other settings and sizes."""
    world = worldline.load("pocket", random_weights=True, dtype="float32", threads=1)
    preset = world.preset
    plan = MemoryPlan(world.components, world.shared, world.options)
    for size, changes in ((160, 96), {}), ((320, 192), {"window": 20}), ((160, 96), {"chunk": 2}):
        settings = msgspec.structs.replace(resolve_runtime(preset), **changes)
        dry = plan_memory(Wanted(preset, *size, settings, cuda=False, dtype=torch.float32))
        geometry = Geometry(*size)
        picture = 3 * 4 * size[0] * size[1]
        found = plan.session(settings, geometry)
        assert found == pytest.approx(sum(dry.session.values()) + picture, rel=0.01)
        camera = Kept.of(preset.dit, settings, geometry, dtype=torch.float32).camera
        inside = plan.workspace(settings, geometry)
        assert dry.workspace() <= inside <= 1.02 * (dry.workspace() + camera)
        assert plan.weights == pytest.approx(sum(dry.weights.values()), rel=0.01)


@pytest.mark.parametrize("grid", [(64, 48), (128, 64)])
def test_small_pictures_say_what_large_ones_take(grid: tuple[int, int]) -> None:
    """Wan's autoencoder, whose history and workspace are the most of a large model."""
    world = tiny.world(options=NO_TIMELINE)
    plan = MemoryPlan(world.components, world.shared, world.options)
    settings, size = resolve_runtime(world.preset), Geometry(*grid)
    session = world.start(tiny.picture(), tiny.PROMPT, width=grid[0], height=grid[1])
    for _ in range(12):  # until the start picture's encode repeats and the window is full
        session.step()
    held = weigh(tensors_in(session.state)).nbytes
    encoded = weigh(tensors_in((session.state.image.latents, session.state.image.encoder))).nbytes
    assert plan.session(settings, size) == pytest.approx(held - encoded, rel=0.05)
    # On a CPU, convolutions take up to a fifth more for themselves than Python can see.
    inside = workspace_bytes(session.step, CPU)
    assert 0.8 * inside < plan.workspace(settings, size) < 1.05 * inside


def planned(room: int) -> tuple[World, int]:
    """A world with room for so many sessions, and the bytes of one."""
    world = tiny.world()
    world.plan_memory()
    one = world.info.session_bytes
    world.shared = world.shared._replace(ledger=Ledger(room * one))
    return world, one


def test_what_does_not_fit_is_refused_and_takes_nothing() -> None:
    world, one = planned(2)
    sessions = [world.start(tiny.picture(), tiny.PROMPT) for _ in range(2)]
    with pytest.raises(CapacityError) as caught:
        world.start(tiny.picture(), tiny.PROMPT)
    assert caught.value.retryable and caught.value.got == str(one)
    assert world.counts().rings == 2
    parked = sessions.pop()
    parked.park()
    sessions.append(world.start(tiny.picture(), tiny.PROMPT))
    with pytest.raises(CapacityError):
        parked.step()
    assert parked.parked  # who waits keeps its place on the host
    sessions.pop().close()
    parked.step()
    assert not parked.parked
    for session in (*sessions, parked):
        session.close()
    assert len(world.shared.ledger) == world.counts().rings == 0


def test_a_longer_memory_is_counted_as_it_is() -> None:
    world, one = planned(1)
    with pytest.raises(CapacityError):
        world.start(tiny.picture(), tiny.PROMPT, window=28)
    world.start(tiny.picture(), tiny.PROMPT).close()
    assert world.shared.ledger.open_bytes == 0 and one > 0


def test_how_many_fit_follows_from_the_numbers() -> None:
    info = msgspec.structs.replace(
        tiny.world().info, weights_bytes=50, workspace_bytes=10, session_bytes=12, budget_bytes=100
    )
    assert info.sessions_that_fit() == 3
    assert msgspec.structs.replace(info, budget_bytes=59).sessions_that_fit() == 0
    assert msgspec.structs.replace(info, budget_bytes=0).sessions_that_fit() is None


def test_a_container_limits_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    free = memory.host_bytes()
    assert free > 2**20
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory.host_bytes() == 2_000_000
    assert memory.budget_bytes(CPU, 500) == 500 + 1_600_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.host_bytes() > 2**20


def test_planning_loads_no_compiler() -> None:
    """It happens in every worker while somebody waits; torch's compiler is a second and 100 MB."""
    code = (
        "import sys, worldline\n"
        "world = worldline.load('pocket', random_weights=True, threads=1)\n"
        "assert world.info.session_bytes > 0\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_planning_changes_no_frame() -> None:
    films = []
    for plans in (False, True):
        world = tiny.world()
        if plans:
            world.plan_memory()
        with world.start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
            films.append(np.concatenate([session.step().frames for _ in range(3)]))
    assert np.array_equal(*films)

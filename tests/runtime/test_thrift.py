"""Whole sessions that save memory: blocks on the host, keys and values in int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.runtime.engine import World, load
from worldline.runtime.kv_cache import KVRing
from worldline.runtime.kv_int8 import Int8Ring

WALK = ("w", "l")


def frames(world: World, chunks: int = 4) -> np.ndarray:
    """The frames of a short walk, and of a second prompt on the way."""
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    session = world.start(
        picture, tiny.PROMPT, 3, width=48, height=32, chunk=2, window=5, sink=1, steps=2
    )
    with session:
        made = [
            session.step([WALK] * 2, prompt="snow" if i == 2 else None).frames
            for i in range(chunks)
        ]
    return np.concatenate(made)


def pocket(mode: str = "exact", options: EngineOptions | None = None) -> World:
    """Random weights of the pocket preset: six blocks."""
    return load(
        "pocket",
        device="cpu",
        mode=mode,
        threads=1,
        random_weights=True,
        options=options or EngineOptions(),
    )


@pytest.mark.parametrize("mode", ["exact", "8bit"])
@pytest.mark.parametrize("camera_cache", ["auto", "off"])
def test_offload_changes_no_bit_of_a_walk(mode: str, camera_cache: str) -> None:
    cache = "off" if camera_cache == "off" else "auto"
    whole = frames(pocket(mode, EngineOptions(camera_cache=cache)))
    for resident in (1, 3):
        options = EngineOptions(camera_cache=cache, offload="blocks", resident_blocks=resident)
        assert np.array_equal(whole, frames(pocket(mode, options)))


def test_two_sessions_share_the_slots() -> None:
    options = EngineOptions(offload="blocks")
    whole, parted = pocket(), pocket(options=options)
    picture = tiny.picture()
    found: dict[str, list[np.ndarray]] = {}
    for name, world in (("whole", whole), ("parted", parted)):
        with (
            world.start(picture, tiny.PROMPT, 1, width=48, height=32, window=4, steps=2) as a,
            world.start(picture, "snow", 2, width=48, height=32, window=4, steps=2) as b,
        ):
            found[name] = [s.step([WALK]).frames for _ in range(3) for s in (a, b)]
    for ours, theirs in zip(found["whole"], found["parted"], strict=True):
        assert np.array_equal(ours, theirs)


def test_eight_bit_keys_take_half_of_sixteen_and_change_little() -> None:
    full = tiny.world()
    small = tiny.world(options=EngineOptions(kv="8bit"))
    rings = {}
    latents: dict[str, list[torch.Tensor]] = {}
    for name, world in (("full", full), ("small", small)):
        with world.start(tiny.picture(), tiny.PROMPT, keep_latents=True) as session:
            for _ in range(4):
                session.step([WALK] * 3)
            assert session.state.film is not None
            rings[name], latents[name] = session.state.kv, session.state.film._chunks
    assert isinstance(rings["full"], KVRing) and isinstance(rings["small"], Int8Ring)
    head_dim = small.components.dit.params.head_dim
    assert rings["small"].nbytes * 4 * head_dim == rings["full"].nbytes * (head_dim + 4)
    for ours, theirs in zip(latents["full"], latents["small"], strict=True):
        error = (ours - theirs).square().mean() / ours.square().mean()
        assert 0 < error < 1e-3


def test_eight_bit_keys_survive_a_new_origin_of_time() -> None:
    """Turned keys are quantised from the turned value: the walk goes on, a little off."""
    options = EngineOptions(kv="8bit")
    near = frames(tiny.world(options=options), chunks=8)
    turned = frames(tiny.world(options=options, reanchor_at=8), chunks=8)
    difference = np.abs(near.astype(int) - turned.astype(int))
    assert difference.max() > 0
    assert difference.mean() < 2.0

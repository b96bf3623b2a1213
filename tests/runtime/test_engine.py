"""Sessions on the small model: counts, isolation, same bits, caches, errors, leaving nothing."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from tests import tiny
from worldline.core.camera import Intrinsics
from worldline.core.chunk import Chunk
from worldline.core.config import EngineOptions
from worldline.core.errors import (
    ConfigError,
    ControlError,
    ImageError,
    PromptError,
    SessionClosedError,
)
from worldline.models.registry import get_preset
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World, make_schedule, nearest_size
from worldline.runtime.savings import SAVINGS
from worldline.runtime.session import Session

WALK: list[Controls] = [
    [(), ("w",), ("w", "l")],
    [("w",), ("w", "d"), ()],
    None,
    [("i",), ("j",), ("s", "k")],
]


def walk(world: World, seed: int = 1, *, prompt: str = tiny.PROMPT) -> list[Chunk]:
    with world.start(tiny.picture(seed), prompt, seed) as session:
        return [session.step(controls) for controls in WALK]


def same(a: list[Chunk], b: list[Chunk]) -> bool:
    return all(np.array_equal(x.frames, y.frames) for x, y in zip(a, b, strict=True))


def test_first_chunk_is_shorter() -> None:
    chunks = walk(tiny.world())
    assert [c.index for c in chunks] == [0, 1, 2, 3]
    assert [c.frames.shape for c in chunks] == [(9, 32, 48, 3)] + [(12, 32, 48, 3)] * 3
    assert all(c.frames.dtype == np.uint8 for c in chunks)
    assert all(c.timings.total_ms > 0 and c.timings.denoise_ms > 0 for c in chunks)


def test_same_input_same_bits() -> None:
    assert same(walk(tiny.world()), walk(tiny.world()))
    assert not same(walk(tiny.world()), walk(tiny.world(), seed=2))


def test_interleaved_sessions_equal_lone_ones() -> None:
    world = tiny.world()
    alone = [walk(world, 1), walk(world, 2, prompt="a green valley")]
    first = world.start(tiny.picture(1), tiny.PROMPT, 1)
    second = world.start(tiny.picture(2), "a green valley", 2)
    mixed: list[list[Chunk]] = [[], []]
    order = [first, second, second, first, first, first, second, second]
    for session in order:
        which = 0 if session is first else 1
        mixed[which].append(session.step(WALK[session.next_chunk]))
    assert same(mixed[0], alone[0])
    assert same(mixed[1], alone[1])


def test_everything_is_computed_once_per_what_it_depends_on() -> None:
    world = tiny.world()
    session = world.start(tiny.picture(), tiny.PROMPT)
    for controls in WALK:
        session.step(controls)
    chunks = len(WALK)
    computed = dict(session.state.caches.computed)
    assert computed == {
        "cross_kv": 1,
        "rope": chunks,
        "rays": chunks,
        "camera": chunks,
        **{f"time/{step}": 1 for step in (-1, 0, 1, 2, 3)},
    }
    engine = session.engine
    assert engine.workspace.computed["camera_modulation"] == chunks
    assert len(engine.workspace) == 0


def test_prompt_switch_recomputes_text_only_and_shows() -> None:
    world = tiny.world()
    plain = world.start(tiny.picture(), tiny.PROMPT)
    switched = world.start(tiny.picture(), tiny.PROMPT)
    assert same([plain.step()], [switched.step()])
    assert not same([plain.step()], [switched.step(prompt="a frozen lake at night")])
    assert switched.state.caches.computed["cross_kv"] == 2
    assert switched.state.caches.computed["time/0"] == 1


def test_prompt_blend_recomputes_until_it_arrives() -> None:
    session = tiny.world().start(tiny.picture(), tiny.PROMPT)
    session.step()
    session.step(prompt="a frozen lake at night", blend_chunks=2)
    session.step()
    session.step()
    assert session.state.caches.computed["cross_kv"] == 3


def test_camera_cache_changes_no_bit() -> None:
    assert same(walk(tiny.world()), walk(tiny.world(options=EngineOptions(camera_cache="off"))))


CLASS_A = [name for name, saving in SAVINGS.items() if saving.kind == "A"]


@pytest.mark.parametrize("name", [*CLASS_A, "all"])
def test_a_class_a_saving_changes_no_bit(name: str) -> None:
    off = set(CLASS_A) if name == "all" else {name}
    world = tiny.world(without=off)
    assert same(walk(tiny.world()), walk(world))


def test_a_saving_switched_off_is_computed_in_every_pass() -> None:
    world = tiny.world(without=set(SAVINGS))
    session = world.start(tiny.picture(), tiny.PROMPT)
    session.step()
    passes = len(session.state.schedule.timesteps) + 1
    computed = session.state.caches.computed
    assert computed["rope"] == computed["camera"] == computed["cross_kv"] == passes
    assert sum(n for name, n in computed.items() if name.startswith("time/")) == passes
    with pytest.raises(ConfigError, match="saving"):
        tiny.world(without={"luck"})


def test_controls_reach_the_picture() -> None:
    world = tiny.world()
    still = world.start(tiny.picture(), tiny.PROMPT)
    moving = world.start(tiny.picture(), tiny.PROMPT)
    assert not same([still.step()], [moving.step([(), ("w",), ("w",)])])


def test_prepare_ahead_changes_no_bit() -> None:
    plain = walk(tiny.world())
    session = tiny.world().start(tiny.picture(1), tiny.PROMPT, 1)
    ahead = []
    for controls in WALK:
        session.prepare()
        ahead.append(session.step(controls))
    assert same(plain, ahead)


def test_a_failed_step_can_be_repeated() -> None:
    plain = walk(tiny.world())
    session = tiny.world().start(tiny.picture(1), tiny.PROMPT, 1)
    chunks = []
    for controls in WALK:
        with pytest.raises(ControlError):
            session.step([("w",), ("fly",), ()], prompt="another place")
        with pytest.raises(PromptError):
            session.step(controls, prompt="  ")
        chunks.append(session.step(controls))
    assert same(plain, chunks)


@pytest.mark.parametrize("stage", ["denoise", "context", "decode"])
def test_a_crash_inside_a_chunk_can_be_repeated(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = walk(tiny.world())
    world = tiny.world()
    session = world.start(tiny.picture(1), tiny.PROMPT, 1)
    place = {
        "denoise": "worldline.runtime.passes.denoise_pass",
        "context": "worldline.runtime.passes.context_pass",
        "decode": "worldline.models.wan.vae.WanVAE.decode_stream",
    }[stage]

    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError("planted")

    chunks = []
    for controls in WALK:
        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            with pytest.raises(RuntimeError, match="planted"):
                session.step([("s",)] * 3)
        chunks.append(session.step(controls))
    assert same(plain, chunks)


def test_closing_leaves_nothing() -> None:
    world = tiny.world()
    session = world.start(tiny.picture(), tiny.PROMPT)
    session.step()
    state = session.state
    held = [weakref.ref(o) for o in (state, state.kv, state.kv.buffers()[0], state.image.picture)]
    caches = state.caches
    del state
    session.close()
    session.close()
    gc.collect()
    assert [ref() for ref in held] == [None] * 4
    assert len(caches) == 0
    assert len(world.shared.workspace) == 0
    with pytest.raises(SessionClosedError):
        session.step()


def test_requests_of_one_session_do_not_stay() -> None:
    world = tiny.world()
    small = world.start(tiny.picture(), tiny.PROMPT, window=4, sink=1, chunk=2, steps=2)
    assert (small.window, small.sink, small.chunk, small.steps) == (4, 1, 2, 2)
    assert small.step().frames.shape[0] == 5
    later = world.start(tiny.picture(), tiny.PROMPT)
    assert (later.window, later.sink, later.chunk, later.steps) == (7, 2, 3, 4)


def test_attention_limit_and_intrinsics_reach_the_session() -> None:
    lens = Intrinsics(400.0, 410.0, 420.0, 200.0)
    world = tiny.world(max_attention_frames=4)
    state = world.start(tiny.picture(), tiny.PROMPT, intrinsics=lens).state
    assert state.kv.params.max_attention_frames == 4
    assert state.intrinsics == lens
    assert world.start(tiny.picture(), tiny.PROMPT).state.intrinsics == world.preset.intrinsics


def test_portrait_picture_gets_a_portrait_world() -> None:
    session = tiny.world().start(np.rot90(tiny.picture()), tiny.PROMPT)
    assert (session.width, session.height) == (32, 48)
    assert nearest_size(((832, 480), (480, 832)), 600, 600) == (832, 480)


def test_action_control_has_seven_channels() -> None:
    world = tiny.world(dit=tiny.dit_params(control_dim=7))
    pressed = world.start(tiny.picture(), tiny.PROMPT).step([(), ("w",), ("w",)])
    still = world.start(tiny.picture(), tiny.PROMPT).step()
    assert not same([pressed], [still])


def start(
    world: World,
    *,
    width: int | None = None,
    height: int | None = None,
    window: int | None = None,
) -> Session:
    picture = tiny.picture()
    return world.start(picture, tiny.PROMPT, width=width, height=height, window=window)


def test_bad_starts_are_typed() -> None:
    world = tiny.world()
    with pytest.raises(ConfigError, match="window"):
        start(world, window=4)
    with pytest.raises(ConfigError, match="16"):
        start(world, width=50, height=32)
    with pytest.raises(PromptError):
        world.start(tiny.picture(), "")
    for picture in (np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(ImageError):
            world.start(picture, tiny.PROMPT)  # type: ignore[arg-type]
    assert start(world).step().frames.shape[0] == 9


def test_schedules_of_the_presets() -> None:
    world = tiny.world()
    session = start(world)
    assert session.state.schedule.timesteps == (999, 978, 947, 825)
    for name in ("pocket", "lingbot-world-v2-14b"):
        preset = get_preset(name)
        with_chunk = tiny.preset(sampler=preset.sampler)
        settings = session.state.settings
        assert len(make_schedule(with_chunk, settings).timesteps) == len(settings.steps)


def test_noise_depends_on_seed_chunk_and_pass_only() -> None:
    noise = tiny.world().start(tiny.picture(), tiny.PROMPT, 5).state.noise
    again = tiny.world().start(tiny.picture(), tiny.PROMPT, 5).state.noise
    shape = (1, 16, 3, 4, 6)
    assert torch.equal(noise(2, 1, shape), again(2, 1, shape))
    draws = [noise(c, p, shape) for c in range(3) for p in range(3)]
    assert len({float(d.sum()) for d in draws}) == 9


def test_what_the_bits_depend_on_is_told() -> None:
    options = EngineOptions(recache=True)
    info = tiny.world(options=options).info
    assert (info.weights, info.options, info.torch) == ("tiny", options, str(torch.__version__))
    assert info.machine.endswith(torch.backends.cpu.get_cpu_capability())

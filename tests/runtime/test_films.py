"""Films: against plain loops over the networks, between live sessions, in every way of guidance."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from tests import film_worlds as worlds
from tests import tiny
from worldline.bench import dry_run
from worldline.core.camera import scale_intrinsics
from worldline.core.errors import (
    CapacityError,
    ConfigError,
    ControlError,
    PromptError,
    SessionClosedError,
)
from worldline.core.film import FilmPath, FilmRequest
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.presets import DIT_1_3B, DIT_14B
from worldline.ops.plucker import action_condition, camera_condition
from worldline.runtime.conditions import PoseControls
from worldline.runtime.engine import World
from worldline.runtime.films import FilmJob, open_film
from worldline.runtime.films_sides import pass_bytes
from worldline.runtime.inputs import picture_condition
from worldline.runtime.noise import SeededNoise
from worldline.runtime.parts import on_meta

pytest.importorskip("diffusers")
TOLERANCE = 1e-4


def latents_of(job: FilmJob) -> Tensor:
    """All latents of a film, `[1, 16, T, h, w]`."""
    while not job.done:
        job.advance()
    return torch.cat(job.latents, dim=2)


@torch.no_grad()
def plain_clip(world: World, asked: FilmRequest, *, solver: str = "unipc") -> Tensor:
    """The clip by the networks' own `forward` and diffusers, without anything of ours between."""
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    path = asked.path
    assert path is not None and world.preset.chunk is not None
    relative, keys = path.arrays()
    intrinsics = torch.tensor(scale_intrinsics(world.preset.intrinsics, tiny.WIDTH, tiny.HEIGHT))
    rays = camera_condition(torch.tensor(relative), intrinsics, tiny.HEIGHT, tiny.WIDTH)
    if keys is not None:
        rays = action_condition(
            torch.tensor(relative), intrinsics, torch.tensor(keys), tiny.HEIGHT, tiny.WIDTH
        )
    with open_film(world, asked, tiny.picture()) as job:
        state, engine = job._setup.session.state, job._setup.session.engine
        condition = picture_condition(engine, state, range(world.preset.chunk))
    texts = [world.components.text.encode([words]) for words in (tiny.PROMPT, worlds.NEGATIVE)]
    shift, count = world.preset.sampler.shift, worlds.STEPS
    u = (
        np.linspace(np.float32(0.999), 0, count + 1)
        if solver == "unipc"
        else 1 - np.arange(count + 1) / count
    )
    sigmas = (shift * u / (1 + (shift - 1) * u)).astype(np.float32)
    kind = UniPCMultistepScheduler if solver == "unipc" else DPMSolverMultistepScheduler
    steps = kind(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2)
    steps.sigmas = torch.tensor([*sigmas[:-1], 0.0])
    steps.timesteps = torch.tensor((1000 * u * shift / (1 + (shift - 1) * u))[:-1].astype(int))
    steps.num_inference_steps = count
    steps.set_begin_index(0)
    x = SeededNoise(asked.seed)(0, 0, (1, 16, *condition.shape[2:]))
    low = world.components.low_noise_dit
    assert isinstance(low, LingBotDiT)
    for t in steps.timesteps:
        dit = world.components.dit if t >= 1000 * worlds.BOUNDARY else low
        x36 = torch.cat([x, condition], dim=1)
        flow, other = (dit(x36, t.reshape(1), text=text, control=rays) for text in texts)
        x = steps.step(other + 5.0 * (flow - other), t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_a_clip_is_what_the_networks_make_of_it(solver: str) -> None:
    world, asked = worlds.base(), worlds.request(3, solver=solver)
    plain = plain_clip(world, asked, solver=solver)
    with open_film(world, asked, tiny.picture()) as job:
        torch.testing.assert_close(latents_of(job), plain, atol=TOLERANCE, rtol=0)


def test_both_experts_are_asked() -> None:
    world, asked = worlds.base(), worlds.request(3)
    with open_film(world, asked, tiny.picture()) as job:
        experts = [job._setup.expert(t) for t in job._setup.solver(0).timesteps]
    assert experts == sorted(experts) and set(experts) == {0, 1}


def test_keys_control_an_action_model() -> None:
    world = worlds.base(control_dim=7)
    walked = worlds.request(3, path=FilmPath.of(worlds.walk(3), worlds.keys(3)))
    still = worlds.request(3, path=FilmPath.of(worlds.walk(3), 0 * worlds.keys(3)))
    plain = plain_clip(world, walked)
    with open_film(world, walked, tiny.picture()) as job:
        torch.testing.assert_close(latents_of(job), plain, atol=TOLERANCE, rtol=0)
    with open_film(world, still, tiny.picture()) as job:
        assert (latents_of(job) - plain).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("kind", ["base", "pretrain"])
def test_every_way_of_running_the_branches_gives_the_same(kind: str) -> None:
    world = worlds.base() if kind == "base" else worlds.pretrain()
    frames, chunks = (3, 1) if kind == "base" else (8, 4)
    found = {}
    for way in ("sequence", "batched"):
        asked = worlds.request(frames, chunks=chunks, branches=way)
        with open_film(world, asked, tiny.picture()) as job:
            found[way] = latents_of(job)
    partner = worlds.base() if kind == "base" else worlds.pretrain()
    asked = worlds.request(frames, chunks=chunks)
    with open_film(world, asked, tiny.picture(), partner=partner) as job:
        found["apart"] = latents_of(job)
    for way in ("batched", "apart"):
        torch.testing.assert_close(found[way], found["sequence"], atol=TOLERANCE, rtol=0)


def test_the_negative_prompt_and_the_scale_matter() -> None:
    world = worlds.pretrain()
    films = {
        name: worlds.made(world, worlds.request(2, **changes))
        for name, changes in {
            "own": {},
            "named": {"negative_prompt": worlds.NEGATIVE},
            "other": {"negative_prompt": "bright"},
            "weak": {"guidance": 1.5},
            "none": {"guidance": 1.0},
        }.items()
    }
    assert np.array_equal(films["own"], films["named"])
    names = ["own", "other", "weak", "none"]
    assert all(
        not np.array_equal(films[a], films[b]) for i, a in enumerate(names) for b in names[:i]
    )


def test_without_guidance_there_is_one_branch_and_no_second_ring() -> None:
    world = worlds.pretrain()
    with open_film(world, worlds.request(2, guidance=1.0), tiny.picture()) as job:
        assert job._setup.negative is None
        assert world.counts().rings == 1
        assert (world.shared.texts.encoded, world.shared.negatives.encoded) == (1, 0)
    assert world.counts().rings == 0


def test_the_negative_prompt_is_encoded_once_over_ten_films() -> None:
    world = worlds.pretrain()
    for seed in range(10):
        with open_film(world, worlds.request(2, seed=seed), tiny.picture()) as job:
            job.advance()
    assert world.shared.negatives.encoded == 1
    open_film(world, worlds.request(2, negative_prompt="dark"), tiny.picture()).close()
    assert world.shared.negatives.encoded == 2


def test_each_branch_has_a_ring_and_gives_it_back() -> None:
    world = worlds.pretrain()
    job = open_film(world, worlds.request(2), tiny.picture())
    assert world.counts().rings == 2
    job.close()
    job.close()
    assert world.counts().rings == 0
    with pytest.raises(SessionClosedError):
        job.advance()


@pytest.mark.parametrize("kind", ["dmd", "euler"])
def test_a_film_of_a_live_model_shows_what_a_session_shows(kind: str) -> None:
    few = msgspec.structs.replace(tiny.preset().sampler, kind=kind, steps=(0, 250, 500))
    world = tiny.world(sampler=few, reanchor_at=10)
    path = worlds.walk(15)
    with world.start(tiny.picture(), tiny.PROMPT, 42) as session:
        chunks = [session.step(PoseControls(path[3 * i : 3 * i + 3])).frames for i in range(5)]
    film = worlds.made(world, worlds.request(15, chunks=5))
    assert np.array_equal(film, np.concatenate(chunks))


def test_live_sessions_step_in_between() -> None:
    world = tiny.world()
    asked = worlds.request(9, chunks=3)
    alone = worlds.made(world, asked)
    with world.start(tiny.picture(1), "snow", 3) as session:
        quiet = [session.step([("w",)] * 3).frames for _ in range(8)]
    frames = []
    with (
        open_film(world, asked, tiny.picture()) as job,
        world.start(tiny.picture(1), "snow", 3) as session,
    ):
        shown = []
        while not job.done:
            frames.append(job.advance())
            if len(shown) < len(quiet):
                shown.append(session.step([("w",)] * 3).frames)
    assert np.array_equal(np.concatenate([f for f in frames if f is not None]), alone)
    assert all(np.array_equal(a, b) for a, b in zip(shown, quiet, strict=True))


def test_clips_follow_one_another() -> None:
    world = worlds.base()
    asked = worlds.request(7, chunks=3)  # 3 + 2 + 2 latent frames
    with open_film(world, asked, tiny.picture()) as job:
        film = worlds.whole(job)
        assert job.progress.frames == job.progress.total_frames == len(film) == 25
        assert job.progress.done == job.progress.total
        first, second = job.latents[0], job.latents[1]
    assert not torch.equal(first, second)
    # The second clip is one that begins with the last picture of the first.
    alone = worlds.made(world, worlds.request(3, path=FilmPath.of(worlds.walk(7)[:3])))
    assert np.array_equal(film[:9], alone)


def test_progress_tells_each_turn() -> None:
    world = worlds.pretrain()
    with open_film(world, worlds.request(4, chunks=2), tiny.picture()) as job:
        stages = []
        while not job.done:
            job.advance()
            assert job.progress.done == len(stages) + 1 <= job.progress.total
            stages.append(job.progress.stage)
        assert job.progress.chunks == 2 and job.turn_frames == 4
    decodes = ["decode"] * 2
    one = ["conditions", *["denoise"] * 3, *decodes]
    assert stages == [*one, "context", *one]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"chunks": 0}, ConfigError, "no such length"),
        ({"chunks": 10**9}, ConfigError, "no such length"),
        ({"path": FilmPath.of(worlds.walk(4))}, ControlError, "as long as the film"),
        ({"path": FilmPath(b"123")}, ControlError, "do not fit"),
        ({"path": FilmPath(b"", b"")}, ControlError, "do not fit"),
        ({"guidance": 0.5}, ConfigError, "unusable guidance"),
        ({"guidance": float("nan")}, ConfigError, "unusable guidance"),
        ({"prompt": " "}, PromptError, "empty"),
        ({"steps": 0}, ConfigError, "steps"),
        ({"shift": -1.0}, ConfigError, "shift"),
        ({"width": 50, "height": 32}, ConfigError, "multiples of 16"),
        ({"chunk": 1, "chunks": 3}, ConfigError, "add nothing"),
    ],
)
def test_what_cannot_be_made_is_refused(
    changes: dict[str, object], error: type[Exception], words: str
) -> None:
    world = worlds.base()
    with pytest.raises(error, match=words):
        open_film(world, worlds.request(3, **changes), tiny.picture())
    assert world.counts().rings == 0


@pytest.mark.parametrize(
    "changes",
    [{"chunk": 60_000, "width": 832, "height": 480}, {"width": 1 << 24, "height": 1 << 24}],
)
def test_a_clip_that_would_take_all_memory_is_refused_at_once(changes: dict[str, int]) -> None:
    asked = msgspec.structs.replace(FilmRequest(prompt="a place"), **changes)
    with pytest.raises(CapacityError, match="latent frames at once"):
        open_film(worlds.base(), asked, tiny.picture())


@pytest.mark.parametrize("params", [DIT_14B, DIT_1_3B], ids=["14B", "1.3B"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_a_pass_takes_is_known_beforehand(params: DiTParams, dtype: torch.dtype) -> None:
    dit = on_meta(LingBotDiT, msgspec.structs.replace(params, num_layers=2))
    for name, parameter in dit.named_parameters():
        parameter.data = parameter.data.to(dit.storage_dtype(name, dtype))
    measured = dry_run.passing(dit, 21, (30, 52))
    assert measured <= pass_bytes(dit, 21 * 30 * 52) <= 1.5 * measured


def test_a_distilled_model_takes_no_guidance() -> None:
    for changes in ({"guidance": 3.0}, {"negative_prompt": "grey"}, {"solver": "unipc"}):
        with pytest.raises(ConfigError, match="distilled"):
            open_film(tiny.world(), worlds.request(3, **changes), tiny.picture())


def test_a_second_device_needs_the_same_weights_and_guidance() -> None:
    other = tiny.world()
    other.info = msgspec.structs.replace(other.info, weights="others")
    with pytest.raises(ConfigError, match="other weights"):
        open_film(worlds.pretrain(), worlds.request(2), tiny.picture(), partner=other)
    with pytest.raises(ConfigError, match="nothing for a second device"):
        open_film(tiny.world(), worlds.request(3), tiny.picture(), partner=tiny.world())

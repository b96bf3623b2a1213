"""The presets as published, unknown names, and who wins when chunk, window and steps are set."""

from __future__ import annotations

import msgspec
import pytest

from worldline.core.errors import ConfigError
from worldline.models.preset import Preset, RuntimeValues, resolve_runtime
from worldline.models.registry import PRESETS, get_preset, preset_for_hub_id, require_live
from worldline.models.wan.params import UMT5Params, WanVAEParams

NAMES = (
    "pocket",
    "lingbot-world-fast",
    "lingbot-world-v2-14b",
    "lingbot-world-v2-1.3b",
    "lingbot-world-v2-14b-pretrain",
    "lingbot-world-base-cam",
    "lingbot-world-base-act",
)
LINGBOT = NAMES[1:]
FAST = get_preset("lingbot-world-fast")


def test_these_presets_and_no_others() -> None:
    assert tuple(PRESETS) == NAMES
    assert all(PRESETS[name].name == name for name in NAMES)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        get_preset("lingbot-world-slow")
    assert all(name in str(caught.value) for name in NAMES)
    assert caught.value.got == "lingbot-world-slow"


@pytest.mark.parametrize(
    ("name", "dim", "ffn", "heads", "layers", "control"),
    [
        ("lingbot-world-fast", 5120, 13824, 40, 40, 6),
        ("lingbot-world-v2-14b", 5120, 13824, 40, 40, 6),
        ("lingbot-world-v2-1.3b", 1536, 8960, 12, 30, 6),
        ("lingbot-world-base-cam", 5120, 13824, 40, 40, 6),
        ("lingbot-world-base-act", 5120, 13824, 40, 40, 7),
    ],
)
def test_architecture(name: str, dim: int, ffn: int, heads: int, layers: int, control: int) -> None:
    dit = get_preset(name).dit
    assert (dit.dim, dit.ffn_dim, dit.num_heads, dit.num_layers) == (dim, ffn, heads, layers)
    assert (dit.in_dim, dit.out_dim, dit.freq_dim, dit.text_dim, dit.text_len) == (
        36,
        16,
        256,
        4096,
        512,
    )
    assert dit.eps == 1e-6 and dit.control_dim == control and dit.head_dim == 128


@pytest.mark.parametrize(
    ("name", "chunk", "window", "sink", "kind", "shift", "steps"),
    [
        ("lingbot-world-fast", 3, 18, 9, "dmd", 10.0, (0, 179, 358, 679)),
        ("lingbot-world-v2-14b", 4, 18, 6, "dmd", 10.0, (0, 250, 500, 750)),
        ("lingbot-world-v2-1.3b", 4, 18, 6, "dmd", 10.0, (0, 250, 500, 750)),
    ],
)
def test_run_time_numbers(
    name: str, chunk: int, window: int, sink: int, kind: str, shift: float, steps: tuple[int, ...]
) -> None:
    preset = get_preset(name)
    params = resolve_runtime(preset)
    assert (params.chunk, params.window, params.sink) == (chunk, window, sink)
    assert (preset.sampler.kind, params.shift, params.steps) == (kind, shift, steps)


def test_base_models_are_guided() -> None:
    for name in ("lingbot-world-base-cam", "lingbot-world-base-act"):
        preset = get_preset(name)
        assert preset.experts == 2 and not preset.live
        assert len(preset.sampler.steps) == 70
        assert (preset.sampler.guidance, preset.sampler.boundary) == (5.0, 0.947)
        with pytest.raises(ConfigError, match="makes films only"):
            require_live(preset)
    for name in NAMES[:4]:
        require_live(get_preset(name))


def test_the_causal_model_before_distillation_is_guided() -> None:
    preset, distilled = get_preset("lingbot-world-v2-14b-pretrain"), get_preset(NAMES[2])
    assert not preset.live and not preset.bidirectional and preset.experts == 1
    assert (len(preset.sampler.steps), preset.sampler.guidance) == (40, 5.0)
    assert (preset.chunk, preset.window, preset.sink) == (4, 18, 6)
    assert (preset.dit, preset.licence) == (distilled.dit, distilled.licence)
    base = get_preset("lingbot-world-base-cam")
    assert base.bidirectional and preset.negative_prompt != base.negative_prompt
    assert preset.negative_prompt and base.negative_prompt and not distilled.negative_prompt
    with pytest.raises(ConfigError, match="makes films only"):
        require_live(preset)


@pytest.mark.parametrize("name", LINGBOT)
def test_parts_of_all_lingbot_presets(name: str) -> None:
    preset = get_preset(name)
    assert isinstance(preset.vae, WanVAEParams) and isinstance(preset.text, UMT5Params)
    assert preset.vae.dim == 96 and preset.vae.z_dim == 16
    assert preset.vae.mean[:3] == (-0.7571, -0.7089, -0.9113) and preset.vae.mean[-1] == -0.2921
    assert preset.vae.std[:3] == (2.8184, 1.4541, 2.3275) and preset.vae.std[-1] == 1.9160
    assert (preset.text.vocab, preset.text.dim_ffn, preset.text.num_layers) == (256384, 10240, 24)
    assert preset.intrinsics == (500, 500, 416, 240)
    assert (preset.rig.move, preset.rig.yaw_deg, preset.rig.pitch_deg) == (0.05, 6.0, 4.0)
    assert preset.fps == 16 and (preset.width, preset.height) == (832, 480)


@pytest.mark.parametrize("name", NAMES)
def test_every_size_can_be_generated(name: str) -> None:
    preset = get_preset(name)
    assert (preset.width, preset.height) == preset.sizes[0]
    assert all(w % 16 == 0 and h % 16 == 0 for w, h in preset.sizes)


def test_licences() -> None:
    for name in NAMES:
        preset = get_preset(name)
        if "v2" in name:
            assert preset.licence == "CC BY-NC-SA 4.0"
            assert preset.notice is not None and "no commercial use" in preset.notice
        else:
            assert preset.licence == "Apache-2.0" and preset.notice is None


def test_hub_repositories() -> None:
    assert preset_for_hub_id("robbyant/lingbot-world-fast") is FAST
    v2 = preset_for_hub_id("robbyant/lingbot-world-v2-14b-causal-fast-diffusers")
    assert v2 is get_preset("lingbot-world-v2-14b")
    assert preset_for_hub_id("somebody/else") is None
    owned = [hub_id for preset in PRESETS.values() for hub_id in preset.hub_ids]
    assert len(owned) == len(set(owned))


def open_preset() -> Preset:
    """A preset that leaves chunk, window and sink to the checkpoint."""
    return msgspec.structs.replace(FAST, chunk=None, window=None, sink=None)


def test_request_wins_over_preset_over_checkpoint() -> None:
    checkpoint = RuntimeValues(chunk=2, window=9, sink=1)
    assert resolve_runtime(open_preset(), checkpoint).window == 9
    assert resolve_runtime(FAST, checkpoint).window == 18
    request = RuntimeValues(window=24)
    assert resolve_runtime(FAST, checkpoint, request).window == 24
    assert resolve_runtime(open_preset(), checkpoint, request).chunk == 2


def test_a_value_nobody_states_is_an_error() -> None:
    with pytest.raises(ConfigError, match="chunk, window, sink"):
        resolve_runtime(open_preset(), RuntimeValues())


def test_zero_is_a_value_and_not_an_absence() -> None:
    assert resolve_runtime(FAST, None, RuntimeValues(sink=0)).sink == 0


def test_nothing_of_one_session_stays_for_the_next() -> None:
    before = msgspec.json.encode(FAST)
    default = resolve_runtime(FAST)
    request = RuntimeValues(chunk=4, window=40, sink=2, shift=5.0, steps=2, max_attention_frames=8)
    special = resolve_runtime(FAST, None, request)
    assert special != default
    assert resolve_runtime(FAST) == default
    assert msgspec.json.encode(FAST) == before
    with pytest.raises(AttributeError):
        special.window = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (RuntimeValues(window=11), "at least 12"),
        (RuntimeValues(chunk=10), "at least 19"),
        (RuntimeValues(sink=16), "at least 19"),
        (RuntimeValues(window=0), "at least 12"),
        (RuntimeValues(window=-2), "-1 to keep everything"),
        (RuntimeValues(chunk=0), "chunk is too small"),
        (RuntimeValues(sink=-1), "sink is negative"),
        (RuntimeValues(max_attention_frames=2), "smaller than a chunk"),
        (RuntimeValues(shift=0.0), "shift cannot be used"),
        (RuntimeValues(shift=float("nan")), "shift cannot be used"),
        (RuntimeValues(shift=float("inf")), "shift cannot be used"),
        (RuntimeValues(steps=()), "steps cannot be used"),
        (RuntimeValues(steps=0), "steps cannot be used"),
        (RuntimeValues(steps=(0, 1000)), "steps cannot be used"),
        (RuntimeValues(steps=(500, 250)), "steps cannot be used"),
        (RuntimeValues(steps=(-1, 250)), "steps cannot be used"),
    ],
)
def test_settings_that_cannot_work(request_: RuntimeValues, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        resolve_runtime(FAST, None, request_)


def test_the_smallest_window_and_the_growing_one_work() -> None:
    assert resolve_runtime(FAST, None, RuntimeValues(window=12)).window == 12
    assert resolve_runtime(FAST, None, RuntimeValues(window=-1, sink=40)).window == -1


def test_a_number_of_steps_becomes_indices() -> None:
    assert resolve_runtime(FAST, None, RuntimeValues(steps=4)).steps == FAST.sampler.steps
    assert resolve_runtime(FAST, None, RuntimeValues(steps=2)).steps == (0, 500)
    assert resolve_runtime(FAST, None, RuntimeValues(steps=1)).steps == (0,)
    exact = RuntimeValues(steps=(0, 400, 900))
    assert resolve_runtime(FAST, None, exact).steps == (0, 400, 900)

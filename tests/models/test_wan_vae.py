"""The VAE against recorded outputs of the published code, and its promises about streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from worldline.core.errors import ConfigError, ShapeError
from worldline.models.wan.params import WanVAEParams
from worldline.models.wan.vae import WanVAE
from worldline.models.wan.vae_blocks import temporal_conv
from worldline.models.wan.vae_state import VaeState

TOLERANCE = 1e-4
STREAMS = {"stream1": [1] * 6, "stream3": [3, 3], "stream_1_2_3": [1, 2, 3]}
Records = dict[str, Tensor]


def numbers(dim: int, *, mean: float = 0.0, std: float = 1.0) -> WanVAEParams:
    """Wan 2.1 at another width."""
    return WanVAEParams(
        dim=dim,
        z_dim=16,
        dim_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        temporal_downsample=(False, True, True),
        mean=(mean,) * 16,
        std=(std,) * 16,
    )


@pytest.fixture(scope="module")
def records(golden: Callable[[str], Path]) -> Records:
    return load_file(golden("vae.safetensors"))


@pytest.fixture(scope="module")
def weights(golden: Callable[[str], Path]) -> Records:
    return load_file(golden("vae_weights.safetensors"))


@pytest.fixture(scope="module")
def vae(records: Records, weights: Records) -> WanVAE:
    params = WanVAEParams(
        dim=4,
        z_dim=16,
        dim_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        temporal_downsample=(False, True, True),
        mean=tuple(records["mean"].tolist()),
        std=tuple(records["std"].tolist()),
    )
    model = WanVAE(params)
    model.load_state_dict(weights)
    return model.requires_grad_(False).eval()


def decode_in(vae: WanVAE, latents: Tensor, sizes: Sequence[int]) -> Tensor:
    """Decode in pieces of so many latent frames."""
    state, parts = None, []
    for piece in latents.split(list(sizes), 2):
        video, state = vae.decode_stream(piece, state)
        parts.append(video)
    return torch.cat(parts, 2)


def close(ours: Tensor, recorded: Tensor) -> None:
    torch.testing.assert_close(ours, recorded, atol=TOLERANCE, rtol=0)


def test_encode_equals_the_reference(vae: WanVAE, records: Records) -> None:
    close(vae.encode(records["enc.video"]), records["enc.mu_normalised"])


def test_encode_of_picture_and_grey_equals_the_reference(vae: WanVAE, records: Records) -> None:
    picture, recorded = records["cond.image"], records["cond.latent_of_image_then_zeros"]
    grey = torch.zeros(1, 3, 4 * (recorded.shape[2] - 1), *picture.shape[3:])
    close(vae.encode(torch.cat([picture, grey], 2)), recorded)
    close(vae.encode(picture), records["cond.latent_of_single_image"])


def test_decode_equals_the_reference(vae: WanVAE, records: Records) -> None:
    latents = records["dec.latent_normalised"]
    close(vae.decode(latents), records["dec.video"])
    close(vae.decode_stream(latents, None, clamp=False)[0], records["dec.video_unclamped"])


@pytest.mark.parametrize("name", STREAMS)
def test_streamed_decode_and_its_history_equal_the_reference(
    vae: WanVAE, records: Records, name: str
) -> None:
    state = None
    compared = 0
    for i, piece in enumerate(records["dec.latent_normalised"].split(STREAMS[name], 2)):
        video, state = vae.decode_stream(piece, state, clamp=False)
        close(video, records[f"{name}.chunk{i}.out"])
        for key in (k for k in records if k.startswith(f"{name}.chunk{i}.feat")):
            slot, recorded = state.slots[int(key[-2:])], records[key]
            assert slot is not None
            # The reference keeps one frame where only one was seen; ours has zeros before it.
            close(slot[:, :, -recorded.shape[2] :], recorded)
            compared += 1
    assert name == "stream1" or compared >= 30


@pytest.mark.parametrize("sizes", [[6], [1, 5], [2, 2, 2], [3, 1, 2], [1, 1, 1, 1, 1, 1]])
def test_every_chunking_of_a_decode_gives_the_same_bits(
    vae: WanVAE, records: Records, sizes: list[int]
) -> None:
    latents = records["dec.latent_normalised"]
    assert torch.equal(decode_in(vae, latents, sizes), vae.decode(latents))


@pytest.mark.parametrize("sizes", [[13], [1, 12], [5, 8], [1, 4, 4, 4], [9, 4]])
def test_every_chunking_of_an_encode_gives_the_same_bits(
    vae: WanVAE, records: Records, sizes: list[int]
) -> None:
    state, parts = None, []
    for piece in records["enc.video"].split(sizes, 2):
        latents, state = vae.encode_stream(piece, state)
        parts.append(latents)
    assert torch.equal(torch.cat(parts, 2), vae.encode(records["enc.video"]))
    assert state is not None and state.latents == 4


def test_a_batch_gives_what_each_clip_gives_alone(vae: WanVAE, records: Records) -> None:
    latents = torch.cat([records["dec.latent_normalised"], -records["dec.latent_normalised"]])
    video = torch.cat([records["enc.video"], records["enc.video"].flip(-1)])
    for batch, run in ((latents, vae.decode), (video, vae.encode)):
        together = run(batch)
        for i in range(2):
            close(together[i : i + 1], run(batch[i : i + 1]))


def test_picture_reaches_latent_28_and_no_further(vae: WanVAE, records: Records) -> None:
    picture = records["cond.image"]
    assert vae.stationary_latent == numbers(96).stationary_latent == 29
    grey = torch.zeros(1, 3, 4 * 31, *picture.shape[3:])
    one, other = (vae.encode(torch.cat([x, grey], 2)) for x in (picture, -picture))
    assert not torch.equal(one[:, :, 28], other[:, :, 28])
    assert torch.equal(one[:, :, 29:], other[:, :, 29:])
    assert torch.equal(one[:, :, 29:], one[:, :, 29:30].expand(-1, -1, 3, -1, -1))
    assert not torch.equal(one[:, :, 28], one[:, :, 29])


@pytest.mark.parametrize(
    ("levels", "blocks", "expected"), [((False, True, True), 1, 21), ((True, True, True), 2, 28)]
)
def test_stationary_index_follows_the_architecture(
    levels: tuple[bool, ...], blocks: int, expected: int
) -> None:
    params = WanVAEParams(
        dim=2,
        z_dim=2,
        dim_mult=(1, 1, 1, 1),
        num_res_blocks=blocks,
        temporal_downsample=levels,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
    )
    assert params.stationary_latent == expected
    torch.manual_seed(0)
    # In float64, so that the last faint traces of the picture do not round away.
    model = WanVAE(params).requires_grad_(False).double()
    picture = torch.randn(1, 3, 1, 8, 8, dtype=torch.float64)
    grey = torch.zeros(1, 3, params.time_stride * (expected + 1), 8, 8, dtype=torch.float64)
    one, other = (model.encode(torch.cat([x, grey], 2)) for x in (picture, -picture))
    assert torch.equal(one[:, :, expected:], other[:, :, expected:])
    assert not torch.equal(one[:, :, expected - 1], other[:, :, expected - 1])


def test_history_is_passed_in_and_out_and_nowhere_else(vae: WanVAE, records: Records) -> None:
    latents = records["dec.latent_normalised"]
    before = {name: sorted(vars(module)) for name, module in vae.named_modules()}
    _, state = vae.decode_stream(latents[:, :, :2], None)
    kept = state.clone()
    first, _ = vae.decode_stream(latents[:, :, 2:4], state)
    # Another stream in between, and the same state again: nothing was left behind or changed.
    vae.decode_stream(-latents, None)
    again, _ = vae.decode_stream(latents[:, :, 2:4], state)
    from_copy, _ = vae.decode_stream(latents[:, :, 2:4], kept)
    assert torch.equal(first, again) and torch.equal(first, from_copy)
    assert before == {name: sorted(vars(module)) for name, module in vae.named_modules()}


def test_clone_shares_no_memory(vae: WanVAE, records: Records) -> None:
    _, state = vae.decode_stream(records["dec.latent_normalised"][:, :, :2], None)
    copy = state.clone()
    for mine, theirs in zip(state.slots, copy.slots, strict=True):
        assert mine is not None and theirs is not None
        assert torch.equal(mine, theirs) and mine.data_ptr() != theirs.data_ptr()
    assert (
        copy.nbytes == state.nbytes == sum(slot.nbytes for slot in state.slots if slot is not None)
    )


def test_state_does_not_grow(vae: WanVAE, records: Records) -> None:
    latents = records["dec.latent_normalised"]
    _, state = vae.decode_stream(latents[:, :, :2], None)
    sizes = []
    for _ in range(3):
        _, state = vae.decode_stream(latents, state)
        sizes.append((state.nbytes, held_bytes(state)))
    assert len(set(sizes)) == 1
    # What the slots keep alive is what they show: no view of a larger tensor.
    assert sizes[0][0] == sizes[0][1]


def held_bytes(state: VaeState) -> int:
    return sum(s.untyped_storage().nbytes() for s in state.slots if s is not None)


def test_bfloat16_runs_and_stays_near(vae: WanVAE, records: Records, weights: Records) -> None:
    half = WanVAE(vae.params)
    half.load_state_dict(weights)
    half.requires_grad_(False).to(torch.bfloat16)
    latents = half.encode(records["enc.video"])
    assert latents.dtype == torch.float32
    assert (latents - records["enc.mu_normalised"]).abs().mean() < 0.02
    video, state = half.decode_stream(records["dec.latent_normalised"].bfloat16(), None)
    assert video.dtype == torch.bfloat16
    assert {slot.dtype for slot in state.slots if slot is not None} == {torch.bfloat16}
    assert (video.float() - records["dec.video"]).abs().mean() < 0.03


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_reference(vae: WanVAE, records: Records, weights: Records) -> None:
    model = WanVAE(vae.params)
    model.load_state_dict(weights)
    model.requires_grad_(False).cuda()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        close(model.encode(records["enc.video"].cuda()).cpu(), records["enc.mu_normalised"])
        close(model.decode(records["dec.latent_normalised"].cuda()).cpu(), records["dec.video"])


def test_statistics_survive_casts_and_empty_moves() -> None:
    with torch.device("meta"):
        model = WanVAE(numbers(4, mean=0.1, std=3.3))
    for moved in (model.to_empty(device="cpu"), model.to(torch.bfloat16)):
        assert moved.latent_mean.dtype == torch.float32
        assert torch.equal(moved.latent_mean.flatten(), torch.full((16,), 0.1))
        assert torch.equal(moved.latent_std.flatten(), torch.full((16,), 3.3))
    assert not [name for name in model.state_dict() if "latent" in name]


def test_names_and_size_are_those_of_the_published_file(weights: Records) -> None:
    with torch.device("meta"):
        full = WanVAE(numbers(96)).state_dict()
        tiny = WanVAE(numbers(4)).state_dict()
    assert list(full) == list(tiny)
    assert {k: list(v.shape) for k, v in tiny.items()} == {
        k: list(v.shape) for k, v in weights.items()
    }
    assert len(full) == 194
    assert sum(tensor.numel() for tensor in full.values()) == 126_892_531


@pytest.mark.parametrize("shape", [(1, 3, 2, 16, 16), (1, 3, 1, 16, 12), (1, 4, 1, 16, 16)])
def test_video_that_does_not_fit_is_refused(vae: WanVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as refused:
        vae.encode(torch.zeros(shape))
    assert refused.value.expected and refused.value.got == str(list(shape))


def test_a_stream_keeps_its_frame_groups_and_size(vae: WanVAE) -> None:
    _, state = vae.encode_stream(torch.zeros(1, 3, 1, 16, 16), None)
    for shape in [(1, 3, 1, 16, 16), (1, 3, 5, 16, 16), (1, 3, 0, 16, 16), (1, 3, 4, 16, 24)]:
        with pytest.raises(ShapeError):
            vae.encode_stream(torch.zeros(shape), state)
    _, state = vae.decode_stream(torch.zeros(1, 16, 1, 2, 2), None)
    for shape in [(2, 16, 1, 2, 2), (1, 16, 1, 2, 3), (1, 8, 1, 2, 2), (16, 1, 2, 2)]:
        with pytest.raises(ShapeError):
            vae.decode_stream(torch.zeros(shape), state)


def test_an_encoder_state_is_no_decoder_state(vae: WanVAE) -> None:
    _, state = vae.encode_stream(torch.zeros(1, 3, 1, 16, 16), None)
    with pytest.raises(AssertionError, match="encode state"):
        vae.decode_stream(torch.zeros(1, 16, 1, 2, 2), state)


def test_statistics_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="statistics"):
        WanVAEParams(
            dim=4,
            z_dim=16,
            dim_mult=(1, 2),
            num_res_blocks=1,
            temporal_downsample=(True,),
            mean=(0.0,) * 15,
            std=(1.0,) * 16,
        )


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_stacked_taps_equal_a_three_dimensional_convolution(
    kernel: tuple[int, int, int], stride: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 7, 6, 4, generator=generator)
    weight = torch.randn(3, 5, *kernel, generator=generator)
    bias = torch.randn(3, generator=generator)
    pad = (0, kernel[1] // 2, kernel[2] // 2)
    expected = F.conv3d(x, weight, bias, stride=(stride, 1, 1), padding=pad)
    torch.testing.assert_close(
        temporal_conv(x, weight, bias, stride), expected, atol=1e-4, rtol=1e-5
    )

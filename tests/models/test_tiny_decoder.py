"""The preview decoder: published names and shapes, streaming equals whole clip, explicit state."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.preview import random_decoder
from worldline.core.errors import ShapeError
from worldline.models.presets import TAEW2_1
from worldline.models.wan.tiny import TinyDecoder, TinyState, decoder_only


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The decoder's tensors in `taew2_1.pth`, written down from its description."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, *, bias: bool = True, size: int = 3) -> None:
        shapes[f"decoder.{name}.weight"] = (outputs, inputs, size, size)
        if bias:
            shapes[f"decoder.{name}.bias"] = (outputs,)

    conv("1", 256, 16)
    levels = ((3, 256, 256, 128), (9, 128, 256, 64), (15, 64, 128, 64))
    for place, width, grown, after in levels:
        for block in range(place, place + 3):
            conv(f"{block}.conv.0", width, 2 * width)
            conv(f"{block}.conv.2", width, width)
            conv(f"{block}.conv.4", width, width)
        conv(f"{place + 4}.conv", grown, width, bias=False, size=1)
        conv(f"{place + 5}", after, width, bias=False)
    conv("22", 3, 64)
    return shapes


@pytest.fixture(scope="module")
def decoder() -> TinyDecoder:
    return random_decoder()


def noise(batch: int, frames: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 16, frames, 4, 6, generator=generator)


def whole_clip(decoder: TinyDecoder, latents: torch.Tensor) -> torch.Tensor:
    """All frames of one clip at once, layer by layer as the description has them."""
    weights = dict(decoder.named_parameters())

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        weight = weights[f"decoder.{name}.weight"]
        bias = weights.get(f"decoder.{name}.bias")
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    x = F.relu(conv(torch.tanh(latents[0].transpose(0, 1) / 3) * 3, "1"))  # T C h w
    for place in (3, 9, 15):
        for block in range(place, place + 3):
            past = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
            y = F.relu(conv(torch.cat([x, past], 1), f"{block}.conv.0"))
            y = conv(F.relu(conv(y, f"{block}.conv.2")), f"{block}.conv.4")
            x = F.relu(y + x)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        channels = x.shape[1]
        x = conv(x, f"{place + 4}.conv")
        x = x.reshape(-1, channels, *x.shape[2:])  # times as many frames
        x = conv(x, f"{place + 5}")
    x = conv(F.relu(x), "22")  # 4T 3 H W
    return x[3:].clamp(0, 1).mul(2).sub(1).transpose(0, 1)[None]  # 1 3 F H W


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        decoder = TinyDecoder(TAEW2_1)
    found = {name: tuple(t.shape) for name, t in decoder.state_dict().items()}
    assert found == published_shapes()
    assert decoder_only("encoder.0.weight") is None and decoder_only("decoder.1.bias") is not None


def test_it_is_what_the_layers_say(decoder: TinyDecoder) -> None:
    latents = noise(1, 3)
    video, state = decoder.decode_stream(latents, None)
    assert video.shape == (1, 3, 9, 32, 48)
    assert video.min() >= -1 and video.max() <= 1 and video.std() > 0.05
    torch.testing.assert_close(video, whole_clip(decoder, latents), rtol=0, atol=1e-5)
    assert [t.shape[1] for t in state.past] == [12] * 3 + [10] * 3 + [8] * 3


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1), (3, 2), (1, 4), (2, 2, 1)])
def test_parts_of_a_clip_equal_the_whole(decoder: TinyDecoder, cuts: tuple[int, ...]) -> None:
    latents = noise(2, 5)
    whole, end = decoder.decode_stream(latents, None)
    assert whole.shape == (2, 3, 17, 32, 48)
    parts, state = [], None
    for piece in latents.split(cuts, dim=2):
        pixels, state = decoder.decode_stream(piece, state)
        parts.append(pixels)
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert state is not None
    assert all(torch.equal(a, b) for a, b in zip(state.past, end.past, strict=True))


def test_the_future_changes_nothing_and_the_past_does(decoder: TinyDecoder) -> None:
    latents = noise(1, 4)
    later, earlier = latents.clone(), latents.clone()
    later[:, :, 3] += 1
    earlier[:, :, 1] += 1
    video = decoder.decode_stream(latents, None)[0]
    changed = decoder.decode_stream(later, None)[0]
    assert torch.equal(video[:, :, :9], changed[:, :, :9])
    assert not torch.equal(video[:, :, 9:], changed[:, :, 9:])
    assert not torch.equal(video[:, :, 5:], decoder.decode_stream(earlier, None)[0][:, :, 5:])


def test_the_state_is_a_value(decoder: TinyDecoder) -> None:
    latents = noise(1, 3)
    _, state = decoder.decode_stream(latents[:, :, :1], None)
    copy = state.clone()
    once, _ = decoder.decode_stream(latents[:, :, 1:], state)
    assert torch.equal(once, decoder.decode_stream(latents[:, :, 1:], state)[0])
    for tensor in copy.past:
        tensor.zero_()
    assert torch.equal(once, decoder.decode_stream(latents[:, :, 1:], state)[0])
    assert state.nbytes == sum(t.nbytes for t in state.past)


def test_half_precision_runs_in_the_weights_dtype() -> None:
    decoder = random_decoder().to(torch.bfloat16)
    video, state = decoder.decode_stream(noise(1, 2), None)
    assert video.dtype == torch.float32 and state.past[0].dtype == torch.bfloat16
    near = random_decoder().decode_stream(noise(1, 2), None)[0]
    assert (video - near).abs().mean() < 0.02


@pytest.mark.parametrize("shape", [(16, 1, 4, 6), (1, 15, 1, 4, 6), (1, 16, 0, 4, 6)])
def test_other_shapes_are_refused(decoder: TinyDecoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="latents do not fit"):
        decoder.decode_stream(torch.zeros(shape), None)


def test_a_stream_keeps_its_size(decoder: TinyDecoder) -> None:
    _, state = decoder.decode_stream(noise(1, 1), None)
    assert isinstance(state, TinyState)
    with pytest.raises(ShapeError, match="changed its size"):
        decoder.decode_stream(torch.zeros(1, 16, 1, 6, 6), state)

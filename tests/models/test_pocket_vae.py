"""The pocket autoencoder: streaming equals whole clip, causality, explicit state, PCA start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldline.core.errors import ShapeError
from worldline.models.pocket.params import PocketVAEParams
from worldline.models.pocket.vae import PocketVAE

SMALL = PocketVAEParams(latent_channels=16, encoder=(8, 16), decoder=(16, 16, 8), blocks=2)


@pytest.fixture(scope="module")
def vae() -> PocketVAE:
    """A small autoencoder with random weights everywhere, also where training starts at zero."""
    torch.manual_seed(0)
    vae = PocketVAE(SMALL)
    with torch.no_grad():
        for tensor in [*vae.parameters(), vae.pca, vae.pca_inverse]:
            tensor.add_(0.05 * torch.randn_like(tensor))
        vae.scale.uniform_(0.5, 2.0)
    return vae.eval()


def clip(frames: int) -> torch.Tensor:
    noise = torch.Generator().manual_seed(frames)
    return torch.rand(2, 3, frames, 32, 48, generator=noise) * 2 - 1


@torch.inference_mode()
def test_encode_in_parts_equals_whole(vae: PocketVAE) -> None:
    video = clip(17)
    whole = vae.encode(video)
    assert whole.shape == (2, 16, 5, 4, 6)
    first, state = vae.encode_stream(video[:, :, :1], None)
    second, state = vae.encode_stream(video[:, :, 1:9], state)
    third, _ = vae.encode_stream(video[:, :, 9:], state)
    torch.testing.assert_close(torch.cat([first, second, third], dim=2), whole)


@torch.inference_mode()
def test_decode_in_parts_equals_whole(vae: PocketVAE) -> None:
    latents = torch.randn(2, 16, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    whole = vae.decode(latents)
    assert whole.shape == (2, 3, 17, 32, 48)
    parts, state = [], None
    for piece in (latents[:, :, :2], latents[:, :, 2:3], latents[:, :, 3:]):
        pixels, state = vae.decode_stream(piece, state)
        parts.append(pixels)
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)


@torch.inference_mode()
def test_the_future_changes_nothing(vae: PocketVAE) -> None:
    latents = torch.randn(1, 16, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    other = latents.clone()
    other[:, :, 3] += 1
    assert torch.equal(vae.decode(latents)[:, :, :9], vae.decode(other)[:, :, :9])
    assert not torch.equal(vae.decode(latents)[:, :, 9:], vae.decode(other)[:, :, 9:])


@torch.inference_mode()
def test_state_is_a_value(vae: PocketVAE) -> None:
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    _, state = vae.decode_stream(latents[:, :, :1], None)
    copy = state.clone()
    once, _ = vae.decode_stream(latents[:, :, 1:2], state)
    for tensor in copy.tensors:
        tensor.zero_()
    assert torch.equal(once, vae.decode_stream(latents[:, :, 1:2], state)[0])
    assert not torch.equal(once, vae.decode_stream(latents[:, :, 1:2], copy)[0])


@torch.inference_mode()
def test_stationary_from_the_declared_latent_on(vae: PocketVAE) -> None:
    video = torch.zeros(1, 3, 13, 32, 48)
    video[:, :, 0] = clip(1)[:1, :, 0]
    latents = vae.encode(video)
    grey = latents[:, :, vae.stationary_latent]
    assert not torch.equal(latents[:, :, 0], grey)
    for later in range(vae.stationary_latent, 4):
        torch.testing.assert_close(latents[:, :, later], grey)


@torch.inference_mode()
def test_half_precision_keeps_the_callers_dtype() -> None:
    vae = PocketVAE(SMALL).to(torch.bfloat16)
    latents = vae.encode(clip(5))
    assert latents.dtype == torch.float32
    assert vae.decode(latents).dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 48), (1, 3, 5, 30, 48), (1, 4, 5, 32, 48)])
def test_wrong_video_is_refused(vae: PocketVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="cannot encode"):
        vae.encode(torch.zeros(shape))


def test_wrong_latents_are_refused(vae: PocketVAE) -> None:
    with pytest.raises(ShapeError, match="cannot decode"):
        vae.decode(torch.zeros(1, 15, 1, 4, 6))


def test_training_starts_as_the_pca_codec() -> None:
    pytest.importorskip("numba")
    from recipes.pocket.train_vae import fit_pca, psnr

    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:32, 0:48]
    waves = [np.sin(x * rng.uniform(0.05, 0.2) + y * rng.uniform(0.05, 0.2)) for _ in range(18)]
    frames = np.stack([np.stack([wave] * 3, -1) for wave in waves]) * 100 + 128
    walks = frames.astype(np.uint8).reshape(2, 9, 32, 48, 3)
    vae = PocketVAE(SMALL).eval()
    fit_pca(vae, walks, rng, groups=100)
    assert psnr(vae, walks) > 35
    assert psnr(vae, walks, latent_noise=0.5) < psnr(vae, walks) - 1

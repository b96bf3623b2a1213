"""Stage inputs are checked before they reach the device; each miss is a typed error."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from worldline.core.errors import PromptError, ShapeError


def verify_latents(latents: Tensor, channels: int) -> None:
    """Latents are `[B, channels, T, h, w]` with even h and w. Raises `ShapeError`."""
    _verify_rank(latents, 5, "latents")
    if latents.shape[1] != channels:
        raise ShapeError("latents have wrong channels", expected=channels, got=latents.shape[1])
    if latents.shape[3] % 2 or latents.shape[4] % 2:
        got = tuple(latents.shape[3:])
        raise ShapeError("latent grid does not split into patches", expected="even h, w", got=got)


def verify_image_latents(latents: Tensor) -> None:
    """The image condition is `[B, 20, T, h, w]`: 4 mask and 16 latent channels."""
    _verify_rank(latents, 5, "image latents")
    if latents.shape[1] != 20:
        raise ShapeError("image latents have wrong channels", expected=20, got=latents.shape[1])


def verify_timesteps(timesteps: Tensor) -> None:
    """Timesteps are a non-empty vector `[B]`."""
    _verify_rank(timesteps, 1, "timesteps")
    if timesteps.numel() == 0:
        raise ShapeError("timesteps are empty", expected="[B], B >= 1", got=tuple(timesteps.shape))


def verify_control(control: Tensor, channels: int, shape: tuple[int, int, int]) -> None:
    """The camera or action tensor is `[B, 384|448, T, h, w]` on the latents' grid `shape`."""
    _verify_rank(control, 5, "camera")
    if control.shape[1] != channels or tuple(control.shape[2:]) != shape:
        raise ShapeError(
            "camera does not fit", expected=("B", channels, *shape), got=tuple(control.shape)
        )


def verify_text(states: Tensor, width: int) -> None:
    """Text states are `[B, S, width]` and not empty."""
    _verify_rank(states, 3, "text states")
    if states.numel() == 0:
        raise PromptError("text states are empty", expected="[B, S, C]", got=tuple(states.shape))
    if states.shape[-1] != width:
        raise ShapeError("text states have wrong width", expected=width, got=states.shape[-1])


def stack_text(states: Sequence[Tensor]) -> Tensor:
    """Stack text states `[S, C]` of equal shape to `[B, S, C]`; unequal shapes name both."""
    if not states:
        raise PromptError("no text states", expected="at least one [S, C]", got="none")
    for other in states[1:]:
        if other.shape != states[0].shape:
            expected, got = tuple(states[0].shape), tuple(other.shape)
            raise ShapeError("text states differ in shape", expected=expected, got=got)
    return torch.stack(list(states))


def _verify_rank(tensor: Tensor, rank: int, name: str) -> None:
    if tensor.ndim != rank:
        raise ShapeError(
            f"{name} have the wrong rank", expected=f"{rank}-D", got=f"{tensor.ndim}-D"
        )

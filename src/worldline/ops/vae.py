"""What the engine expects of an autoencoder, whichever family it comes from."""

from __future__ import annotations

from typing import Any, Protocol, Self

from torch import Tensor


class StreamState(Protocol):
    """Features an encoder or decoder carries from one call to the next; owned by the session."""

    def clone(self) -> Self:
        """A copy that shares no memory."""
        ...


class StreamingVae(Protocol):
    """A causal video autoencoder, 4 x 8 x 8 pixels per latent cell, 16 latent channels.

    State is passed in and returned; None starts a clip. Each family has its own class of it, so
    what is passed in must be what the same autoencoder returned. The first latent frame stands for
    one pixel frame, every later one for four.
    """

    @property
    def stationary_latent(self) -> int:
        """From this latent index on, the encode of [picture, mid-grey ...] no longer changes."""
        ...

    @property
    def frame_by_frame(self) -> bool:
        """Whether latent frames one at a time, either way, give the bits of all of them at once."""
        ...

    def encode_stream(self, video: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """`[B, 3, F, H, W]` in [-1, 1] -> normalised latents `[B, 16, f, h, w]` and state."""
        ...

    def decode_stream(self, latents: Tensor, state: Any) -> tuple[Tensor, StreamState]:
        """Latents `[B, 16, f, h, w]` -> video `[B, 3, F, H, W]` in [-1, 1] and state."""
        ...

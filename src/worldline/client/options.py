"""What a caller of the SDK may choose."""

from __future__ import annotations

import msgspec

from worldline.core.live.shared import Format


class WorldOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a world begins. Sizes in pixels, window and sink in latent frames, None is the model's.

    `format` None takes the best that both sides know; `intrinsics` are fx, fy, cx, cy of an
    832x480 picture; `lead_ms` is how much video may wait here. Not `sharded`, a world is not shared
    out among a server's devices, and has the bits of one.
    """

    seed: int = 42
    width: int | None = None
    height: int | None = None
    window: int | None = None
    sink: int | None = None
    format: Format | None = None
    quality: int = 0
    lead_ms: float | None = None
    speed: float = 1.0
    intrinsics: tuple[float, float, float, float] | None = None
    max_chunks: int | None = None
    spectators: bool = True
    sharded: bool = True


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait, in seconds. `queue_s` None waits for a place for ever.

    After a loss the n-th attempt comes `first_s * 2**n` later, at most `most_s`; the attempts end
    with the world's grace time.
    """

    connect_s: float = 10.0
    answer_s: float = 120.0
    queue_s: float | None = None
    first_s: float = 0.25
    most_s: float = 5.0

    def pause(self, attempt: int) -> float:
        """Seconds before this attempt; the first is 0."""
        return min(self.most_s, self.first_s * 2.0 ** min(attempt, 32))

"""How early a key press can be seen: the floor of input-to-photon, from its measured parts.

A chunk of D ms of video is generated in T; an input waits for the next chunk, at most max(T, D),
then for the denoise passes G, the decode of the first pictures V, their encoding E, the network n
(there and back), the client's queue J and the display P:

    mean = max(T, D) / 2 + G + V + E + 2n + J + P        worst = max(T, D) + G + V + E + 2n + J + P

The wait of evenly spread presses has its 95th percentile at 0.95 max(T, D).
"""

from __future__ import annotations

import msgspec


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; `video` is D, `made` is T, `network` is there and back."""

    video: float
    made: float
    denoise: float
    decode: float
    encode: float
    network: float
    queue: float
    display: float

    @property
    def after_the_wait(self) -> float:
        """From the moment at which a chunk samples the hands."""
        after = self.denoise + self.decode + self.encode
        return after + self.network + self.queue + self.display


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the formula gives, in ms."""

    mean: float
    p95: float
    worst: float


def expected(parts: Parts) -> Expected:
    """The formula, for presses at random phases."""
    wait, rest = max(parts.made, parts.video), parts.after_the_wait
    return Expected(mean=wait / 2 + rest, p95=0.95 * wait + rest, worst=wait + rest)

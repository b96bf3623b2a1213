"""What a worker is told when it is started: the model, the devices, and what loads it."""

from __future__ import annotations

import msgspec

from worldline.core.config import DEFAULT_OPTIONS, EngineOptions


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker loads, and how.

    `engine` is `module:callable`; called as `load(model, device=, dtype=, mode=, random_weights=,
    threads=, options=, progress=)` it returns an object shaped like `worldline.World`. With several
    `devices` there is a process (rank) for each instead of one on `device`: each joins by `join`,
    called as `join(address, rank=, size=, device=)`, and `engine` gets what it returns as `group`.
    With `own_vae` the last of several is the autoencoder's.
    """

    model: str
    device: str = "auto"
    dtype: str | None = None
    mode: str = "exact"
    random_weights: bool = False
    threads: int | None = None
    options: EngineOptions = DEFAULT_OPTIONS
    engine: str = "worldline.runtime.engine:load"
    devices: tuple[str, ...] = ()
    join: str = "worldline.runtime.parallel.group:join"
    own_vae: bool = False

    @property
    def ranks(self) -> int:
        """How many processes work together."""
        return max(1, len(self.devices))

    def device_of(self, rank: int) -> str:
        """Where a rank computes."""
        return self.devices[rank] if self.devices else self.device

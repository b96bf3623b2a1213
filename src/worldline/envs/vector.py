"""`WorldVectorEnv`: many walks on one loaded world, that can all become branches of one.

Gymnasium's own synchronous vector environment does the batching and the resets; the walks are
stepped one after the other, because they share one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv

from worldline.core.errors import ConfigError
from worldline.envs.env import Frame, WorldEnv


class WorldVectorEnv(SyncVectorEnv):
    """Walks side by side. Observations uint8 `N H W 3`; ended ones begin anew at the next step."""

    def __init__(self, walks: Sequence[WorldEnv]) -> None:
        """Take walks of one world, such as `[WorldEnv(world) for _ in range(8)]`.

        They may have begun: `WorldVectorEnv(env.branch(8))` goes on from there, and needs no
        `reset`. Raises: ConfigError for none.
        """
        if not walks:
            raise ConfigError("no walks", expected="at least 1", got=0)
        super().__init__([_given(walk) for walk in walks])

    @classmethod
    def branches(cls, env: WorldEnv, n: int) -> WorldVectorEnv:
        """`n` walks that go on from where one stands; that one stays as it is."""
        return cls(env.branch(n))

    @property
    def walks(self) -> tuple[WorldEnv, ...]:
        """The environments, in their order."""
        return cast("tuple[WorldEnv, ...]", tuple(self.envs))

    def spread(self, index: int) -> Frame:
        """Let all walks become branches of walk `index`; the observations, `N H W 3`.

        Raises: ConfigError for a walk that is not there.
        """
        walks = self.walks
        if not 0 <= index < len(walks):
            raise ConfigError("no such walk", expected=f"0 to {len(walks) - 1}", got=index)
        chosen = walks[index]
        for walk in walks:
            if walk is not chosen:
                walk.become(chosen)
        self._autoreset_envs = np.full(len(walks), bool(self._autoreset_envs[index]))
        return self.seen()

    def rewind(self, steps: int) -> Frame:
        """Take every walk back by so many steps; the observations. Raises as `WorldEnv.rewind`, and
        where one of them has not come so far all stay."""
        most = min(walk.history for walk in self.walks)
        if not 0 <= steps <= most:
            raise ConfigError("cannot go back so far", expected=f"0 to {most} steps", got=steps)
        for walk in self.walks:
            walk.rewind(steps)
        self._autoreset_envs[:] = False
        return self.seen()

    def seen(self) -> Frame:
        """What all walks see now, `N H W 3`."""
        return np.stack([walk.seen for walk in self.walks])


def _given(walk: WorldEnv) -> Any:
    def give() -> gymnasium.Env[Frame, Any]:
        return walk

    return give

"""Worlds for agents: Gymnasium environments that can be branched and rewound.

    from worldline.envs import WorldEnv

    env = WorldEnv("pocket")
    frame, info = env.reset(seed=7)
    frame, reward, terminated, truncated, info = env.step(env.action_space.sample())

Needs `pip install "worldline[agents]"`. `register()` makes `gymnasium.make("worldline/Pocket-v0")`
work; nothing is registered by the import alone.
"""

from __future__ import annotations

from worldline.envs.env import Moment, Step, WorldEnv
from worldline.envs.registration import POCKET_ID, register
from worldline.envs.vector import WorldVectorEnv

__all__ = ["POCKET_ID", "Moment", "Step", "WorldEnv", "WorldVectorEnv", "register"]

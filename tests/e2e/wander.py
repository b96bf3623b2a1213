"""A walker who knows the map: chooses what to hold next and keeps away from columns.

It reckons where the visitor stands with the product's own camera rig, from the keys that were held
and for how many latent frames. The page knows nothing of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recipes.pocket.scenes import Scene, StartView, clearance
from recipes.pocket.walks import METRES, RIG, view_state
from worldline.core.camera import CameraState, advance

CLEAR = 1.6  # metres from anything, a little more than the training kept
SPARE = 2  # latent frames by which a press may last longer than meant
# What is held together, and how often it is tried first.
LEGS = {
    "w": 8.0, "wj": 3.0, "wl": 3.0, "j": 2.0, "l": 2.0, "wa": 1.0, "wd": 1.0, "a": 1.0, "d": 1.0,
    "s": 1.0, "i": 0.7, "k": 0.7,
}  # fmt: skip
LONG, SHORT = (8, 17), (3, 8)  # latent frames of a straight leg and of all others


class Leg(NamedTuple):
    """Keys held together for about `latents` latent frames."""

    keys: str
    latents: int


class Walker:
    """Where the visitor is, and what comes next; the same seed tries the same legs."""

    def __init__(self, scene: Scene, view: StartView, *, seed: int = 1) -> None:
        self.scene = scene
        self.state = view_state(view)
        self.held: dict[str, int] = {}
        self._rng = np.random.default_rng(seed)

    def next_leg(self) -> Leg:
        """The first leg in a random order that stays clear of everything; at worst a turn."""
        weights = np.array(list(LEGS.values()))
        order = self._rng.choice(list(LEGS), len(LEGS), replace=False, p=weights / weights.sum())
        for keys in (str(key) for key in order):
            leg = Leg(keys, int(self._rng.integers(*(LONG if keys == "w" else SHORT))))
            if self._is_free(leg):
                return leg
        return Leg("l", LONG[0])

    def walked(self, keys: str, latents: int) -> None:
        """Note that `keys` were really held for `latents` latent frames."""
        for _ in range(latents):
            self.state = advance(self.state, keys, RIG)
        self.held[keys] = self.held.get(keys, 0) + latents

    def room(self, state: CameraState | None = None) -> float:
        """Metres to the nearest object from a state, or from here."""
        x, _, z = (state or self.state).c2w[:3, 3] * METRES
        return clearance(self.scene, float(x), float(z))

    def _is_free(self, leg: Leg) -> bool:
        if self.state.pitch_deg and leg.keys != ("k" if self.state.pitch_deg > 0 else "i"):
            return False  # look level again before anything else
        state = self.state
        for _ in range(leg.latents + SPARE):
            before, state = self.room(state), advance(state, leg.keys, RIG)
            if self.room(state) < min(CLEAR, before):
                return False
        return True

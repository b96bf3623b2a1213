"""What makes a chunk cheaper and its picture different: off unless asked for, see `savings.LEVERS`.

Functions return what the plain path uses where the lever is off.
"""

from __future__ import annotations

import numpy as np

from worldline.core.errors import ConfigError
from worldline.models.preset import GROWING, RuntimeParams
from worldline.runtime.conditions import Moved
from worldline.runtime.inputs import turns
from worldline.runtime.shared import Engine
from worldline.runtime.state import SessionState

LAST_STEP_KV = "last_step_kv"
STILL_WINDOW = "still_window"
SINK_DISTANCE = "sink_distance"


def check_numbers(engine: Engine, settings: RuntimeParams) -> None:
    """Refuse numbers that cannot work with a session's window. Raises `ConfigError`."""
    least = settings.sink + settings.chunk
    frames = engine.levers.get(STILL_WINDOW, least)
    if frames < least:
        raise ConfigError(f"{STILL_WINDOW} cannot hold sink and chunk", expected=least, got=frames)
    if settings.window == GROWING:
        if SINK_DISTANCE in engine.levers:
            raise ConfigError(
                f"{SINK_DISTANCE} needs a window", expected="latent frames", got=GROWING
            )
        return
    cap = engine.levers.get(SINK_DISTANCE, settings.window + settings.chunk)
    if cap < settings.window + settings.chunk:
        raise ConfigError(
            f"{SINK_DISTANCE} reaches into the window",
            expected=f"at least {settings.window + settings.chunk} latent frames",
            got=cap,
        )


def visible_frames(engine: Engine, state: SessionState, motion: Moved) -> list[int] | None:
    """Latent frames to attend to while nothing moves: sink and newest; None for all of them.

    The older ones stay in the ring and are seen again with the first step.
    """
    limit = engine.levers.get(STILL_WINDOW)
    held = state.kv.present_frames(state.next_frame + state.settings.chunk)
    if limit is None or len(held) <= limit or not stands_still(motion):
        return None
    sink = state.settings.sink
    return [*held[:sink], *held[len(held) - (limit - sink) :]]


def stands_still(motion: Moved) -> bool:
    """Whether the camera stays where it is for the whole chunk and no key is down."""
    # A camera that is not moved is still multiplied and divided: it may be off by a rounding.
    return not motion.keys.any() and np.allclose(motion.relative, np.eye(4), rtol=0, atol=1e-6)


def hold_sink(engine: Engine, state: SessionState) -> None:
    """Turn the sink's keys towards the present when they are further away than the cap.

    By half of what may be, so that a key is not rounded anew with every chunk.
    """
    cap, sink, chunk = engine.levers.get(SINK_DISTANCE), state.settings.sink, state.settings.chunk
    if cap is None or sink == 0:
        return
    away = state.next_frame + chunk - state.sink_shift
    if away <= cap:
        return
    offset = away - max(cap // 2, state.settings.window + chunk)
    if offset > 0:
        state.kv.turn(turns(engine.dit, [offset], 1, 1), frames=sink)
        state.sink_shift += offset

"""From `enter` and a picture to what the engine is asked, and from its answer to `opened`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import PICTURES
from worldline.core.live.client import Enter
from worldline.core.live.server import Opened, RigSpeed
from worldline.core.live.shared import State
from worldline.runtime.protocol import OpenReply, OpenRequest


def to_open(enter: Enter, picture: NDArray[np.uint8], *, session_id: str) -> OpenRequest:
    """The request for a checked wish and its picture, uint8 `H W 3`, RGB."""
    return OpenRequest(
        session_id=session_id,
        image=picture.tobytes(),
        image_width=picture.shape[1],
        image_height=picture.shape[0],
        prompt=enter.prompt,
        seed=enter.seed,
        width=enter.width,
        height=enter.height,
        window=enter.window,
        sink=enter.sink,
        intrinsics=enter.intrinsics,
    )


def to_opened(
    reply: OpenReply, *, prompt: str, seed: int, speed: float, first_frame: int, state: State
) -> Opened:
    """The world as it really is, for the one who has the controls."""
    rig = reply.rig
    return Opened(
        width=reply.width,
        height=reply.height,
        fps=reply.fps,
        chunk=reply.chunk,
        latent_frames=PICTURES,
        window=reply.window,
        sink=reply.sink,
        steps=reply.steps,
        seed=seed,
        prompt=prompt,
        rig=RigSpeed(
            move=rig.move,
            yaw_deg=rig.yaw_deg,
            pitch_deg=rig.pitch_deg,
            pitch_limit_deg=rig.pitch_limit_deg,
        ),
        intrinsics=reply.intrinsics,
        first_frame=first_frame,
        controls=True,
        state=state,
        speed=speed,
    )

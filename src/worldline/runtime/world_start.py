"""Between world files and the engine's calls: what a session was opened with, and opens again with.

Torch-free, for both sides of the process boundary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldline.core.walk import Stepped, WorldStart, pixels_digest
from worldline.runtime.protocol import OpenReply, OpenRequest, StepRequest


def world_start(request: OpenRequest, reply: OpenReply, *, picture: bytes) -> WorldStart:
    """What a session began with; `picture` is the encoded file that `request.image` came of."""
    shape = (request.image_height, request.image_width, 3)
    pixels = np.frombuffer(request.image, dtype=np.uint8).reshape(shape)  # H W 3
    return WorldStart(
        picture=picture,
        pixels=pixels_digest(pixels),
        prompt=request.prompt,
        seed=request.seed,
        width=reply.width,
        height=reply.height,
        fps=reply.fps,
        chunk=reply.chunk,
        window=reply.window,
        sink=reply.sink,
        steps=reply.steps,
        rig=reply.rig,
        shift=request.shift,
        intrinsics=request.intrinsics,
    )


def open_request(start: WorldStart, pixels: NDArray[np.uint8], *, session_id: str) -> OpenRequest:
    """Open the same world again, from its decoded picture, uint8 `H W 3`."""
    steps = start.steps
    return OpenRequest(
        session_id=session_id,
        image=pixels.tobytes(),
        image_width=pixels.shape[1],
        image_height=pixels.shape[0],
        prompt=start.prompt,
        seed=start.seed,
        width=start.width,
        height=start.height,
        chunk=start.chunk,
        window=start.window,
        sink=start.sink,
        shift=start.shift,
        steps=steps if isinstance(steps, int) else len(steps),
        intrinsics=start.intrinsics,
        rig=start.rig,
    )


def stepped(request: StepRequest, digest: bytes = b"") -> Stepped:
    """A finished step as a walk remembers it; `digest` is that of its frames."""
    return Stepped(
        motions=request.motions,
        actions=request.actions if request.motions is None else None,
        prompt=request.prompt,
        blend_chunks=request.blend_chunks,
        steps=request.steps,
        digest=digest,
    )

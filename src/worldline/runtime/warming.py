"""The walk after which nothing is made for the first time: through every fill level of the caches.

The server walks so before anybody is served; a replica that has come back does before it is given
sessions again. Torch-free.
"""

from __future__ import annotations

import uuid
from typing import Final

from worldline.core.config import WorldInfo
from worldline.runtime.contract import EngineHandle
from worldline.runtime.protocol import OpenReply, OpenRequest, StepRequest

MAX_CHUNKS: Final = 12
_GREY: Final = b"\x80"


def enough_chunks(info: WorldInfo) -> int:
    """Chunks until cache and picture are complete and one more has run, within limits."""
    filling = -(-max(info.window, info.encoded, 1) // info.chunk)
    return min(MAX_CHUNKS, max(2, filling + 1))


def grey(info: WorldInfo, *, seed: int) -> OpenRequest:
    """A session of nobody's; one of another seed cannot be recalled from an equal start."""
    return OpenRequest(
        session_id=f"warmup-{uuid.uuid4().hex}",
        image=_GREY * (info.width * info.height * 3),
        image_width=info.width,
        image_height=info.height,
        prompt="a grey wall",
        seed=seed,
    )


def turning(opened: OpenReply, index: int) -> StepRequest:
    """Its next chunk: turns the camera, so that the path of moving rays is warm too."""
    actions = (("w", "l"),) * opened.chunk
    return StepRequest(session_id=opened.session_id, chunk_index=index, actions=actions)


def walk(handle: EngineHandle) -> int:
    """Walk once on an engine that nobody else uses; returns the chunks. Raises: what it raises."""
    info = handle.info
    if not info.live:
        return 0  # films only: what they need is made with the first of them
    request, count = grey(info, seed=0), enough_chunks(info)
    try:
        opened = handle.open(request)
        for index in range(count):
            handle.step(turning(opened, index)).release()
    finally:
        handle.close(request.session_id)
    return count

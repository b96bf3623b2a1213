"""What is said to enter: a picture with words, or a world file."""

from __future__ import annotations

from pathlib import Path

from worldline.client.options import WorldOptions
from worldline.core.errors import WorldFileError
from worldline.core.live.client import Enter
from worldline.core.worldfile import MAX_BYTES

WorldSource = Path | str | bytes
_PLAIN = WorldOptions()


def file_bytes(file: WorldSource) -> bytes:
    """A world file by its path, or its bytes; the server reads it. Raises: WorldFileError."""
    try:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise WorldFileError("the world file cannot be read", got=error) from None
    if len(data) > MAX_BYTES:
        wanted = f"at most {MAX_BYTES} bytes"
        raise WorldFileError("the world file is too large", expected=wanted, got=len(data))
    return data


def to_enter(
    options: WorldOptions | None,
    *,
    prompt: str = "",
    image: bytes = b"",
    world: bytes | None = None,
    at_end: bool = False,
) -> Enter:
    """The wish, without the format, which is agreed on later."""
    chosen = options or _PLAIN
    return Enter(
        prompt=prompt,
        image=image,
        world=world,
        at_end=at_end,
        seed=chosen.seed,
        width=chosen.width,
        height=chosen.height,
        window=chosen.window,
        sink=chosen.sink,
        quality=chosen.quality,
        lead_ms=chosen.lead_ms,
        speed=chosen.speed,
        intrinsics=chosen.intrinsics,
        max_chunks=chosen.max_chunks,
        spectators=chosen.spectators,
        sharded=chosen.sharded,
    )

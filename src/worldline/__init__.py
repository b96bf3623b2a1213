"""Worldline: interactive video world models, served live.

The library API is loaded on first use: neither `import worldline` nor the server imports torch.

    world = worldline.load("pocket")
    session = world.start(image, "a sandy court of red columns", seed=42)
    chunk = session.step([["w", "l"]])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldline.core.chunk import Chunk
    from worldline.runtime.engine import World, load
    from worldline.runtime.session import Session

__version__ = "0.1.0"
__all__ = ["Chunk", "Session", "World", "__version__", "load"]

_HOMES = {
    "Chunk": "worldline.core.chunk",
    "Session": "worldline.runtime.session",
    "World": "worldline.runtime.engine",
    "load": "worldline.runtime.engine",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

"""Types that both directions of `worldline.v1` share."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

SUBPROTOCOL: Final = "worldline.v1"
VERSION: Final = 1

InputId = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Ms = Annotated[float, Meta(ge=0, le=2**53)]
Unit = Annotated[float, Meta(ge=-1, le=1)]
Degrees = Annotated[float, Meta(ge=-3600, le=3600)]
Name = Annotated[str, Meta(max_length=128)]
Secret = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Action = Literal["w", "a", "s", "d", "i", "j", "k", "l"]
Format = Literal["h264", "jpeg", "webp", "raw"]
State = Literal["queued", "opening", "live", "paused", "parked", "draining", "closed"]
Matrix = Annotated[tuple[float, ...], Meta(min_length=12, max_length=12)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A map on the wire. Its repr shows no token, and of pictures only their size."""

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(name, getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(shown)})"


def _shown(name: str, value: object) -> str:
    if name == "token" and isinstance(value, str):
        return "***"
    if name == "url" and isinstance(value, str) and "#" in value:
        return repr(value[: value.index("#")] + "#***")  # what opens a world is in the fragment
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else repr(value)

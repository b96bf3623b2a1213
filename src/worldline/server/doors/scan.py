"""How many items a MessagePack message has, before anything is made of them.

A byte can become an object of sixty: 32 MiB of empty lists would be 2 GB of them. No message of
either dialect has more than a few thousand items, so one with very many is no message.
"""

from __future__ import annotations

from typing import Final

MAX_ITEMS: Final = 65_536
_FIXED: Final = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC3), 1),
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1, 0xDC, 0xDE, 0xD4), 3),
    0xD5: 4,
    **dict.fromkeys((0xCA, 0xCE, 0xD2, 0xDD, 0xDF), 5),
    0xD6: 6,
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 9),
    0xD7: 10,
    0xD8: 18,
}
# First byte -> bytes of the length that follows, and bytes beside it and the content.
_COUNTED: Final = {
    0xC4: (1, 1),
    0xC5: (2, 1),
    0xC6: (4, 1),
    0xC7: (1, 2),
    0xC8: (2, 2),
    0xC9: (4, 2),
    0xD9: (1, 1),
    0xDA: (2, 1),
    0xDB: (4, 1),
}


def has_too_many(data: bytes, limit: int = MAX_ITEMS) -> bool:
    """Whether `data` has more than `limit` items; a broken message may end the count early."""
    if len(data) <= limit:  # every item takes at least a byte
        return False
    place = count = 0
    while place < len(data):
        count += 1
        if count > limit:
            return True
        first = data[place]
        if first < 0xA0 or first >= 0xE0:
            place += 1
        elif first < 0xC0:
            place += 1 + (first & 0x1F)
        elif first in _COUNTED:
            width, rest = _COUNTED[first]
            place += width + rest + int.from_bytes(data[place + 1 : place + 1 + width], "big")
        else:
            place += _FIXED[first]
    return False

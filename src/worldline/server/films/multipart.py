"""`multipart/form-data`, as programs send files: fields by name, each whole in memory.

The body is bounded before it comes here (`doors.bounded`). Nothing is written anywhere, and file
names and types are taken for what they are: claims.
"""

from __future__ import annotations

import re
from typing import Final

from worldline.core.errors import InputError

MOST_PARTS: Final = 64
MOST_HEAD: Final = 8 * 1024
_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.ASCII)
_NAME: Final = re.compile(rb';\s*name="([^"\r\n]{1,200})"', re.IGNORECASE)
_DISPOSITION: Final = b"content-disposition:"


def is_multipart(content_type: str) -> bool:
    """Whether a body of this type is read here."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse_multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a form by name. Raises: InputError for anything else, and for a name twice."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise InputError("a form without a boundary", got=content_type[:100])
    mark = b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(mark, MOST_PARTS + 2)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise InputError(
            "a form that does not end", expected=f"at most {MOST_PARTS} fields", got=len(pieces) - 1
        )
    fields: dict[str, bytes] = {}
    for piece in pieces[1:-1]:
        name, value = _field(piece)
        if name in fields:
            raise InputError("a field that is there twice", got=name)
        fields[name] = value
    return fields


def _field(piece: bytes) -> tuple[str, bytes]:
    """Name and value of what stands between two boundaries."""
    head, gap, value = piece.lstrip(b" \t").partition(b"\r\n\r\n")
    if not gap or not head.startswith(b"\r\n") or len(head) > MOST_HEAD:
        raise InputError("a field of a form without a head", got=repr(piece[:40]))
    lines = head.split(b"\r\n")
    line = next((line for line in lines if line.lower().startswith(_DISPOSITION)), b"")
    name = _NAME.search(line)
    if name is None:
        raise InputError("a field of a form without a name", got=repr(head[:80]))
    return name[1].decode("utf-8", "replace"), value

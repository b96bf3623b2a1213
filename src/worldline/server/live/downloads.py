"""`/v1/worlds/{world}/recording`: a recording as one zip, or file by file; and saved world files.

    GET /v1/worlds/{world}/recording               the newest take of that world, as a zip
    GET /v1/worlds/{world}/recording/{file}        one of its files
    ?take=2                                        another take than the newest
    GET /v1/worlds/{world}/saved/{number}.wl       a world file that was saved

Whoever knows a world's id may watch it, and so may fetch what was recorded and saved of it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from worldline.server.live.recordings import FILES, FILM, Take
from worldline.server.services import Services
from worldline.server.waiting import within

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

WAIT_S: Final = 10.0  # for the last second of a recording that has just ended
_PIECE: Final = 256 * 1024
_PRIVATE: Final = {"Cache-Control": "no-store"}
_TYPES: Final = {".mp4": "video/mp4", ".npy": "application/octet-stream"}


async def archive(request: Request) -> Response:
    """All files of a take in one zip, packed while it is sent."""
    take = await _take(request)
    if isinstance(take, Response):
        return take
    name = f'attachment; filename="worldline-{take.number}.zip"'
    headers = {"Content-Disposition": name, **_PRIVATE}
    files = take.files()
    return StreamingResponse(zipped(files), media_type="application/zip", headers=headers)


async def one_file(request: Request) -> Response:
    """One file of a take."""
    name = request.path_params["file"]
    take = await _take(request)
    if isinstance(take, Response):
        return take
    path = take.folder / name if name in FILES else None
    if path is None or not path.is_file():
        return _problem(404, "no_file", f"there are {', '.join(FILES)}")
    kind = _TYPES.get(path.suffix, "application/json")
    inline = "inline" if name == FILM else "attachment"
    return FileResponse(
        path, media_type=kind, filename=name, content_disposition_type=inline, headers=_PRIVATE
    )


async def saved_world(request: Request) -> Response:
    """A world file that `saved` has named."""
    services: Services = request.app.state.services
    params = request.path_params
    found = services.saves.find(params["world"], params["number"])
    if found is None:
        return _problem(404, "no_file", "there is no such world file, or not any more")
    name = f'attachment; filename="world-{found.number}.wl"'
    headers = {"Content-Disposition": name, **_PRIVATE}
    return Response(found.data, headers=headers, media_type="application/octet-stream")


ROUTES = [
    Route("/v1/worlds/{world}/saved/{number:int}.wl", saved_world),
    Route("/v1/worlds/{world}/recording", archive),
    Route("/v1/worlds/{world}/recording/{file}", one_file),
]


def zipped(files: Sequence[Path]) -> Iterator[bytes]:
    """A zip of `files` piece by piece, stored as they are: a film does not get smaller."""
    out = _Pieces()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            with path.open("rb") as source, archive.open(path.name, "w") as member:
                while piece := source.read(_PIECE):
                    member.write(piece)
                    yield out.take()
    yield out.take()


class _Pieces(io.RawIOBase):
    """What a zip writes, until it is taken; cannot be sought, so sizes follow the data."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        """Everything since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


async def _take(request: Request) -> Take | Response:
    """The take that is asked for, once its files are whole; or what is wrong."""
    services: Services = request.app.state.services
    asked = request.query_params.get("take")
    if asked is not None and not (asked.isdecimal() and len(asked) < 10):
        return _problem(400, "invalid_input", "take is a number")
    number = None if asked is None else int(asked)
    take = services.recordings.find(request.path_params["world"], number)
    if take is None:
        return _problem(404, "no_recording", "there is no such recording, or not any more")
    try:
        await within(services.clock, WAIT_S, take.done.wait())
    except TimeoutError:
        return _problem(409, "recording", "it is still being recorded: end it first")
    return take


def _problem(status: int, code: str, message: str) -> Response:
    body = msgspec.json.encode({"code": code, "message": message})
    return Response(body, status, headers=_PRIVATE, media_type="application/json")

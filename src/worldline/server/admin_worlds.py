"""What administrators may do to an open session of either dialect, by its name.

    POST /admin/worlds/{id}/rewind     {"chunk": 12} or {"seconds": 10}
    POST /admin/worlds/{id}/branch     {} or {"chunk": 12}
    POST /admin/worlds/{id}/save       {}
    POST /admin/worlds/{id}/snapshot   {}
    POST /admin/worlds/{id}/restore    {"path": "..."} of a snapshot of this session

Each is done between two chunks, and answered when it is done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worldline.core.errors import InputError, WorldlineError
from worldline.core.live.client import Branch, Rewind, Save
from worldline.server.services import Services
from worldline.server.walks import Restore, TakeSnapshot, Wish

_PRIVATE: Final = {"Cache-Control": "no-store"}


class _Place(msgspec.Struct, forbid_unknown_fields=True):
    """Where to: a chunk of the walk, so many seconds back, or where a snapshot was taken."""

    chunk: int | None = None
    seconds: float | None = None
    path: str | None = None


def _rewind(place: _Place) -> Wish:
    return msgspec.convert({"id": 1, "chunk": place.chunk, "seconds": place.seconds}, Rewind)


def _branch(place: _Place) -> Wish:
    if place.seconds is not None:
        raise InputError("a branch begins at a chunk", expected="chunk", got="seconds")
    return msgspec.convert({"id": 1, "chunk": place.chunk}, Branch)


def _save(_: _Place) -> Wish:
    return Save(id=1)


def _restore(place: _Place) -> Wish:
    if place.path is None:
        raise InputError("which snapshot?", expected="the path it was told with")
    return Restore(place.path)


def _snapshot(_: _Place) -> Wish:
    return TakeSnapshot()


def _asking(make: Callable[[_Place], Wish]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        services: Services = request.app.state.services
        body = await request.body()
        try:
            wish = make(msgspec.json.decode(body or b"{}", type=_Place))
            told = await services.walks.ask(request.path_params["id"], wish)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refusal(InputError("this cannot be asked", got=str(error)))
        except WorldlineError as error:
            return _refusal(error)
        fields: dict[str, Any] = msgspec.to_builtins(told)
        for name in ("type", "id", "session_id"):
            fields.pop(name, None)
        return _json(fields)

    return endpoint


def _refusal(error: WorldlineError) -> Response:
    body = {"code": error.code, "message": error.message}
    body |= {} if error.expected is None else {"expected": error.expected}
    body |= {} if error.got is None else {"got": error.got}
    return _json(body, status=error.http_status)


def _json(body: dict[str, Any], *, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(body), status, headers=_PRIVATE, media_type="application/json"
    )


ROUTES: Final = [
    Route(f"/admin/worlds/{{id}}/{name}", _asking(make), methods=["POST"])
    for name, make in {
        "rewind": _rewind,
        "branch": _branch,
        "save": _save,
        "snapshot": _snapshot,
        "restore": _restore,
    }.items()
]

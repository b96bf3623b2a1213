"""The plain HTTP routes: models, health, readiness; for administrators metrics and worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from worldline.core.config import ServerConfig
from worldline.core.worldfile import load_world_file, write_world
from worldline.server import admin_worlds
from worldline.server.census import Census
from worldline.server.live.house import House
from worldline.server.services import Services, is_ready
from worldline.server.waiting import in_thread

RETRY_S = "5"
WORLD_FILE = "/v1/world.wl"
_PRIVATE = {"Cache-Control": "no-store"}
# What the worker runs on is for files and logs; options may hold a path.
_INSIDE = ("torch", "machine", "options")


async def models(request: Request) -> Response:
    """OpenAI-style list of the one model that is served, with what a client must know of it."""
    info = _services(request).engine.info
    entry = {"id": info.model, "object": "model", "owned_by": "worldline", "root": info.model}
    told = {name: fact for name, fact in msgspec.to_builtins(info).items() if name not in _INSIDE}
    entry |= {"created": 0, "info": told}
    return _json({"object": "list", "data": [entry]})


async def health(request: Request) -> Response:
    """200 while the engine can answer calls, else 503: another worker is being started."""
    if _services(request).engine.alive():
        return _json({"status": "ok"})
    return _json({"status": "worker died"}, status=503, headers={"Retry-After": RETRY_S})


async def ready(request: Request) -> Response:
    """200 once a session can start, 503 with the reason before that or when it never will."""
    services = _services(request)
    house: House = request.app.state.house
    if is_ready(services) and not house.draining:
        return _json({"status": "ready"})
    reason = services.readiness.reason if services.engine.alive() else "worker died"
    if house.draining:
        reason = "draining"
    return _json({"status": reason}, status=503, headers={"Retry-After": RETRY_S})


async def world_file(request: Request) -> Response:
    """The world that this server was started with, for the page to walk into."""
    services = _services(request)
    path = services.config.world_file
    if path is None:
        return _json({"code": "no_file", "message": "this server offers no world"}, status=404)
    file = await in_thread(services.readers, lambda: write_world(load_world_file(Path(path))))
    return Response(file, media_type="application/octet-stream", headers=_PRIVATE)


async def metrics(request: Request) -> Response:
    """Prometheus text exposition; counts what there is before it tells."""
    await _census(request).count()
    return Response(_services(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def trace(request: Request) -> Response:
    """A Chrome trace as a file; also while it is being recorded."""
    services = _services(request)
    found = services.traces.find(request.path_params["id"])
    if found is None:
        return _json({"code": "no_trace", "message": "there is no such trace"}, status=404)
    name = f"worldline-{found.world}.trace.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', **_PRIVATE}
    file = await in_thread(services.readers, found.file())
    return Response(file, media_type="application/json", headers=headers)


async def traces(request: Request) -> Response:
    """Every trace in memory, oldest first."""
    listed = [
        {"url": t.url, "world": t.world, "recording": t.recording, "events": len(t)}
        for t in _services(request).traces.all()
    ]
    return _json({"traces": listed}, headers=_PRIVATE)


async def worlds(request: Request) -> Response:
    """Every world, waiting ones too, and sessions of the mainline endpoint; no tokens."""
    house: House = request.app.state.house
    now = _services(request).clock.now()
    listed = [
        {
            "world": room.id,
            "state": room.state,
            "client": room.client,
            "viewers": len(room.guests),
            "held": not room.is_gone,
            "seconds": round(now - room.tenancy.began, 3),
        }
        for room in house.rooms
    ]
    known = {room.id for room in house.rooms}
    sessions = [name for name in _services(request).walks.names if name not in known]
    told = {"worlds": listed, "sessions": sessions, "queue": house.waiting}
    return _json(told, headers=_PRIVATE)


async def leaks(request: Request) -> Response:
    """What nobody owns, counted now: 200 when there is nothing, else 500."""
    found = await _census(request).count()
    return _json(found._asdict(), status=500 if any(found) else 200, headers=_PRIVATE)


OPEN_ROUTES = [
    Route("/healthz", health),
    Route("/health", health),  # the name that deploy scripts of the mainline poll
    Route("/readyz", ready),
]
ADMIN_ROUTES = [
    Route("/metrics", metrics),
    Route("/admin/worlds", worlds),
    *admin_worlds.ROUTES,
    Route("/admin/traces", traces),
    Route("/admin/leaks", leaks),
    Route("/v1/traces/{id}", trace),
]


def routes(config: ServerConfig) -> list[BaseRoute]:
    """The main port's plain routes; those of administrators only while they have no own port."""
    mine = [Route("/v1/models", models), Route(WORLD_FILE, world_file), *OPEN_ROUTES]
    if config.admin_port is None:
        return [*mine, *ADMIN_ROUTES]
    return [*mine, Route("/v1/traces/{id}", trace)]  # for whoever recorded it, and was told its id


def _census(request: Request) -> Census:
    return request.app.state.census


def _services(request: Request) -> Services:
    return request.app.state.services


def _json(
    body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )

"""The plain HTTP routes: models, health, readiness, metrics."""

from __future__ import annotations

from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from worldline.core.config import ServerConfig
from worldline.server.services import Services, is_ready

# A page served elsewhere (the mainline's own client) may ask which model runs; it is no secret.
_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}


async def models(request: Request) -> Response:
    """OpenAI-style list of the one model that is served, with what a client must know of it."""
    info = _services(request).engine.info
    entry = {"id": info.model, "object": "model", "owned_by": "worldline", "root": info.model}
    entry |= {"created": 0, "info": msgspec.to_builtins(info)}
    return _json({"object": "list", "data": [entry]}, headers=_ANY_ORIGIN)


async def health(request: Request) -> Response:
    """200 while the engine can answer calls, else 503: this process should be replaced."""
    alive = _services(request).engine.alive()
    return _json({"status": "ok" if alive else "worker died"}, status=200 if alive else 503)


async def ready(request: Request) -> Response:
    """200 once a session can start, 503 with the reason before that or when it never will."""
    services = _services(request)
    if is_ready(services):
        return _json({"status": "ready"})
    reason = services.readiness.reason if services.engine.alive() else "worker died"
    return _json({"status": reason}, status=503)


async def metrics(request: Request) -> Response:
    """Prometheus text exposition."""
    return Response(_services(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


OPEN_ROUTES = [
    Route("/healthz", health),
    Route("/health", health),  # the name that deploy scripts of the mainline poll
    Route("/readyz", ready),
]
ADMIN_ROUTES = [
    Route("/metrics", metrics),
]


def routes(config: ServerConfig) -> list[BaseRoute]:
    """The main port's plain routes; those of administrators only while they have no own port."""
    mine = [Route("/v1/models", models), *OPEN_ROUTES]
    return [*mine, *ADMIN_ROUTES] if config.admin_port is None else mine


def _services(request: Request) -> Services:
    return request.app.state.services


def _json(
    body: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )

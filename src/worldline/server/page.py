"""The built web client and its gallery of start pictures, as static files.

File names are fixed, so every answer must be asked for again: a 304 costs nothing, a page of an
older release beside a newer server costs an evening. The page loads nothing from anywhere else.
"""

from __future__ import annotations

import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PACKAGE = Path(__file__).parents[1]
STATIC = PACKAGE / "server" / "static"
GALLERY = PACKAGE / "models" / "pocket" / "gallery"
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'self'; form-action 'self'"
    ),
}


class _Files(StaticFiles):
    """Static files that carry `HEADERS`, also on a 304."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(HEADERS)
        return response


def page_routes(static: Path = STATIC, gallery: Path = GALLERY) -> list[BaseRoute]:
    """The gallery under `/gallery`, the page at `/`; to be put after every other route.

    Without a gallery the page asks for a picture; without a built page one line says how to get it.
    """
    routes: list[BaseRoute] = []
    if gallery.is_dir():
        routes.append(Mount("/gallery", _Files(directory=gallery)))
    else:
        routes.append(Route("/gallery/gallery.json", _no_gallery))
    if (static / "index.html").is_file():
        routes.append(Mount("/", _Files(directory=static, html=True)))
    else:
        routes.append(Route("/", _no_page))
    return routes


def page_paths(static: Path = STATIC, gallery: Path = GALLERY) -> frozenset[str]:
    """Every path of the page's own files: what a browser may load before it has shown a token."""
    paths = {"/", "/gallery/gallery.json"}
    for prefix, folder in (("", static), ("/gallery", gallery)):
        files = (file for file in folder.rglob("*") if file.is_file())
        paths.update(f"{prefix}/{file.relative_to(folder).as_posix()}" for file in files)
    return frozenset(paths)


async def _no_gallery(request: Request) -> Response:
    return JSONResponse([])


async def _no_page(request: Request) -> Response:
    return PlainTextResponse("The web client is not built; run: make web", 404)

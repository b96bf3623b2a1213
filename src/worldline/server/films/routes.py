"""`/v1/videos`: films, asked for in one request and fetched in another, as OpenAI's interface does.

    POST   /v1/videos                       ask for a film; answers at once
    GET    /v1/videos                       films, the newest first: limit, after, order
    GET    /v1/videos/{id}                  how far it is
    POST   /v1/videos/{id}/cancel           make it no further; what there is can be fetched
    DELETE /v1/videos/{id}                  cancel and forget it
    GET    /v1/videos/{id}/content          the film (MP4), or variant=thumbnail (WebP)
    GET    /v1/videos/{id}/frames/{number}  one picture (PNG): a world can be entered from it
    GET    /v1/videos/{id}/world            the film as a world file, up to the picture ?frame=

Whoever has a key sees the films that were asked for with it; administrators see all.
"""

from __future__ import annotations

import functools
import io
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from worldline.core.errors import (
    CapacityError,
    DrainingError,
    InputError,
    LimitError,
    WorldlineError,
)
from worldline.server.doors.clients import Client, client_of
from worldline.server.films.errors import FilmNotReadyError, NoFilmsError, UnknownFilmError
from worldline.server.films.film import Film, frames_of
from worldline.server.films.reading import read_body, read_film
from worldline.server.films.reel import Reel
from worldline.server.films.studio import Studio
from worldline.server.films.walking import world_file
from worldline.server.live.house import House
from worldline.server.services import Services
from worldline.server.waiting import in_thread, within

MOST_UPLOADS: Final = 4  # bodies in memory at a time
UPLOAD_S: Final = 120.0
MOST_LISTED: Final = 100
LISTED: Final = 20
_PRIVATE: Final = {"Cache-Control": "no-store"}
Handler = Callable[[Request], Awaitable[Response]]


def answered(handler: Handler) -> Handler:
    """`handler` with errors of ours as JSON: OpenAI's form, and our own beside it."""

    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except WorldlineError as error:
            _services(request).metrics.count_error(error.code)
            return _problem(error)

    return answer


@answered
async def create(request: Request) -> Response:
    """Ask for a film. Answers with its place in line."""
    studio, services, client = _studio(request), _services(request), client_of(request.scope)
    house: House = request.app.state.house
    if house.draining:
        raise DrainingError("the server is about to stop", expected="another server, or later")
    info, config = services.engine.info, services.config
    async with studio.uploads:
        try:
            body = await within(services.clock, UPLOAD_S, request.body())
        except TimeoutError:
            raise InputError("the body did not come", expected=f"within {UPLOAD_S:g} s") from None
        asked = read_body(request.headers.get("content-type", ""), body)
        read = await in_thread(
            services.readers, functools.partial(read_film, asked, info=info, config=config)
        )
        del body, asked
        await _check_room(studio, services, client)
        frames = frames_of(read.wish.chunks, info.chunk, overlap=info.overlap)
        film = Film(
            id=f"video_{secrets.token_hex(16)}",
            number=0,
            client=client.name,
            model=info.model,
            status="queued",
            created=studio.now(),
            wish=read.wish,
            fps=info.fps,
            seconds=f"{frames / info.fps:g}",
        )
        film = await studio.add(film, read.picture)
    return _json(await _shown(studio, film))


@answered
async def listed(request: Request) -> Response:
    """Films of this client, or all for an administrator."""
    studio, client, query = _studio(request), client_of(request.scope), request.query_params
    limit, order = query.get("limit", str(LISTED)), query.get("order", "desc")
    if not (limit.isdecimal() and 1 <= int(limit[:9]) <= MOST_LISTED):
        raise InputError("no such limit", expected=f"1 to {MOST_LISTED}", got=repr(limit[:20]))
    if order not in ("asc", "desc"):
        raise InputError("no such order", expected="asc or desc", got=repr(order[:20]))
    films = await studio.desk.ask(
        functools.partial(
            studio.desk.store.page,
            client=None if client.admin else client.name,
            limit=int(limit) + 1,
            after=query.get("after"),
            newest=order == "desc",
        )
    )
    shown = [await _shown(studio, film) for film in films[: int(limit)]]
    ids = [entry["id"] for entry in shown]
    return _json(
        {
            "object": "list",
            "data": shown,
            "first_id": ids[0] if ids else None,
            "last_id": ids[-1] if ids else None,
            "has_more": len(films) > int(limit),
        }
    )


@answered
async def shown(request: Request) -> Response:
    """How far a film is."""
    return _json(await _shown(_studio(request), await _film(request)))


@answered
async def cancel(request: Request) -> Response:
    """Make a film no further; one that has ended stays as it is."""
    studio, film = _studio(request), await _film(request)
    ended = await studio.cancel(film.id)
    return _json(await _shown(studio, ended or film))


@answered
async def remove(request: Request) -> Response:
    """Cancel a film and forget it."""
    film = await _film(request)
    await _studio(request).remove(film.id)
    return _json({"id": film.id, "object": "video.deleted", "deleted": True})


@answered
async def content(request: Request) -> Response:
    """The film as a file, whole or a range of it; or its first picture, small."""
    film = await _film(request)
    variant = request.query_params.get("variant", "video")
    if variant == "thumbnail":
        return await _picture(request, film, 0, "WEBP")
    if variant != "video":
        raise InputError("no such variant", expected="video or thumbnail", got=repr(variant[:40]))
    if not film.has_ended or not film.frames:
        raise FilmNotReadyError(
            "the film is not there yet" if not film.has_ended else "there is nothing of this film",
            expected="status completed",
            got=f"{film.status}, {_studio(request).percent(film)} %",
        )
    reel = await _reel(request, film)
    name = f"{film.id}.mp4"
    return FileResponse(reel.path, media_type="video/mp4", filename=name, headers=_PRIVATE)


@answered
async def frame(request: Request) -> Response:
    """One picture of a film, as it is in the file; of one under way too, as far as it is."""
    film, number = await _film(request), _number(request.path_params["number"])
    return await _picture(request, film, number, "PNG")


@answered
async def world(request: Request) -> Response:
    """The walk that the film is, as a world file: to be walked on from the end of a chunk.

    That with picture `frame`, by default the last one. Enter with `at_end`.
    """
    film = await _film(request)
    reel = await _reel(request, film)
    asked = request.query_params.get("frame")
    chunks = reel.chunk_of(film.frames - 1 if asked is None else _number(asked)) + 1
    folder = _studio(request).desk.store.folder / film.id
    make = functools.partial(world_file, folder, film, reel, chunks)
    data = await in_thread(_services(request).readers, make)
    name = f'attachment; filename="{film.id}.wl"'
    headers = {"Content-Disposition": name, **_PRIVATE}
    return Response(data, media_type="application/octet-stream", headers=headers)


ROUTES: Final = [
    Route("/v1/videos", create, methods=["POST"]),
    Route("/v1/videos", listed, methods=["GET"]),
    Route("/v1/videos/{id}", shown, methods=["GET"]),
    Route("/v1/videos/{id}", remove, methods=["DELETE"]),
    Route("/v1/videos/{id}/cancel", cancel, methods=["POST"]),
    Route("/v1/videos/{id}/content", content, methods=["GET"]),
    Route("/v1/videos/{id}/frames/{number}", frame, methods=["GET"]),
    Route("/v1/videos/{id}/world", world, methods=["GET"]),
]


async def _check_room(studio: Studio, services: Services, client: Client) -> None:
    """Raises: LimitError, CapacityError."""
    config, store = services.config, studio.desk.store
    mine = await studio.desk.ask(functools.partial(store.waiting, client.name))
    if mine >= config.films_per_client:
        raise LimitError(
            "this client has many films in line",
            expected=f"at most {config.films_per_client} at a time",
            got=mine,
        )
    waiting = await studio.desk.ask(store.waiting)
    if waiting >= config.max_films_waiting:
        raise CapacityError(
            "too many films wait", expected=f"at most {config.max_films_waiting}", got=waiting
        )
    await studio.make_room()


async def _picture(request: Request, film: Film, number: int, format: str) -> Response:
    reel = await _reel(request, film)

    def encoded() -> bytes:
        out = io.BytesIO()
        Image.fromarray(reel.picture(number)).save(out, format)
        return out.getvalue()

    data = await in_thread(_services(request).readers, encoded)
    return Response(data, media_type=f"image/{format.lower()}", headers=_PRIVATE)


async def _reel(request: Request, film: Film) -> Reel:
    store = _studio(request).desk.store
    places = await _studio(request).desk.ask(functools.partial(store.chunks, film.id))
    places = places[: film.chunks]  # of the moment when the film was looked up
    return Reel(store.folder / film.id, film.fps, places=places, frames=film.frames)


def _number(text: str) -> int:
    """Of a picture. Raises: InputError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError("no such picture", expected="a number from 0", got=repr(text[:20]))
    return int(text)


async def _film(request: Request) -> Film:
    """The film that is asked for, if this client may see it."""
    studio, client = _studio(request), client_of(request.scope)
    found = await studio.desk.ask(
        functools.partial(studio.desk.store.find, request.path_params["id"])
    )
    if found is not None and (client.admin or found.client == client.name):
        expires = studio.expires(found)
        if expires is None or expires > studio.now():
            return found
    raise UnknownFilmError("there is no such film, or not any more")


async def _shown(studio: Studio, film: Film) -> dict[str, Any]:
    """A film as clients see it."""
    failed = film.status == "failed"
    ahead = None
    if film.status == "queued":
        ahead = await studio.desk.ask(functools.partial(studio.desk.store.place, film))
    wish = film.wish
    return {
        "id": film.id,
        "object": "video",
        "status": film.status,
        "model": film.model,
        "progress": studio.percent(film),
        "created_at": int(film.created),
        "started_at": film.started and int(film.started),
        "completed_at": film.ended and int(film.ended),
        "expires_at": studio.expires(film),
        "prompt": wish.prompt,
        "seconds": film.seconds,
        "size": f"{wish.width}x{wish.height}",
        "error": {"code": film.code, "message": film.message} if failed else None,
        "remixed_from_video_id": None,
        "seed": wish.seed,
        "fps": film.fps,
        "chunks": film.chunks,
        "total_chunks": wish.chunks,
        "frames": film.frames,
        "bytes": film.bytes,
        "ahead": ahead,
    }


def _studio(request: Request) -> Studio:
    studio: Studio | None = request.app.state.studio
    if studio is None:
        raise NoFilmsError(
            "this server makes no films", expected="--films DIR, where they are kept"
        )
    return studio


def _services(request: Request) -> Services:
    return request.app.state.services


def _problem(error: WorldlineError) -> Response:
    said = {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "expected": error.expected,
        "got": error.got,
    }
    kind = "invalid_request_error" if error.http_status < 500 else "server_error"
    openai = {"message": str(error), "type": kind, "param": None, "code": error.code}
    headers = _PRIVATE | ({"Retry-After": "5"} if error.retryable else {})
    body = msgspec.json.encode({"error": openai, **said})
    return Response(body, error.http_status, headers=headers, media_type="application/json")


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), headers=_PRIVATE, media_type="application/json")

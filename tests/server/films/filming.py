"""An app that makes films on the fake engine, and a client of `/v1/videos`."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from starlette.applications import Starlette

from tests.fakes import LIMIT_S, FakeClock, FakeHandle, settle
from worldline.core.config import ServerConfig
from worldline.server.app import create_app
from worldline.server.doors.keys import Keyring
from worldline.server.films.store import FilmStore
from worldline.server.films.studio import Studio
from worldline.server.services import Services


def picture(seed: int = 0) -> bytes:
    """A start picture as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1)).save(out, "PNG")
    return out.getvalue()


class Lot:
    """One running app with a queue, and a client."""

    def __init__(
        self, app: Starlette, handle: FakeHandle, clock: FakeClock, client: httpx.AsyncClient
    ) -> None:
        self.app = app
        self.handle = handle
        self.clock = clock
        self.client = client

    @property
    def services(self) -> Services:
        """What the app shares."""
        return self.app.state.services

    @property
    def studio(self) -> Studio:
        """The queue at work."""
        return self.app.state.studio

    async def until(self, done: Callable[[], bool], *, tick_s: float = 0.1) -> None:
        """Let time pass until `done`, threads included."""
        async with asyncio.timeout(LIMIT_S):
            while not done():
                await self.clock.advance(tick_s)
                await asyncio.sleep(0.001)

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """A film with these fields; a picture and a prompt are given."""
        response = await self.post(**fields)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, **fields: Any) -> httpx.Response:
        """The answer to such a request."""
        form = {"prompt": "a red gate", "chunks": 3, **fields}
        form = {name: value for name, value in form.items() if value is not None}
        files = {"input_reference": ("start.png", form.pop("picture", picture()), "image/png")}
        return await self.client.post("/v1/videos", data=form, files=files)

    async def shown(self, id: str) -> dict[str, Any]:
        """A film as it is now."""
        return (await self.client.get(f"/v1/videos/{id}")).json()

    async def ended(self, id: str) -> dict[str, Any]:
        """A film once it has ended."""
        async with asyncio.timeout(LIMIT_S):
            while (found := await self.shown(id))["status"] in ("queued", "in_progress"):
                await self.clock.advance(0.1)
                await asyncio.sleep(0.001)
        return found

    async def reaches(self, id: str, chunks: int) -> None:
        """Return once so many chunks are on the disk."""
        async with asyncio.timeout(LIMIT_S):
            while (await self.shown(id))["chunks"] < chunks:
                await self.clock.advance(0.1)
                await asyncio.sleep(0.001)


@asynccontextmanager
async def lot(
    folder: Path,
    handle: FakeHandle | None = None,
    *,
    keyring: Keyring | None = None,
    headers: dict[str, str] | None = None,
    **settings: Any,
) -> AsyncGenerator[Lot]:
    """A warm app on the queue in `folder`; on leaving, nothing may be left."""
    handle, clock = handle or FakeHandle(), FakeClock()
    store = FilmStore(folder)
    app = create_app(ServerConfig(**settings), handle, clock=clock, store=store, keyring=keyring)
    try:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", headers=headers
            ) as client:
                found = Lot(app, handle, clock, client)
                if not handle.holding:
                    await found.services.readiness.wait(clock, 1.0)
                    forget(handle)
                yield found
                if not handle.holding:
                    await found.until(lambda: not found.studio.busy)
                    assert not any(await app.state.census.count())
                closing = asyncio.create_task(found.studio.close())
                await settle()
                if handle.holding:
                    handle.allow(1000)  # a step on its way is never left behind
                await closing
            await settle()
    finally:
        store.close()
    handle.nothing_is_left()


def forget(handle: FakeHandle) -> None:
    """Forget what the warm-up did."""
    for kept in (handle.opened, handle.closed, handle.results, handle.requests):
        kept.clear()

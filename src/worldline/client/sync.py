"""The blocking SDK: the awaited one on an event loop in a thread of its own, one per world.

    with Client(url).world("start.png", "a quiet lake") as w:
        for frame in w.frames():
            w.press("w")

Works inside notebooks, whose own loop is running already. A world may be used from any thread.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from worldline import __version__
from worldline.client.aio import AsyncClient, AsyncWorld
from worldline.client.conversation import Make
from worldline.client.decoding import StartImage
from worldline.client.entering import WorldSource
from worldline.client.notebook import Display, show
from worldline.client.options import Patience, WorldOptions
from worldline.client.picture import Picture
from worldline.client.receipts import Receipt
from worldline.client.state import Known
from worldline.client.verbs import Verbs
from worldline.core.errors import SessionClosedError
from worldline.core.live.server import Branched, Queued, Saved, ServerMessage
from worldline.core.live.shared import Format
from worldline.core.secret import Secret

R = TypeVar("R")
END: Any = object()


class Client:
    """A server. `token` is its key where it asks for one; `tls` for a certificate of your own."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:30000",
        *,
        token: str | Secret | None = None,
        name: str = f"worldline-python/{__version__}",
        tls: ssl.SSLContext | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._client = AsyncClient(url, token=token, name=name, tls=tls, patience=patience)

    def __repr__(self) -> str:
        return repr(self._client).removeprefix("Async")

    def world(
        self,
        image: StartImage,
        prompt: str,
        *,
        options: WorldOptions | None = None,
        realtime: bool = True,
        on_wait: Callable[[Queued], None] | None = None,
    ) -> World:
        """A new world, entered with `with`. Raises: ImageError.

        `image` is a path, the bytes of a picture file, a Pillow image or uint8 `H W 3`. With
        `realtime` the server makes video as fast as an eye watches it; without, as fast as it can.
        """
        return World(
            self._client.world(image, prompt, options=options, realtime=realtime, on_wait=on_wait)
        )

    def world_file(
        self,
        file: WorldSource,
        *,
        at_end: bool = False,
        options: WorldOptions | None = None,
        realtime: bool = True,
        on_wait: Callable[[Queued], None] | None = None,
    ) -> World:
        """A world that was saved: a path, or the file's bytes. Raises: WorldFileError.

        It is walked again as it was until a hand moves; with `at_end` unseen, and begins there.
        Of `options` those about pictures and pace count; the rest is the file's.
        """
        world = self._client.world_file(
            file, at_end=at_end, options=options, realtime=realtime, on_wait=on_wait
        )
        return World(world)

    def rejoin(self, token: str, *, format: Format | None = None, realtime: bool = True) -> World:
        """The world that a token belongs to, within its grace time."""
        return World(self._client.rejoin(token, format=format, realtime=realtime))

    def watch(self, world: str, *, format: Format | None = None) -> World:
        """Somebody else's world by its id; `ask_control` asks for the controls."""
        return World(self._client.watch(world, format=format))

    def fetch(self, path: str) -> bytes:
        """A file of the server, such as `world.recording.url` (a zip) or `world.traced.url`.

        Raises: InputError where there is none, ConnectionLostError.
        """
        loop = _Loop()
        try:
            return loop.call(self._client.fetch(path))
        finally:
            loop.stop()


class World(Known, Verbs[Receipt]):
    """A world that is walked; made by `Client`."""

    def __init__(self, world: AsyncWorld) -> None:
        super().__init__(world._talk, world._address)  # pyright: ignore[reportPrivateUsage]
        self._world = world
        self._loop: _Loop | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    @property
    def newest(self) -> Picture | None:
        """The frame that was handed out last."""
        return self._world.newest

    @property
    def reconnects(self) -> int:
        """How often the connection was opened again."""
        return self._world.reconnects

    def open(self) -> None:
        """Connect, wait for a place and for the world.

        Raises: RefusedError, ConnectionLostError, TimeoutError (see Patience).
        """
        assert self._loop is None, "a world is entered once"
        self._loop = _Loop()
        try:
            self._call(self._world.open())
        except BaseException:
            self._stop()
            raise

    def frames(self, *, newest: bool = False) -> Generator[Picture]:
        """Every frame in order, until the world ends; `newest` leaves out those that waited.

        Raises: RefusedError, ConnectionLostError.
        """
        return self._each(self._world.frames(newest=newest))

    def events(self) -> Generator[ServerMessage]:
        """Everything else the server says, as structs of `worldline.core.live.server`."""
        return self._each(self._world.events())

    def received(self, receipt: Receipt, timeout: float | None = None) -> Receipt:
        """Wait for the first receipt. Raises: RefusedError, ConnectionLostError, TimeoutError."""
        return self._call(self._world.received(receipt, timeout))

    def applied(self, receipt: Receipt, timeout: float | None = None) -> Receipt:
        """Wait for the second receipt. Raises: RefusedError, ConnectionLostError, TimeoutError."""
        return self._call(self._world.applied(receipt, timeout))

    def answer(self, receipt: Receipt, timeout: float | None = None) -> Branched | Saved:
        """Wait for what `branch` or `save` came to.

        Raises: RefusedError, ConnectionLostError, TimeoutError.
        """
        return self._call(self._world.answer(receipt, timeout))

    def wait(self, reached: Callable[[], object], timeout: float | None = None) -> None:
        """Until something is so, looked at after every message: `lambda: w.state == "paused"`.

        Raises: TimeoutError; as `frames` when the world ends first.
        """
        self._call(self._world.wait(reached, timeout))

    @contextmanager
    def hold(self, *keys: str) -> Generator[Receipt]:
        """Hold these keys while the context is open."""
        receipt = self.press(*keys)
        try:
            yield receipt
        finally:
            if self.state != "closed":
                self.release(*keys)

    def preview(self, frames: int | None = None, *, display: Display | None = None) -> None:
        """Show the newest frames in a notebook cell, until the world ends or so many came."""
        show(self.frames(newest=True), frames, display=display)

    def leave(self) -> None:
        """End the world (stop watching, for a spectator) and close the connection."""
        if self._loop is not None:
            try:
                self._call(self._world.leave())
            finally:
                self._stop()

    def detach(self) -> str | None:
        """Close the connection and leave the world for its grace time; the token to rejoin."""
        token = self._call(self._world.detach())
        self._stop()
        return token

    def _do(self, make: Make) -> Receipt:
        return self._call(self._world._do(make))  # pyright: ignore[reportPrivateUsage]

    def _each(self, items: AsyncGenerator[R]) -> Generator[R]:
        while (item := self._call(anext(items, END))) is not END:
            yield item

    def _call(self, work: Coroutine[Any, Any, R]) -> R:
        if self._loop is None:
            work.close()
            raise SessionClosedError("the world is not open", expected="with client.world(...)")
        return self._loop.call(work)

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.stop()
            self._loop = None


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="worldline-client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """The result of `work`; Ctrl-C cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop, its tasks and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

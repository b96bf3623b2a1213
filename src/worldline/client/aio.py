"""The awaited SDK.

    async with AsyncClient(url).world("start.png", "a quiet lake") as w:
        async for frame in w.frames():
            await w.press("w")

A world belongs to the event loop it was entered in. One task keeps its connection; frames and
receipts are awaited by whoever walks.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from worldline import __version__
from worldline.client.address import Address, parse_address
from worldline.client.conversation import Conversation, Make, Talking
from worldline.client.decoding import StartImage, known_formats, start_bytes
from worldline.client.entering import WorldSource, file_bytes, to_enter
from worldline.client.errors import ConnectionLostError, RefusedError
from worldline.client.fetch import fetch
from worldline.client.keeper import Keeper
from worldline.client.line import ClientClock, Dial, RealClock, dial
from worldline.client.options import Patience, WorldOptions
from worldline.client.picture import Picture
from worldline.client.receipts import Receipt
from worldline.client.state import Known
from worldline.client.verbs import Verbs
from worldline.core.errors import SessionClosedError
from worldline.core.live.client import Enter, Hello, Leave, Rejoin, Watch
from worldline.core.live.server import Branched, Queued, Saved, ServerMessage
from worldline.core.live.shared import Format
from worldline.core.secret import Secret

LEAVE_LIMIT_S = 10.0


class AsyncClient:
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
        self._address = parse_address(url)
        self._token = Secret(token) if isinstance(token, str) else token
        self._name = name
        self._tls = tls
        self._patience = patience or Patience()
        self._clock: ClientClock = RealClock()
        self._dial: Dial = dial

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address.socket})"

    def world(
        self,
        image: StartImage,
        prompt: str,
        *,
        options: WorldOptions | None = None,
        realtime: bool = True,
        on_wait: Callable[[Queued], None] | None = None,
    ) -> AsyncWorld:
        """A new world, entered with `async with`. Raises: ImageError.

        `image` is a path, the bytes of a picture file, a Pillow image or uint8 `H W 3`. With
        `realtime` the server makes video as fast as an eye watches it; without, as fast as it can.
        """
        first = to_enter(options, prompt=prompt, image=start_bytes(image))
        format = None if options is None else options.format
        return self._open(first, Talking(format, realtime), on_wait)

    def world_file(
        self,
        file: WorldSource,
        *,
        at_end: bool = False,
        options: WorldOptions | None = None,
        realtime: bool = True,
        on_wait: Callable[[Queued], None] | None = None,
    ) -> AsyncWorld:
        """A world that was saved: a path, or the file's bytes. Raises: WorldFileError.

        It is walked again as it was until a hand moves; with `at_end` unseen, and begins there.
        Of `options` those about pictures and pace count; the rest is the file's.
        """
        first = to_enter(options, world=file_bytes(file), at_end=at_end)
        format = None if options is None else options.format
        return self._open(first, Talking(format, realtime), on_wait)

    def rejoin(
        self, token: str, *, format: Format | None = None, realtime: bool = True
    ) -> AsyncWorld:
        """The world that a token belongs to, within its grace time."""
        return self._open(Rejoin(token=token), Talking(format, realtime), None)

    def watch(self, world: str, *, format: Format | None = None) -> AsyncWorld:
        """Somebody else's world by its id; `ask_control` asks for the controls."""
        return self._open(Watch(world=world), Talking(format), None)

    async def fetch(self, path: str) -> bytes:
        """A file of the server, such as `world.recording.url` (a zip) or `world.traced.url`.

        Raises: InputError where there is none, ConnectionLostError.
        """
        return await asyncio.to_thread(fetch, self._address, path, key=self._token, tls=self._tls)

    def _open(
        self,
        first: Enter | Rejoin | Watch,
        talking: Talking,
        on_wait: Callable[[Queued], None] | None,
    ) -> AsyncWorld:
        hello = Hello(client=self._name, formats=known_formats())
        talk = Conversation(first, hello, self._clock, options=talking, token=self._token)
        keeper = Keeper(talk, self._clock, self._patience)
        keeper.reach(self._dial, self._address.socket, self._tls)
        return AsyncWorld(talk, self._address, keeper, on_wait=on_wait)


class AsyncWorld(Known, Verbs[Coroutine[Any, Any, Receipt]]):
    """A world that is walked; made by `AsyncClient`."""

    def __init__(
        self,
        talk: Conversation,
        address: Address,
        keeper: Keeper,
        *,
        on_wait: Callable[[Queued], None] | None = None,
    ) -> None:
        super().__init__(talk, address)
        self._keeper = keeper
        self._on_wait = on_wait

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()

    @property
    def reconnects(self) -> int:
        """How often the connection was opened again."""
        return self._keeper.reconnects

    async def open(self) -> None:
        """Connect, wait for a place and for the world.

        Raises: RefusedError, ConnectionLostError, TimeoutError (see Patience).
        """
        self._keeper.begin()
        try:
            await self._arrive()
        except BaseException:
            await self._keeper.stop()
            raise

    async def _arrive(self) -> None:
        talk, patience = self._talk, self._keeper.patience
        told: Queued | None = None
        while not (talk.live or talk.over):
            queued = talk.queued
            if queued is not None and queued is not told and self._on_wait is not None:
                self._on_wait(queued)
            told = queued
            limit = patience.queue_s if queued is not None else patience.answer_s
            async with asyncio.timeout(limit):
                await self._keeper.until(
                    lambda was=told: talk.live or talk.over or talk.queued is not was
                )
        if talk.over:
            raise talk.reason or SessionClosedError("the world ended before it began")

    async def frames(self, *, newest: bool = False) -> AsyncGenerator[Picture]:
        """Every frame in order, until the world ends; `newest` leaves out those that waited.

        Raises: RefusedError, ConnectionLostError.
        """
        talk, keeper = self._talk, self._keeper
        while True:
            await keeper.until(lambda: bool(talk.frames) or talk.over)
            if not talk.frames:
                self._raise_reason()
                return
            picture, told = talk.next_picture(newest=newest)
            keeper.notify()
            await keeper.send(told)
            if picture is not None:
                self._newest = picture
                yield picture

    async def events(self) -> AsyncGenerator[ServerMessage]:
        """Everything else the server says, as structs of `worldline.core.live.server`.

        The newest 1024 are kept for whoever looks late. Raises: as `frames`.
        """
        talk = self._talk
        while True:
            await self._keeper.until(lambda: bool(talk.events) or talk.over)
            if not talk.events:
                self._raise_reason()
                return
            yield talk.events.popleft()

    async def received(self, receipt: Receipt, timeout: float | None = None) -> Receipt:
        """Wait for the first receipt. Raises: RefusedError, ConnectionLostError, TimeoutError."""
        return await self._stage(receipt, lambda: receipt.received is not None, timeout)

    async def applied(self, receipt: Receipt, timeout: float | None = None) -> Receipt:
        """Wait for the second receipt. Raises: RefusedError, ConnectionLostError, TimeoutError."""
        return await self._stage(receipt, lambda: receipt.applied is not None, timeout)

    async def answer(self, receipt: Receipt, timeout: float | None = None) -> Branched | Saved:
        """Wait for what `branch` or `save` came to.

        Raises: RefusedError, ConnectionLostError, TimeoutError.
        """
        await self._stage(receipt, lambda: receipt.answer is not None, timeout)
        assert receipt.answer is not None, "it was waited for"
        return receipt.answer

    async def wait(self, reached: Callable[[], object], timeout: float | None = None) -> None:
        """Until something is so, looked at after every message: `lambda: w.state == "paused"`.

        Raises: TimeoutError; as `frames` when the world ends first.
        """
        async with asyncio.timeout(timeout):
            await self._keeper.until(lambda: bool(reached()) or self._talk.over)
        if not reached():
            self._raise_reason()
            raise SessionClosedError("the world has ended")

    async def _stage(
        self, receipt: Receipt, reached: Callable[[], bool], timeout: float | None
    ) -> Receipt:
        async with asyncio.timeout(timeout):
            await self._keeper.until(lambda: reached() or receipt.over or self._talk.over)
        if reached():
            return receipt
        if receipt.refused is not None:
            raise RefusedError(receipt.refused)
        self._raise_reason()
        raise ConnectionLostError("the connection broke before the input was received")

    @asynccontextmanager
    async def hold(self, *keys: str) -> AsyncGenerator[Receipt]:
        """Hold these keys while the context is open."""
        receipt = await self.press(*keys)
        try:
            yield receipt
        finally:
            if not self._talk.over:
                await self.release(*keys)

    async def leave(self) -> None:
        """End the world (stop watching, for a spectator) and close the connection."""
        if self._talk.live:
            await self._keeper.send([Leave()])
            try:
                async with asyncio.timeout(LEAVE_LIMIT_S):
                    await self._keeper.until(lambda: not self._talk.live)
            except TimeoutError:
                pass  # it will find out by the connection
        await self._keeper.stop()

    async def detach(self) -> str | None:
        """Close the connection and leave the world for its grace time; the token to rejoin."""
        await self._keeper.stop()
        return self.token

    async def _do(self, make: Make) -> Receipt:
        await self._keeper.until(lambda: self._talk.live or self._talk.over)
        if self._talk.over:
            self._raise_reason()
            raise SessionClosedError("the world has ended")
        receipt, message = self._talk.input(make)
        if message is not None:
            await self._keeper.send([message])
        return receipt

    def _raise_reason(self) -> None:
        if self._talk.reason is not None:
            raise self._talk.reason

"""Errors and ends, as one socket is told them."""

from __future__ import annotations

import logging
from contextlib import suppress

from worldline.core.errors import WorldlineError
from worldline.core.messages import LOOP_FAILED, clip, encode_message, error_message
from worldline.server.logs import log
from worldline.server.metrics import Metrics
from worldline.server.outbox import Outbox, SocketClosed

logger = logging.getLogger("worldline.server")

LOGGED_BYTES = 500
INTERNAL = 1011


class Ended(Exception):
    """Ends a visit with a close frame of `code`; an error message goes before it unless `told`."""

    def __init__(
        self, content: str, error: WorldlineError, *, code: int, told: bool = False
    ) -> None:
        super().__init__(content)
        self.content, self.error, self.code, self.told = content, error, code, told


class Answers:
    """Says no on one socket: every refusal is sent, logged and counted."""

    def __init__(self, outbox: Outbox, metrics: Metrics, session_id: str) -> None:
        self._outbox = outbox
        self._metrics = metrics
        self._id = session_id

    async def error(self, content: str, error: WorldlineError) -> None:
        """Send `error` under the text old clients know. Raises: SocketClosed."""
        self._metrics.count_error(error.code)
        said = clip(str(error), LOGGED_BYTES)  # it may quote what was sent
        log(logger, logging.WARNING, "refused", session_id=self._id, content=content, error=said)
        await self._outbox.send(encode_message(error_message(content, error)))

    async def end(self, end: Ended) -> None:
        """Say why, if nobody did yet, and close; a peer that is gone hears nothing."""
        with suppress(SocketClosed):
            if not end.told:
                await self.error(end.content, end.error)
            await self._outbox.close(end.code, end.content)

    def loop_failed(self, error: Exception) -> Ended:
        """The end by an error of ours or of the engine; its first line is told."""
        if not isinstance(error, WorldlineError):
            logger.exception("session failed", extra={"fields": {"session_id": self._id}})
            error = WorldlineError(f"{type(error).__name__}: {error}")
        first_line = (str(error).splitlines() or [""])[0]
        return Ended(LOOP_FAILED + first_line, error, code=INTERNAL)

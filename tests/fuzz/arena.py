"""A server with a fake engine, a bystander who walks, and a visitor who says anything at all.

Time is made: it passes whenever somebody waits. What the bystander saw is compared with what it
sees when nobody else is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings
from starlette.applications import Starlette

from tests.fakes import LIMIT_S, FakeClock, FakeHandle
from worldline.core.config import ServerConfig
from worldline.server.app import create_app

IN_CI: Final = 2000
MESSAGES: Final = int(os.environ.get("WORLDLINE_FUZZ_MESSAGES", str(IN_CI)))
PATIENCE_S: Final = max(600, MESSAGES // 2)  # of a test, on a machine that does other things too
AT_ONCE: Final = 20  # messages of one example
STEP_S: Final = 0.05
# Rates and leases are off: what is looked for lies behind them, and they have tests of their own.
CONFIG: Final = ServerConfig(
    seats=3,
    idle_lease_s=0,
    max_lifetime_s=0,
    heartbeat_s=0,
    init_timeout_s=600,
    init_attempts=1000,
    messages_per_second=0,
    bytes_per_second=0,
    sockets_per_minute=0,
    max_message_bytes=64 * 1024,
    max_recordings_bytes=0,
)
MANY = settings(
    max_examples=max(1, MESSAGES // AT_ONCE),
    derandomize=MESSAGES <= IN_CI,
    # Threads take part, so an example need not fail twice: it is printed as it was found.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ],
)


class Complaints(logging.Handler):
    """What the server logs as an error: a crash that it survived."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.heard.append(self.format(record))


@asynccontextmanager
async def arena() -> AsyncGenerator[tuple[Starlette, FakeHandle]]:
    """A running app whose time passes; nothing may be left of anybody, and nothing crashed."""
    clock, handle, complaints = FakeClock(), FakeHandle(), Complaints()
    logger = logging.getLogger("worldline")
    app = create_app(CONFIG, handle, clock=clock)
    logger.addHandler(complaints)
    ticking: asyncio.Task[None] | None = None
    try:
        async with app.router.lifespan_context(app):
            await app.state.services.readiness.wait(clock, 1.0)
            ticking = asyncio.create_task(_tick(clock))
            yield app, handle
    finally:
        if ticking is not None:
            ticking.cancel()
            await asyncio.wait({ticking})
        logger.removeHandler(complaints)
    assert complaints.heard == [], complaints.heard
    handle.nothing_is_left()


async def _tick(clock: FakeClock) -> None:
    while True:
        await clock.advance(STEP_S)
        await asyncio.sleep(0)


def run(scene: Callable[[Starlette], Coroutine[Any, Any, Any]]) -> Any:
    """Play one scene on a server of its own."""

    async def play() -> Any:
        async with asyncio.timeout(2 * LIMIT_S), arena() as (app, _):
            return await scene(app)

    return asyncio.run(play())

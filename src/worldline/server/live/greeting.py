"""What a server says of itself on `hello`."""

from __future__ import annotations

import worldline
from worldline.core.config import ServerConfig
from worldline.core.live import VERSION
from worldline.core.live.server import Limits, Ready
from worldline.server.live import signalling
from worldline.server.live.broadcast import formats
from worldline.server.services import Services

MAX_SCRIPT_FRAMES = 512  # of the wire's own type `Script`


def ready(services: Services) -> Ready:
    """The model, what can be sent, and the limits."""
    info = services.engine.info
    return Ready(
        version=VERSION,
        server=f"worldline {worldline.__version__}",
        model=info.model,
        fps=info.fps,
        formats=formats(),
        transports=("websocket", "webrtc") if signalling.available() else ("websocket",),
        limits=limits(services.config),
        server_ms=services.clock.now() * 1000,
    )


def limits(config: ServerConfig) -> Limits:
    """The settings as the wire names them."""
    return Limits(
        max_message_bytes=config.max_message_bytes,
        max_image_pixels=config.max_image_pixels,
        max_prompt_chars=config.max_prompt_chars,
        max_script_frames=MAX_SCRIPT_FRAMES,
        inputs_per_second=config.messages_per_second,
        worlds_per_client=config.worlds_per_client,
        max_viewers=config.max_viewers,
        max_lead_ms=round(config.max_lead_s * 1000),
        heartbeat_ms=round(config.heartbeat_s * 1000),
        init_timeout_ms=round(config.init_timeout_s * 1000),
        idle_lease_ms=round(config.idle_lease_s * 1000),
        grace_ms=round(config.grace_s * 1000),
        max_lifetime_ms=round(config.max_lifetime_s * 1000),
    )

"""The one place that knows which world and which audience a room gets."""

from __future__ import annotations

from worldline.server.live.broadcast import Broadcast
from worldline.server.live.entering import Pixels
from worldline.server.live.room import Room, World
from worldline.server.services import Services


def make_world(services: Services, room: Room, picture: Pixels) -> tuple[World, Broadcast]:
    """A world that starts from `picture` (uint8 `H W 3`) and the viewers of it, none yet."""
    from worldline.server.live.world import LiveWorld

    broadcast = Broadcast(room.id, services.config, services.clock, services.encoders)
    world = LiveWorld(
        services, room.id, room.enter, picture, device=services.device, broadcast=broadcast
    )
    return world, broadcast

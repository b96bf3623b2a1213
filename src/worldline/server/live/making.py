"""The one place that knows which world and which audience a room gets."""

from __future__ import annotations

from worldline.server.live.broadcast import Broadcast
from worldline.server.live.entering import Pixels
from worldline.server.live.recording import Recorder
from worldline.server.live.room import Room
from worldline.server.live.seams import World
from worldline.server.live.signalling import Peers
from worldline.server.live.track import Observed, Track
from worldline.server.services import Services


def make_world(services: Services, room: Room, picture: Pixels | None) -> tuple[World, Broadcast]:
    """A world that starts from `picture` (uint8 `H W 3`), or from what the room says it begins
    from, and the viewers of it, none yet."""
    from worldline.server.live.world import LiveWorld

    clock = services.clock
    broadcast = Broadcast(
        room.id,
        services.config,
        clock=clock,
        encoders=services.encoders,
        metrics=services.metrics,
    )
    room.track = Track(room.id, metrics=services.metrics, traces=services.traces, clock=clock)
    room.recorder = Recorder(broadcast, services.recordings, clock)
    room.peers = Peers(broadcast, services.config, clock)
    audience = Observed(broadcast, room.track, clock)
    world = LiveWorld(
        services,
        room.id,
        room.enter,
        picture,
        device=services.device,
        broadcast=audience,
        beginning=room.beginning._replace(family=room.family, saves=services.saves),
    )
    return world, broadcast

"""How long a world may stay: pure arithmetic over what is known of it.

Knows no task and no clock: `agenda` says what is due and when, the keeper of a world
(`server.live.keeper`) waits for it. Nothing closes that was not announced before.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from worldline.core.config import ServerConfig
from worldline.core.live.client import (
    Camera,
    Input,
    Keys,
    Pad,
    Pause,
    Release,
    Resume,
    Script,
)

MOVING_S: Final = 2.0  # for a world to reach host memory; it is looked again as often

Term = Literal["idle", "lifetime", "holder_gone"]


class Terms(NamedTuple):
    """Limits in seconds; 0 is no limit."""

    idle_s: float
    grace_s: float
    lifetime_s: float
    warn_s: float
    park_s: float


class Tenancy(NamedTuple):
    """What is known of a world, in seconds of one clock.

    `heard` is the holder's last input, or when the last one ends that goes on by itself; `moving`
    says that a key or stick is held. `gone` is since when the holder's connection is lost,
    `waiting` since when nothing is generated, None while it is not so. A place in line, and a world
    that opens, is not `open` yet: neither its age nor idleness counts. `tried` is when its seat
    could not be lent yet, because it was still on its way to host memory.
    """

    began: float
    heard: float
    moving: bool = False
    gone: float | None = None
    waiting: float | None = None
    open: bool = True
    tried: float | None = None


class Due(NamedTuple):
    """At `at` something is to be done: announce the end by `term` at `ends`, make it, park the
    world, or lend its seat."""

    at: float
    what: Literal["announce", "end", "park", "lend"]
    term: Term | None = None
    ends: float = 0.0


def terms_of(config: ServerConfig) -> Terms:
    """The settings that hold for every world of a server."""
    return Terms(
        idle_s=config.idle_lease_s,
        grace_s=config.grace_s,
        lifetime_s=config.max_lifetime_s,
        warn_s=config.warn_s,
        park_s=config.park_after_s,
    )


def agenda(terms: Terms, tenancy: Tenancy) -> list[Due]:
    """All that is due if nothing changes, in order. A wait without a holder is not idleness."""
    ends: list[tuple[Term, float, float]] = []  # term, its begin, its length
    if terms.lifetime_s and tenancy.open:
        ends.append(("lifetime", tenancy.began, terms.lifetime_s))
    if tenancy.gone is not None:
        ends.append(("holder_gone", tenancy.gone, terms.grace_s))
    elif terms.idle_s and tenancy.open and not tenancy.moving:
        ends.append(("idle", tenancy.heard, terms.idle_s))
    dues = [due for term, begin, length in ends for due in _ending(term, begin, length, terms)]
    if tenancy.waiting is not None and terms.park_s:
        parked = tenancy.waiting + terms.park_s
        tried = parked if tenancy.tried is None else max(parked, tenancy.tried)
        dues += [Due(parked, "park"), Due(tried + MOVING_S, "lend")]
    return sorted(dues, key=lambda due: due.at)


def heard(tenancy: Tenancy, message: Input, *, now: float, latent_s: float) -> Tenancy:
    """After an input of the holder: it was heard now, or when what it began is over by itself.

    `latent_s` is how long a latent frame is on screen.
    """
    moving, until, waiting = tenancy.moving, now, tenancy.waiting
    match message:
        case Keys(held=held):
            moving = bool(held)
        case Pad(x=x, z=z, yaw=yaw, pitch=pitch):
            moving = any((x, z, yaw, pitch))
        case Script(frames=frames):
            moving, until = False, now + len(frames) * latent_s
        case Camera(poses=poses, rate=rate, loop=loop):
            moving, until = loop, now + len(poses) / rate
        case Release():
            return tenancy._replace(heard=now, moving=False)
        case Pause():
            waiting = now
        case Resume():
            waiting = None
        case _:
            pass
    return tenancy._replace(heard=max(until, tenancy.heard), moving=moving, waiting=waiting)


def _ending(term: Term, begin: float, length: float, terms: Terms) -> list[Due]:
    """The end of one term and its announcement, at the latest halfway through a short one.

    A lost holder is announced at once: who watches may ask for the controls.
    """
    ends = begin + length
    notice = begin if term == "holder_gone" else ends - min(terms.warn_s, length / 2)
    return [Due(notice, "announce", term, ends), Due(ends, "end", term, ends)]

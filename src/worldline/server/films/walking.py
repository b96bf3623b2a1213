"""A film of a live model: a session like a visitor's, chunk by chunk, behind everybody who watches.

What it costs others is kept small: it has a seat only while nobody wants that, a turn of the device
is asked for with as much time as there is, and a chunk is given up when somebody else wants the
device, though not for ever. Beside each chunk lies what the world needs to go on from there. So a
film that was interrupted goes on behind its last chunk; where the engine cannot go on from it,
chunks are made again and not written twice.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from worldline.core.actions import LOOK, WALK, parse_action_string
from worldline.core.chunk import PICTURES
from worldline.core.errors import (
    AbortedError,
    OtherWeightsError,
    SnapshotError,
    WorldFileError,
)
from worldline.core.motion import MOTIONLESS, Motion, from_actions
from worldline.core.snapshot import decode_chunk, decode_snapshot
from worldline.core.trajectory import motions_along
from worldline.core.turns import HORIZON_S
from worldline.core.walk import Stepped, WorldStart, made_with
from worldline.core.walked import Walked
from worldline.core.worldfile import read_world
from worldline.runtime.handle import StepResult
from worldline.runtime.protocol import OpenReply, OpenRequest, StepRequest
from worldline.runtime.world_start import world_start
from worldline.server.films.errors import FilmNotReadyError
from worldline.server.films.film import Film, Wish
from worldline.server.films.making import Making, Pixels, go_on
from worldline.server.films.reel import Reel
from worldline.server.films.store import START

MOST_GIVEN_UP: Final = 4  # times that one chunk is given up for somebody else
BEGINNING: Final = "beginning.light"  # the light snapshot before chunk 0
WORLD: Final = "world.wl"  # the world file of a walk that has not begun
MOST_EXACT_BYTES: Final = 256 * 2**20  # of latents that a film is gone on from


class Walking(Making):
    """See the module."""

    async def make(self, reel: Reel) -> None:
        """See `Making`."""
        opened = await self._open(reel)
        motions = motions_of(self.film.wish, opened)
        for index in range(opened.next_chunk, self.film.wish.chunks):
            await self.chair.make_room(
                functools.partial(self.engine.park, self.id),
                functools.partial(self.engine.unpark, self.id),
            )
            span = slice(index * opened.chunk, (index + 1) * opened.chunk)
            with await self._step(index, motions=motions[span]) as result:
                is_there = index < self.film.chunks  # it was made again to come to where it was
                frames, kept = (None if is_there else np.array(result.frames)), result.kept
            if frames is not None:
                await self.write(reel, frames, kept)

    async def leave(self) -> None:
        """See `Making`."""
        await self.engine.close(self.id)

    async def _open(self, reel: Reel) -> OpenReply:
        """Behind the last chunk, if the engine can go on from there; else at the beginning."""
        film = self.film
        request = to_open(film.wish, await self.picture(), id=self.id)
        if film.chunks:
            with contextlib.suppress(SnapshotError, OtherWeightsError, OSError):
                find = functools.partial(light_of, self.folder, reel, film.chunks)
                light = await self.work(find)
                return await self.engine.open(msgspec.structs.replace(request, light=light))
        opened = await self.engine.open(request)
        if not film.chunks:
            await self.work(functools.partial(self._remember, request, opened))
        return opened

    def _remember(self, request: OpenRequest, opened: OpenReply) -> None:
        """Write down what the film begins with: to go on from, and to be walked from."""
        if opened.light:
            (self.folder / BEGINNING).write_bytes(opened.light)
        picture = (self.folder / START).read_bytes()
        start = world_start(request, opened, picture=picture)
        with contextlib.suppress(WorldFileError):  # a picture that is too large for one
            world = Walked(start, made_with(self.engine.info)).encode()
            (self.folder / WORLD).write_bytes(world)

    async def _step(self, index: int, *, motions: tuple[Motion, ...]) -> StepResult:
        """The next chunk; given up and made anew as long as others want the device more."""
        request = StepRequest(session_id=self.id, chunk_index=index, motions=motions, keep=True)
        for attempt in range(MOST_GIVEN_UP + 1):
            gives_up = attempt < MOST_GIVEN_UP
            yields = functools.partial(self.engine.abort, self.id) if gives_up else go_on
            with contextlib.suppress(AbortedError):
                latest = self.clock.now() + HORIZON_S
                async with self.device.turn(self.id, deadline=latest, yields=yields):
                    return await self.engine.step(request)
        raise AssertionError("the last attempt is not given up")


def to_open(wish: Wish, picture: Pixels, *, id: str) -> OpenRequest:
    """The session of a film from its start picture, uint8 `H W 3`."""
    return OpenRequest(
        session_id=id,
        image=picture.tobytes(),
        image_width=picture.shape[1],
        image_height=picture.shape[0],
        prompt=wish.prompt,
        seed=wish.seed,
        width=wish.width,
        height=wish.height,
        steps=wish.steps,
        loras=wish.loras,
    )


def light_of(folder: Path, reel: Reel, chunks: int) -> bytes:
    """The world behind the first `chunks` chunks of a film, as light snapshot.

    Of all its chunks, so that what is rebuilt has the bits it had, unless these are too many.
    Raises: SnapshotError where it is not known, OSError.
    """
    snapshot = decode_snapshot((folder / BEGINNING).read_bytes())
    kept = reel.kept(chunks)
    if len(kept) != chunks:
        raise SnapshotError("chunks of this film left nothing behind", got=len(kept))
    exact = sum(len(one) for one in kept) <= MOST_EXACT_BYTES
    snapshot = msgspec.structs.replace(snapshot, everything=exact)
    for one in kept:
        snapshot = snapshot.with_chunk(decode_chunk(one))
    return snapshot.encode()


def world_file(folder: Path, film: Film, reel: Reel, chunks: int) -> bytes:
    """The world of a film as a file: its walk up to and with chunk `chunks - 1`.

    Raises: FilmNotReadyError where it is not known, WorldFileError.
    """
    try:
        begun = read_world((folder / WORLD).read_bytes())
    except OSError:
        raise FilmNotReadyError("this film cannot be walked", expected="a live model's") from None
    walked, size = Walked.of(begun), begun.start.chunk
    motions = motions_of(film.wish, begun.start)
    for index, digest in enumerate(reel.digests(chunks)):
        span = motions[index * size : (index + 1) * size]
        walked.add(Stepped(motions=span, digest=digest))
    return walked.encode()


def motions_of(wish: Wish, opened: OpenReply | WorldStart) -> tuple[Motion, ...]:
    """What moves the camera at every latent frame of the film. Raises: ControlError."""
    count = wish.chunks * opened.chunk
    if wish.poses:
        latent_s = PICTURES / opened.fps
        found = motions_along(wish.poses, rate=wish.rate, latent_s=latent_s, rig=opened.rig)
        found = (MOTIONLESS, *found)  # the first latent frame is the start picture
    else:
        found = tuple(from_actions(keys) for keys in keys_of(wish.actions))
    return (*found[:count], *([MOTIONLESS] * (count - len(found))))


def keys_of(actions: str | None) -> tuple[str, ...]:
    """Letters of each latent frame of an official action string, which counts pictures.

    The first latent frame is the start picture; what moves the camera to the next one are the keys
    held when that begins. Raises: ControlError.
    """
    if actions is None:
        return ()
    keys = parse_action_string(actions)
    held = np.concatenate([keys.wasd, keys.ijkl], axis=1)[::PICTURES]  # T 8
    letters = WALK + LOOK
    return ("", *("".join(k for k, down in zip(letters, row, strict=True) if down) for row in held))

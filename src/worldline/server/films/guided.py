"""A film of a model that makes nothing else: guided, many steps, one of them per turn.

The engine's film job keeps its own place in a folder beside the film and goes on from there; it
hands out all pictures again from the first on, which costs a decode, and those that are on the disk
already are not written twice. Live worlds step between any two of its turns.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from worldline.core.actions import parse_action_string
from worldline.core.camera import poses_from_keys
from worldline.core.film import CameraPath, FilmMotion, FilmPath, FilmRequest, fit_path
from worldline.core.trajectory import as_poses
from worldline.core.turns import HORIZON_S
from worldline.runtime.film_calls import FilmAdvance, FilmClose, FilmOpen, FilmReply
from worldline.server.films.film import Wish, frames_of
from worldline.server.films.making import Making, Pixels, go_on
from worldline.server.films.reel import Reel
from worldline.server.films.store import WORK

SAVE_S: Final = 10.0  # what a crash may cost


class Guided(Making):
    """See the module."""

    async def make(self, reel: Reel) -> None:
        """See `Making`."""
        reply = await self._open()
        shown, begun, waiting = 0, self.film.chunks, list[Pixels]()
        saved = self.clock.now()
        while not reply.done:
            save = self.clock.now() - saved >= SAVE_S
            saved = self.clock.now() if save else saved
            reply, frames = await self._turn(save)
            if frames is None:
                continue
            new = frames[max(0, self.film.frames - shown) :]
            shown += len(frames)
            waiting += [new] if len(new) else []
            if waiting and shown >= self._end_of(begun):
                await self.write(reel, np.concatenate(waiting))
                waiting, begun = [], begun + 1
        await self.written()
        await self.engine.film(FilmClose(film_id=self.id, forget=True))

    async def leave(self) -> None:
        """See `Making`."""
        await self.engine.film(FilmClose(film_id=self.id))

    async def _open(self) -> FilmReply:
        info, picture = self.engine.info, await self.picture()
        call = FilmOpen(
            film_id=self.id,
            request=request_of(self.film.wish, chunk=info.chunk, overlap=info.overlap),
            image=picture.tobytes(),
            image_width=picture.shape[1],
            image_height=picture.shape[0],
            folder=str(self.folder / WORK),
        )
        reply = (await self.engine.film(call)).reply
        assert reply is not None, "an opened film has a reply"
        return reply

    async def _turn(self, save: bool) -> tuple[FilmReply, Pixels | None]:
        latest = self.clock.now() + HORIZON_S
        async with self.device.turn(self.id, deadline=latest, yields=go_on):
            turn = await self.engine.film(FilmAdvance(film_id=self.id, save=save))
        assert turn.reply is not None, "a turn has a reply"
        done = turn.reply.progress
        self.percent = min(99, 100 * done.done // max(1, done.total))
        return turn.reply, turn.frames

    def _end_of(self, chunk: int) -> int:
        """Pictures of the film when chunk `chunk` is whole."""
        info = self.engine.info
        return frames_of(chunk + 1, info.chunk, overlap=info.overlap)


def request_of(wish: Wish, *, chunk: int, overlap: int) -> FilmRequest:
    """What the engine is asked. Raises: ControlError."""
    motion = motion_of(wish, chunk=chunk, overlap=overlap)
    return FilmRequest(
        prompt=wish.prompt,
        chunks=wish.chunks,
        seed=wish.seed,
        width=wish.width,
        height=wish.height,
        steps=wish.steps,
        path=None if motion.relative is None else FilmPath.of(motion.relative, motion.keys),
        negative_prompt=wish.negative_prompt,
        guidance=wish.guidance,
        solver=wish.solver,
        loras=wish.loras,
    )


def motion_of(wish: Wish, *, chunk: int, overlap: int) -> FilmMotion:
    """The camera path of a film, as `worldline generate` makes it. Raises: ControlError."""
    path = None
    if wish.poses:
        path = CameraPath(as_poses(wish.poses), None, None)
    elif wish.actions is not None:
        keys = parse_action_string(wish.actions)
        path = CameraPath(poses_from_keys(keys.wasd, keys.ijkl), keys.wasd, None)
    return fit_path(path, chunk, wish.chunks, overlap=overlap)

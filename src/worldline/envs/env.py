"""`WorldEnv`: one walk through one world as a Gymnasium environment.

A step is a chunk: the action is held for its latent frames, and the observation is the last of its
pictures. What a step is worth and when a walk is over is the user's to say, by two functions of a
`Step`. A walk can be branched, rewound, and kept to be returned to; with exact history (as long as
the world's timeline reaches, see `EngineOptions.timeline_mb`) every bit comes out as it would from
the start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import gymnasium
import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import Chunk
from worldline.core.errors import ConfigError
from worldline.core.motion import Pose
from worldline.envs.controls import Kind, action_space, motion_of
from worldline.media.gallery import Start, read_gallery
from worldline.media.image import decode_image
from worldline.runtime.engine import World, load, nearest_size
from worldline.runtime.hub import packaged
from worldline.runtime.session import Session
from worldline.runtime.snapshot import Snapshot
from worldline.runtime.travels import at_once

Frame = NDArray[np.uint8]
SEEDS = 2**31
GALLERY_FAMILY = "pocket"  # whose pictures a walk begins with if nobody names one


class Step(NamedTuple):
    """What a step did, for the hooks. `frames` uint8 `F H W 3`; `number` counts from 1.

    `pose` is where the camera is at its end, `prompt` the words in force.
    """

    frames: NDArray[np.uint8]
    pose: Pose
    number: int
    prompt: str


class Shown(NamedTuple):
    """The end of a step: the last picture `H W 3`, the camera, the words."""

    frame: Frame
    pose: Pose
    prompt: str


class Moment(NamedTuple):
    """A place of a walk that was kept, see `WorldEnv.keep`."""

    snapshot: Snapshot
    shown: tuple[Shown, ...]
    number: int


Reward = Callable[[Step], SupportsFloat]
Ended = Callable[[Step], bool]


class WorldEnv(gymnasium.Env[Frame, Any]):
    """One walk. Several may share a `World`; they interleave, and none sees another."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 16}  # noqa: RUF012

    def __init__(
        self,
        world: World | str = "pocket",
        *,
        image: Frame | str | Path | None = None,
        prompt: str | None = None,
        actions: Kind = "keys",
        reward: Reward | None = None,
        ended: Ended | None = None,
        max_steps: int | None = None,
        size: tuple[int, int] | None = None,
        history: int = 1024,
        render_mode: str | None = None,
    ) -> None:
        """Load a world by name, or take a loaded one.

        Walks begin with `image` (uint8 `H W 3`, or a file) and `prompt`, by default those of the
        pocket world's gallery. `reward` is 0 by default, `ended` never true; `max_steps` truncates.
        `size` is width and height of the pictures. `history` is how many steps `rewind` may go
        back. Raises `ConfigError`, `ImageError` and what loading raises.
        """
        _check(actions, render_mode, least=min(history, 1 if max_steps is None else max_steps))
        self.world = load(world) if isinstance(world, str) else world
        self.metadata = {**self.metadata, "render_fps": self.world.info.fps}
        self.render_mode = render_mode
        self._start = self._default(image, prompt)
        picture = self._start.image
        sizes = self.world.preset.sizes
        self._size = size or nearest_size(sizes, picture.shape[1], picture.shape[0])
        self._reward, self._ended, self._max_steps = reward, ended, max_steps
        self._actions: Kind = actions
        self.action_space = action_space(actions)
        shape = (self._size[1], self._size[0], 3)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self._session: Session | None = None
        self._shown: deque[Shown] = deque(maxlen=history + 1)
        self._number = 0
        self._said: str | None = None

    @property
    def session(self) -> Session:
        """The walk itself. Raises: gymnasium's `ResetNeeded` before the first `reset`."""
        if self._session is None:
            raise gymnasium.error.ResetNeeded("call reset() before anything else")
        return self._session

    @property
    def seen(self) -> Frame:
        """The observation of the last step, or of `reset`: uint8 `H W 3`."""
        return self._seen()[0]

    @property
    def history(self) -> int:
        """How many steps `rewind` may go back now."""
        return max(len(self._shown) - 1, 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """Begin a walk and make its first chunk, standing still.

        The same `seed` gives the same world; without one it is drawn. `options` may hold `image`
        and `prompt` for this walk. Raises `ConfigError` for other options, `ImageError`,
        `PromptError`.
        """
        super().reset(seed=seed)
        start = self._wanted(options or {})
        drawn = int(self.np_random.integers(SEEDS)) if seed is None else seed
        width, height = self._size
        session = self.world.start(start.image, start.prompt, drawn, width=width, height=height)
        try:
            chunk = session.step()
        except BaseException:
            session.close()
            raise
        self._drop()
        self._session, self._number, self._said = session, 0, None
        self._shown.append(_shown(chunk, start.prompt))
        return self._seen()

    def step(self, action: Any) -> tuple[Frame, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold an action for a chunk; `info["frames"]` are all its pictures.

        After an error, `ControlError` for a wrong action among them, the walk is where it was.
        """
        session = self.session
        motion = motion_of(self.action_space, action)
        chunk = session.step([motion] * session.chunk, prompt=self._said)
        prompt = self._said or self._shown[-1].prompt
        self._said = None
        self._number += 1
        self._shown.append(_shown(chunk, prompt))
        step = Step(chunk.frames, chunk.poses[-1], self._number, prompt)
        reward = 0.0 if self._reward is None else float(self._reward(step))
        terminated = self._ended is not None and bool(self._ended(step))
        truncated = self._max_steps is not None and self._number >= self._max_steps
        frame, info = self._seen()
        return frame, reward, terminated, truncated, {**info, "frames": chunk.frames}

    def say(self, prompt: str) -> None:
        """New words, from the next step on."""
        self._said = prompt

    def rewind(self, steps: int) -> tuple[Frame, dict[str, Any]]:
        """Go back by so many steps, as if they had not been made; what `reset` and `step` show.

        `info["rebuilt"]` is empty or "exact" where every bit is as it was, "window" where the
        past was made anew from less. Raises `ConfigError`, `SnapshotError`; the walk then stays.
        """
        session, most = self.session, self.history
        if not 0 <= steps <= most:
            raise ConfigError("cannot go back so far", expected=f"0 to {most} steps", got=steps)
        rebuilt = at_once(session.rewinding(session.next_chunk - steps))
        for _ in range(steps):
            self._shown.pop()
        self._number -= steps
        self._said = None
        frame, info = self._seen()
        return frame, {**info, "rebuilt": rebuilt}

    def branch(self, n: int = 1) -> list[WorldEnv]:
        """`n` environments that stand where this one does; they share what is equal.

        The hooks and the loaded world are the same, the random generators are not.
        """
        return [self._twin(session) for session in self.session.branch(n)]

    def keep(self) -> Moment:
        """This place of the walk, for `restore`, of this environment or of another of its kind."""
        return Moment(self.session.snapshot(), tuple(self._shown), self._number)

    def restore(self, kept: Moment) -> tuple[Frame, dict[str, Any]]:
        """Stand where a moment was kept. Raises: SnapshotError for one of another kind."""
        self.session.restore(kept.snapshot)
        self._shown.clear()
        self._shown.extend(kept.shown)
        self._number, self._said = kept.number, None
        return self._seen()

    def become(self, other: WorldEnv) -> None:
        """Leave this walk and branch off another, in place. Raises: ConfigError for one of another
        world or size."""
        if (other.world, other._size) != (self.world, self._size):
            raise ConfigError("a walk of another kind", expected=self._size, got=other._size)
        if other is self:
            return
        (session,) = other.session.branch()
        self._drop()
        self._stand(session, other)

    def render(self) -> Frame | None:
        """The picture at the end of the last step, `H W 3`; None without a render mode."""
        if self.render_mode is None:
            return None
        return self._shown[-1].frame.copy() if self._shown else None

    def close(self) -> None:
        """Drop the walk; calling it again does no harm."""
        self._drop()

    def _seen(self) -> tuple[Frame, dict[str, Any]]:
        assert self.session, "a walk shows something from its reset on"
        shown = self._shown[-1]
        info = {
            "step": self._number,
            "c2w": np.array(shown.pose.c2w, dtype=np.float64).reshape(3, 4),
            "yaw": shown.pose.yaw,
            "pitch": shown.pose.pitch,
        }
        return shown.frame.copy(), info

    def _twin(self, session: Session) -> WorldEnv:
        made = WorldEnv(
            self.world,
            image=self._start.image,
            prompt=self._start.prompt,
            actions=self._actions,
            reward=self._reward,
            ended=self._ended,
            max_steps=self._max_steps,
            size=self._size,
            history=(self._shown.maxlen or 2) - 1,
            render_mode=self.render_mode,
        )
        made._stand(session, self)
        return made

    def _stand(self, session: Session, other: WorldEnv) -> None:
        self._session, self._number, self._said = session, other._number, other._said
        self._shown.clear()
        self._shown.extend(other._shown)

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None
        self._shown.clear()

    def _default(self, image: Frame | str | Path | None, prompt: str | None) -> Start:
        (first,) = read_gallery(packaged(GALLERY_FAMILY) / "gallery", 1)
        picture = first.image if image is None else _picture(image)
        return Start(picture, prompt if prompt is not None else first.prompt, first.seed)

    def _wanted(self, options: dict[str, Any]) -> Start:
        unknown = options.keys() - {"image", "prompt"}
        if unknown:
            raise ConfigError("unknown options", expected="image, prompt", got=sorted(unknown))
        start = self._start
        image = _picture(options["image"]) if "image" in options else start.image
        return start._replace(image=image, prompt=options.get("prompt", start.prompt))


def _check(actions: str, render_mode: str | None, *, least: int) -> None:
    """Refuse what cannot be asked for; `least` is the smallest count of steps."""
    if actions not in ("keys", "motion"):
        raise ConfigError("no such actions", expected="keys | motion", got=actions)
    if render_mode not in (None, "rgb_array"):
        raise ConfigError("no such render mode", expected="rgb_array", got=render_mode)
    if least < 1:
        raise ConfigError("a walk without steps", expected="at least 1", got=least)


def _shown(chunk: Chunk, prompt: str) -> Shown:
    return Shown(chunk.frames[-1].copy(), chunk.poses[-1], prompt)


def _picture(image: Frame | str | Path) -> Frame:
    return decode_image(Path(image).read_bytes()) if isinstance(image, str | Path) else image

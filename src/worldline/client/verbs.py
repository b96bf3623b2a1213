"""What a hand can do, once for the blocking and the awaited world.

`R` is what each verb gives: a `Receipt`, or an awaitable of one. Every verb is one input message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldline.client.conversation import Conversation, Make
from worldline.client.hand import check_actions
from worldline.core.errors import ControlError
from worldline.core.live.client import (
    AskControl,
    Branch,
    Camera,
    GiveControl,
    Pad,
    Pause,
    Pointer,
    Prompt,
    Record,
    Release,
    Reset,
    Resume,
    Rewind,
    Save,
    Script,
    Settings,
    Trace,
)
from worldline.core.live.shared import Format

R = TypeVar("R")


class Verbs(ABC, Generic[R]):
    """The inputs. A subclass says how one is sent (`_do`) and which conversation it belongs to."""

    _talk: Conversation

    @abstractmethod
    def _do(self, make: Make) -> R:
        """Send the next input."""

    def press(self, *keys: str) -> R:
        """Hold these of w a s d (move) and i j k l (look) too. Raises: ControlError."""
        actions = check_actions(keys)
        return self._do(self._talk.keys(lambda hand: hand.press(actions)))

    def release(self, *keys: str) -> R:
        """Let go of these keys; without any, of everything: sticks, turns and paths as well."""
        if not keys:
            return self._do(lambda number, at_ms: Release(id=number, at_ms=at_ms))
        actions = check_actions(keys)
        return self._do(self._talk.keys(lambda hand: hand.release(actions)))

    def look(self, yaw: float = 0.0, pitch: float = 0.0) -> R:
        """Turn by so many degrees, right and up, as fast as the camera may."""
        return self._do(lambda n, at: Pointer(id=n, at_ms=at, yaw=float(yaw), pitch=float(pitch)))

    def move(self, x: float = 0.0, z: float = 0.0, *, yaw: float = 0.0, pitch: float = 0.0) -> R:
        """Hold the sticks so: shares of full speed, -1 to 1; `x` right, `z` ahead."""
        axes = [float(value) for value in (x, z, yaw, pitch)]
        if not all(abs(value) <= 1 for value in axes):
            raise ControlError("a stick beyond its end", expected="-1 to 1", got=axes)
        return self._do(
            lambda n, at: Pad(id=n, at_ms=at, x=axes[0], z=axes[1], yaw=axes[2], pitch=axes[3])
        )

    def script(self, frames: Sequence[Sequence[str]]) -> R:
        """Actions per latent frame, then standing still. Raises: ControlError."""
        checked = tuple(check_actions(actions) for actions in frames)
        return self._do(lambda n, at: Script(id=n, at_ms=at, frames=checked))

    def follow(
        self,
        poses: NDArray[np.floating] | Sequence[Sequence[float]],
        *,
        rate: float = 16.0,
        loop: bool = False,
    ) -> R:
        """Walk a path: camera-to-world `N 3 4` or `N 4 4`, `rate` poses per second of video.

        Raises: ControlError.
        """
        rows = _rows(poses)
        return self._do(lambda n, at: Camera(id=n, at_ms=at, poses=rows, rate=rate, loop=loop))

    def prompt(self, text: str, *, blend_chunks: int = 0) -> R:
        """New words from the next chunk on, blended over so many chunks."""
        return self._do(lambda n, at: Prompt(id=n, at_ms=at, text=text, blend_chunks=blend_chunks))

    def settings(
        self,
        *,
        speed: float | None = None,
        lead_ms: float | None = None,
        format: Format | None = None,
        quality: int | None = None,
        bitrate_kbps: int | None = None,
    ) -> R:
        """Change what holds from now on; None leaves it."""
        return self._do(
            lambda number, at_ms: Settings(
                id=number,
                at_ms=at_ms,
                speed=speed,
                lead_ms=lead_ms,
                format=format,
                quality=quality,
                bitrate_kbps=bitrate_kbps,
            )
        )

    def pause(self) -> R:
        """Stop generating after the chunk in flight; the world stays."""
        return self._do(lambda number, at_ms: Pause(id=number, at_ms=at_ms))

    def resume(self) -> R:
        """Go on after a pause."""
        return self._do(lambda number, at_ms: Resume(id=number, at_ms=at_ms))

    def reset(self, seed: int | None = None) -> R:
        """Back to the start picture, with the same seed or a new one."""
        return self._do(lambda number, at_ms: Reset(id=number, at_ms=at_ms, seed=seed))

    def rewind(self, chunk: int | None = None, *, seconds: float | None = None) -> R:
        """Back to before `chunk` of the walk, as in `moments`, or by so many seconds.

        Raises: ControlError unless one of them is given.
        """
        if (chunk is None) == (seconds is None):
            raise ControlError("where to go back to?", expected="one of chunk and seconds")
        return self._do(lambda n, at: Rewind(id=n, at_ms=at, chunk=chunk, seconds=seconds))

    def branch(self, chunk: int | None = None) -> R:
        """A second world that begins here, or before `chunk`; `answer` has its token."""
        return self._do(lambda number, at_ms: Branch(id=number, at_ms=at_ms, chunk=chunk))

    def save(self) -> R:
        """The walk so far as a world file; `answer` says where it lies."""
        return self._do(lambda number, at_ms: Save(id=number, at_ms=at_ms))

    def record(self, on: bool = True) -> R:
        """Begin or end a recording on the server; `recording` tells where it lies."""
        return self._do(lambda number, at_ms: Record(id=number, at_ms=at_ms, on=on))

    def trace(self, on: bool = True) -> R:
        """Begin or end a Chrome trace of this session; `traced` tells where it lies."""
        return self._do(lambda number, at_ms: Trace(id=number, at_ms=at_ms, on=on))

    def ask_control(self) -> R:
        """As a spectator: ask for the controls."""
        return self._do(lambda number, at_ms: AskControl(id=number, at_ms=at_ms))

    def give_control(self, viewer: str) -> R:
        """As the holder: give the controls to a viewer that asked (`control.asking`)."""
        return self._do(lambda number, at_ms: GiveControl(id=number, at_ms=at_ms, viewer=viewer))


def _rows(poses: NDArray[np.floating] | Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    """`N 3 4`, `N 4 4` or `N 12` as rows of 12. Raises: ControlError."""
    array = np.asarray(poses, np.float64)
    if array.ndim == 3 and array.shape[1:] in ((3, 4), (4, 4)):
        array = array[:, :3].reshape(len(array), 12)
    if array.ndim != 2 or array.shape[1] != 12 or not np.isfinite(array).all():
        raise ControlError("not a path", expected="finite N 3 4 or N 4 4", got=array.shape)
    return tuple(tuple(map(float, row)) for row in array)

"""What a world file may hold. Every fault is a `WorldFileError`; no run is unpacked to find one."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import numpy as np

from worldline.core.actions import check_actions
from worldline.core.camera import Intrinsics, check_intrinsics, check_poses
from worldline.core.errors import ControlError, WorldFileError
from worldline.core.motion import Motion, check_motion, check_rig
from worldline.core.walk import (
    DIGEST_BYTES,
    POSE_NUMBERS,
    Guided,
    MadeWith,
    Run,
    Walk,
    WorldFile,
    WorldStart,
    relative_and_keys,
)

MAX_FRAMES: Final = 2**22  # latent frames: twelve days at 4 a second
MAX_SIDE: Final = 8192
MAX_TEXT: Final = 65_536
MAX_WORD: Final = 512
MAX_STEPS: Final = 1000
MAX_BLEND: Final = 4096
MAX_GUIDANCE: Final = 1000.0


def check_file(file: WorldFile) -> None:
    """Raise `WorldFileError` unless everything in `file` is possible and fits together."""
    try:
        _check_start(file.start)
        _check_made(file.made)
        _check_walk(file.walk, file.start.chunk)
        _check_film(file)
    except ControlError as error:
        raise WorldFileError(error.message, expected=error.expected, got=error.got) from None


def _check_start(start: WorldStart) -> None:
    _within("picture", len(start.picture), 1, math.inf)
    _length("digest of the picture", len(start.pixels), DIGEST_BYTES)
    _check_text(start.prompt)
    for side in (start.width, start.height):
        if side % 16:
            raise WorldFileError("unusable size", expected="multiples of 16", got=side)
        _within("size", side, 16, MAX_SIDE)
    _within("frame rate", start.fps, 1, 1000)
    _within("chunk", start.chunk, 1, 4096)
    if start.window != -1:
        _within("window", start.window, 1, 65_536)
    _within("sink", start.sink, 0, 65_536)
    steps = start.steps
    _within("number of steps", steps if isinstance(steps, int) else len(steps), 1, MAX_STEPS)
    if start.shift is not None and not 0 < start.shift < math.inf:
        raise WorldFileError("unusable shift", expected="a positive number", got=start.shift)
    check_rig(start.rig)
    if start.guided is not None:
        _check_guided(start.guided)
    if start.intrinsics is not None:
        check_intrinsics(Intrinsics(*start.intrinsics))


def _check_guided(guided: Guided) -> None:
    _within("overlap", guided.overlap, 0, 1)
    _within("guidance", 1.0 if guided.guidance is None else guided.guidance, 0, MAX_GUIDANCE)
    for name in (guided.solver or "", guided.branches):
        _within("name", len(name), 0, MAX_WORD)
    if guided.negative_prompt is not None:
        _within("negative prompt", len(guided.negative_prompt), 0, MAX_TEXT)


def _check_made(made: MadeWith) -> None:
    texts = (made.model, made.weights, made.mode, made.dtype, made.device)
    for text in (*texts, made.torch, made.machine):
        _within("name", len(text), 0, MAX_WORD)
    _within("number of threads", made.threads, 1, 1024)
    _within("number of ranks", made.ranks, 1, 4096)
    _within("number of options", len(made.options), 0, 256)


def _check_walk(walk: Walk, chunk: int) -> None:
    _within("number of chunks", walk.chunks, 0, MAX_FRAMES // chunk)
    for run in walk.runs:
        _check_run(run)
    _length("walk in latent frames", sum(run.count for run in walk.runs), walk.chunks * chunk)
    _check_kinds(walk, chunk)
    if walk.digests:
        _length("digests", len(walk.digests), walk.chunks * DIGEST_BYTES)
    _check_places([at.chunk for at in walk.prompts], walk.chunks)
    _check_places([at.chunk for at in walk.steps], walk.chunks)
    for prompt in walk.prompts:
        _check_text(prompt.text)
        _within("blend", prompt.blend_chunks, 0, MAX_BLEND)
    for steps in walk.steps:
        _within("number of steps", steps.steps, 1, MAX_STEPS)
    _check_poses(walk)


def _check_film(file: WorldFile) -> None:
    """A film of a guided model has one text and one number of steps; each clip adds something."""
    if file.start.guided is None:
        return
    if file.walk.prompts or file.walk.steps:
        raise WorldFileError("a film of a guided model changes nothing on its way")
    if file.walk.chunks > 1 and file.overlap >= file.start.chunk:
        raise WorldFileError(
            "clips that add nothing", expected="2 latent frames or more", got=file.start.chunk
        )


def _check_run(run: Run) -> None:
    _within("length of a run", run.count, 1, MAX_FRAMES)
    if isinstance(run.control, Motion):
        check_motion(run.control)
    elif run.control is not None:
        _within("number of letters", len(run.control), 0, 8)
        check_actions(run.control)


def _check_kinds(walk: Walk, chunk: int) -> None:
    """One kind of controls per chunk: it may change where a chunk begins and nowhere else."""
    at, before = 0, None
    for run in walk.runs:
        kind = type(run.control)
        if kind is not before and at % chunk:
            raise WorldFileError("controls of two kinds in one chunk", got=f"latent frame {at}")
        at, before = at + run.count, kind


def _check_poses(walk: Walk) -> None:
    wanted = sum(run.count for run in walk.runs if run.control is None)
    _length("poses", len(walk.poses), wanted * POSE_NUMBERS * 4)
    if not wanted:
        return
    rows = np.frombuffer(walk.poses, dtype="<f4").reshape(-1, POSE_NUMBERS)
    if not np.isfinite(rows).all():
        raise WorldFileError("poses hold other values than finite numbers")
    check_poses(relative_and_keys(rows)[0])


def _check_places(chunks: list[int], count: int) -> None:
    rising = all(before < after for before, after in pairwise(chunks))
    if not rising or (chunks and not 0 <= chunks[0] <= chunks[-1] < count):
        raise WorldFileError(
            "changes are out of order", expected=f"rising chunks below {count}", got=chunks[:8]
        )


def _check_text(text: str) -> None:
    if not text.strip() or len(text) > MAX_TEXT:
        raise WorldFileError(
            "unusable prompt", expected=f"1 to {MAX_TEXT} characters", got=len(text)
        )


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise WorldFileError(f"unusable {name}", expected=f"{least} to {most}", got=value)


def _length(name: str, value: int, wanted: int) -> None:
    if value != wanted:
        raise WorldFileError(f"the {name} do not fit the rest", expected=wanted, got=value)

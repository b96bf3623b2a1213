"""`worldline replay`: a saved walk made again, and compared with the sums that were recorded."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager

import msgspec

from worldline.cli.loading import progress_bar
from worldline.cli.options_saved import Replay
from worldline.cli.saved import Saved, load_saved
from worldline.core.errors import ConfigError
from worldline.core.walk import WorldFile
from worldline.core.worldfile import load_world_file
from worldline.media.record import Recorder, open_recorder

DIFFERS = 1  # exit code


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What `replay` found; `compared` chunks had a sum to compare with.

    `identical` is None where there was none, `first_difference` a chunk's index. `remarks` are what
    is other here than when the walk was made. `seconds` is without loading.
    """

    world: str
    model: str
    mode: str
    chunks: int
    frames: int
    compared: int
    identical: bool | None
    first_difference: int | None
    remarks: list[str]
    seconds: float
    out: str | None = None


def replay(options: Replay) -> int:
    """Run the command; returns the exit code: 1 where exact mode gave other bits."""
    found = run(load_saved(load_world_file(options.world), options.saved), options)
    print(msgspec.json.encode(found).decode() if options.json else in_words(found))
    return DIFFERS if found.identical is False and found.mode == "exact" else 0


def run(saved: Saved, options: Replay) -> Replayed:
    """Replay the walk; without a film to write, an exact one ends at the first difference."""
    from worldline.runtime.replaying import replay as chunks_again

    file, pixels, world, remarks = saved
    began, frames, same = time.perf_counter(), 0, list[bool | None]()
    bar = progress_bar()
    again = contextlib.closing(chunks_again(world, file, pixels))
    with recording(file, options.out) as film, bar, again as chunks:
        task = bar.add_task("replaying chunks", total=file.walk.chunks)
        for made in chunks:
            same.append(made.same)
            frames += len(made.chunk.frames)
            if film is not None:
                film.write(made.chunk.frames)
            bar.update(task, advance=1)
            if made.same is False and film is None and file.made.mode == "exact":
                break
    compared = [one for one in same if one is not None]
    return Replayed(
        world=str(options.world),
        model=world.info.model,
        mode=world.info.mode,
        chunks=file.walk.chunks,
        frames=frames,
        compared=len(compared),
        identical=all(compared) if compared else None,
        first_difference=same.index(False) if False in same else None,
        remarks=remarks,
        seconds=round(time.perf_counter() - began, 3),
        out=options.out,
    )


def recording(file: WorldFile, out: str | None) -> AbstractContextManager[Recorder | None]:
    """Where the film goes, if anywhere. Raises: ConfigError."""
    if out is None:
        return contextlib.nullcontext()
    start = file.start
    try:
        return open_recorder(out, start.fps, width=start.width, height=start.height)
    except OSError as error:
        raise ConfigError("the film cannot be written", expected="--out", got=error) from None


def in_words(found: Replayed) -> str:
    """The result in a line."""
    took = f"{found.frames} frames in {found.seconds:.2f} s"
    if found.identical is None:
        return f"replayed, nothing to compare with: {took}"
    if found.identical:
        rest = found.chunks - found.compared
        bare = f" and {rest} that nobody took a sum of" if rest else ""
        return f"identical: {found.compared} chunks{bare}, {took}"
    return f"chunk {found.first_difference} of {found.chunks} is the first that differs: {took}"

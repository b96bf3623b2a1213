"""`worldline replay`: a saved walk made again, and compared with the sums that were recorded."""

from __future__ import annotations

import contextlib
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.cli.loading import load_world, progress_bar
from worldline.cli.options import Replay
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions, WorldInfo
from worldline.core.env import read_env
from worldline.core.errors import ConfigError, OtherWeightsError
from worldline.core.walk import WorldFile, engine_options, made_with, pixels_digest
from worldline.core.worldfile import load_world_file
from worldline.media.image import decode_image
from worldline.media.record import Recorder, open_recorder
from worldline.runtime.protocol import WorkerSettings

if TYPE_CHECKING:
    from worldline.runtime.engine import World

DIFFERS = 1  # exit code
RANDOM = "random-"  # how the id of made-up weights begins
# What changes pictures; the rest is about time and memory, and for the device it was chosen for.
PICTURE_OPTIONS = ("kv", "decoder", "recache", "lossy")
COMPARED = ("model", "weights", "mode", "dtype", "threads", "torch", "machine")


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
    file = load_world_file(options.world)
    pixels = decode_image(file.start.picture)
    world = load_world(settings_of(file, options))
    remarks = check_made(file, world.info, pixels, force=options.force)
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr, flush=True)
    found = run(world, file, pixels, options=options, remarks=remarks)
    print(msgspec.json.encode(found).decode() if options.json else in_words(found))
    return DIFFERS if found.identical is False and found.mode == "exact" else 0


def settings_of(file: WorldFile, options: Replay) -> WorkerSettings:
    """Load what the walk was made with, as far as this machine has it. Raises: WorldFileError."""
    made, env = file.made, read_env()
    device = options.device or env.device
    same_kind = device_kind(device) == device_kind(made.device)
    return WorkerSettings(
        model=options.model or made.model,
        device=device,
        dtype=made.dtype,
        mode=made.mode,
        random_weights=made.weights.startswith(RANDOM),
        threads=made.threads,
        options=options_of(file, options.decoder, same_kind=same_kind),
    )


def options_of(file: WorldFile, decoder: str | None, *, same_kind: bool) -> EngineOptions:
    """The engine's options of a walk; on another kind of device only what changes pictures.

    Raises: ConfigError for a decoder of one's own that is not given.
    """
    recorded = engine_options(file.made)
    if decoder is None and recorded.decoder not in ("full", "tiny"):
        raise ConfigError(
            "the walk was made with a decoder of its own", expected=f"--decoder {recorded.decoder}"
        )
    if not same_kind:
        kept = {name: getattr(recorded, name) for name in PICTURE_OPTIONS}
        recorded = msgspec.structs.replace(DEFAULT_OPTIONS, **kept)
    return msgspec.structs.replace(recorded, decoder=decoder or recorded.decoder)


def device_kind(device: str) -> str:
    """`cpu` or `cuda`, whatever the number."""
    if device != "auto":
        return device.partition(":")[0]
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_made(
    file: WorldFile, info: WorldInfo, pixels: NDArray[np.uint8], *, force: bool
) -> list[str]:
    """What is other here. Raises: OtherWeightsError, unless forced."""
    then, now = file.made, made_with(info)
    if then.weights != now.weights and not force:
        raise OtherWeightsError(
            f"the walk was made with other weights of {then.model}",
            expected=f"{then.weights} (--model takes their folder; --force replays all the same)",
            got=f"{now.weights} of {now.model}",
        )
    told = [(name, getattr(then, name), getattr(now, name)) for name in COMPARED]
    remarks = [f"{name} was {was}, here {here}" for name, was, here in told if was != here]
    if pixels_digest(pixels) != file.start.pixels:
        remarks.append("the start picture decodes to other pixels here")
    if then.mode != "exact":
        remarks.append(f"{then.mode} mode promises no bits")
    return remarks


def run(
    world: World,
    file: WorldFile,
    pixels: NDArray[np.uint8],
    *,
    options: Replay,
    remarks: list[str],
) -> Replayed:
    """Replay the walk; without a film to write, an exact one ends at the first difference."""
    from worldline.runtime.replaying import replay as chunks_again

    began, frames, same = time.perf_counter(), 0, list[bool | None]()
    bar = progress_bar()
    with recording(file, options.out) as film, bar:
        task = bar.add_task("replaying chunks", total=file.walk.chunks)
        for made in chunks_again(world, file, pixels):
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
        return f"identical: {found.compared} chunks, {took}"
    return f"chunk {found.first_difference} of {found.chunks} is the first that differs: {took}"

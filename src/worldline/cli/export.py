"""`worldline export`: a stretch of a saved walk as a film with its camera, or as training data."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NamedTuple

import msgspec

from worldline.cli.loading import progress_bar
from worldline.cli.options_saved import Export
from worldline.cli.saved import Saved, load_saved
from worldline.core.camera import DEFAULT_INTRINSICS, Intrinsics, scale_intrinsics
from worldline.core.chunk import PICTURES, Chunk
from worldline.core.errors import ConfigError
from worldline.core.motion import MOTIONLESS, Motion
from worldline.core.tape import tape
from worldline.core.walk import WorldFile
from worldline.core.way import Way
from worldline.core.worldfile import load_world_file
from worldline.media import export as media


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What `export` wrote: pictures `first` to `first + pictures - 1` of the walk.

    `identical` says whether every chunk came out as it was recorded, None where nobody knows.
    """

    out: str
    dataset: bool
    first: int
    pictures: int
    seconds: float
    identical: bool | None
    remarks: list[str]


class Stretch(NamedTuple):
    """Pictures of a walk: from `first`, up to and without `end`."""

    first: int
    end: int


def export(options: Export) -> int:
    """Run the command; returns the exit code."""
    file = load_world_file(options.world)
    stretch = stretch_of(file, options.from_, options.to)
    media.check_folder(options.out)
    found = run(load_saved(file, options.saved), stretch, options)
    if options.json:
        print(msgspec.json.encode(found).decode())
    else:
        print(f"{found.pictures} pictures, {found.seconds:.2f} s -> {found.out}")
    return 0


def stretch_of(file: WorldFile, since: float, until: float | None) -> Stretch:
    """The pictures that begin in these seconds. Raises: ConfigError where there are none."""
    last = file.seconds if until is None else until
    if 0 <= since < last:  # false for NaN
        first = math.ceil(min(since, file.seconds) * file.start.fps)
        end = min(math.ceil(min(last, file.seconds) * file.start.fps), file.pictures)
        if first < end:
            return Stretch(first, end)
    raise ConfigError(
        "no picture of the walk is in this stretch",
        expected=f"seconds from 0 to {file.seconds:.2f}",
        got=f"{since} to {last}",
    )


def run(saved: Saved, stretch: Stretch, options: Export) -> Exported:
    """Make the walk again up to the end of the stretch, and write what is in it."""
    from worldline.runtime.replaying import replay

    file, pixels, world, remarks = saved
    way, at, same = Way(file.start.rig), 0, list[bool | None]()
    again, bar = contextlib.closing(replay(world, file, pixels)), progress_bar()
    exporting = media.Export(options.out, shape_of(saved), dataset=options.dataset)
    with exporting as out, bar, again as chunks:
        task = bar.add_task("replaying pictures", total=stretch.end)
        for step, motions, made in zip(file.chunks(), tape(file), chunks, strict=True):
            new = slice(file.overlap if made.chunk.index else 0, None)
            led = step if step.poses is None else step._replace(poses=step.poses[new])
            poses = way.pictures(led, made.chunk.poses[new])
            actions = actions_of(motions[new], made.chunk)
            count = len(made.chunk.frames)
            part = slice(max(stretch.first - at, 0), max(stretch.end - at, 0))
            out.add(made.chunk.frames[part], poses[part], actions[part])
            same.append(made.same)
            at += count
            bar.update(task, completed=min(at, stretch.end))
            if at >= stretch.end:
                break
        out.finish(meta_of(file, stretch))
        pictures = out.pictures
    return Exported(
        out=str(options.out),
        dataset=options.dataset,
        first=stretch.first,
        pictures=pictures,
        seconds=round(pictures / file.start.fps, 3),
        identical=None if None in same else all(same),
        remarks=remarks,
    )


def shape_of(saved: Saved) -> media.Shape:
    """Size, rate and camera of the walk's pictures."""
    start = saved.file.start
    k = start.intrinsics or saved.world.preset.intrinsics or DEFAULT_INTRINSICS
    scaled = scale_intrinsics(Intrinsics(*k), start.width, start.height)
    return media.Shape(start.width, start.height, start.fps, scaled)


def actions_of(motions: tuple[Motion, ...], chunk: Chunk) -> list[Motion]:
    """The motion that leads to each picture; the start picture is led to by none."""
    per_picture = [motion for motion in motions for _ in range(PICTURES)]
    if chunk.index == 0:
        return [MOTIONLESS, *per_picture[PICTURES:]]
    return per_picture


def meta_of(file: WorldFile, stretch: Stretch) -> dict[str, Any]:
    """What a dataset says of the stretch: where it came from, and the words in force."""
    start, made = file.start, file.made
    said = [(0, start.prompt, 0)]
    for at in file.walk.prompts:
        first = max(PICTURES * at.chunk * start.chunk - PICTURES + 1, 0)
        said.append((first - stretch.first, at.text, at.blend_chunks))
    held = [prompt for prompt in said if prompt[0] <= 0][-1:]
    later = [prompt for prompt in said if 0 < prompt[0] < stretch.end - stretch.first]
    return {
        "model": made.model,
        "weights": made.weights,
        "seed": start.seed,
        "first_picture": stretch.first,
        "latent_chunk": start.chunk,
        "rig": msgspec.to_builtins(start.rig),
        "prompts": [
            {"picture": max(picture, 0), "text": text, "blend_chunks": blend}
            for picture, text, blend in (*held, *later)
        ],
    }

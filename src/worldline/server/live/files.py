"""World files at the door: what of them a live world can be made of, and what will look different.

A file may say anything that fits its own checks; here it is held against the limits of those who
enter with a picture. Reading it takes a thread: up to 32 MiB are summed.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.errors import WorldFileError
from worldline.core.live.client import Enter
from worldline.core.walk import WorldFile, made_with
from worldline.core.worldfile import read_world
from worldline.server.inbox import check_prompt
from worldline.server.requests import check_window

LONGEST_UNSEEN_S: Final = 3600.0


def usable(data: bytes, *, info: WorldInfo, config: ServerConfig, at_end: bool) -> WorldFile:
    """The file, if a live world can be what it says. Raises: WorldFileErrors, PromptError,
    ConfigError."""
    file = read_world(data)
    start = file.start
    for text in (start.prompt, *(said.text for said in file.walk.prompts)):
        check_prompt(text, config.max_prompt_chars)
    size = (start.width, start.height)
    sizes = info.sizes or ((info.width, info.height),)
    if size not in sizes:
        raise WorldFileError("a size this model does not have", expected=sizes, got=size)
    if start.chunk != info.chunk:
        raise WorldFileError("other chunks than here", expected=info.chunk, got=start.chunk)
    check_window(start.window, start.sink, info)
    steps = start.steps if isinstance(start.steps, int) else len(start.steps)
    most = max(steps, *(at.steps for at in file.walk.steps)) if file.walk.steps else steps
    if most > info.steps:
        raise WorldFileError("more passes than a live world has", expected=info.steps, got=most)
    longest = min(config.max_lifetime_s or LONGEST_UNSEEN_S, LONGEST_UNSEEN_S)
    if at_end and file.seconds > longest:
        raise WorldFileError(
            "the walk is too long to be walked unseen",
            expected=f"at most {longest:g} s",
            got=f"{file.seconds:g} s",
        )
    return file


def wish_of(enter: Enter, file: WorldFile) -> Enter:
    """`enter` with what the file says instead of its own, and without the file."""
    start = file.start
    return replace(
        enter,
        prompt=start.prompt,
        image=start.picture,
        seed=start.seed,
        width=start.width,
        height=start.height,
        window=start.window,
        sink=start.sink,
        intrinsics=start.intrinsics,
        world=None,
    )


def remarks(file: WorldFile, info: WorldInfo) -> list[str]:
    """What made the walk and is other here, in words: it may look different."""
    return file.made.differences(made_with(info))

"""The shipped weights through the library: size, origin, and that commands are obeyed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("numba", reason="the recipe renders with numba")

import worldline
from recipes.pocket import measures
from recipes.pocket.export import LIMIT, PACKAGED
from recipes.pocket.judge_trial import command_walk
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import scenes
from recipes.pocket.walks import render
from worldline.models.tensor_files import read_header

GALLERY = PACKAGED.with_name("gallery")
COMMANDS = ("w", "j", "l", "k")
LATENTS = 5


def test_the_file_is_small_and_says_where_it_is_from() -> None:
    assert PACKAGED.stat().st_size <= LIMIT
    header = read_header(PACKAGED)
    assert {"recipe_commit", "vae_steps", "dit_steps", "data_seed"} <= set(header.metadata)
    assert set(json.loads(header.metadata["config"])) == {"dit", "vae", "text"}
    assert {name.split(".")[0] for name in header.tensors} == {"dit", "vae", "text"}


def test_the_world_follows_the_commands() -> None:
    """From a start picture each command must end nearest to its own true picture, and near it."""
    entry = json.loads((GALLERY / "gallery.json").read_text())[0]
    picture = np.array(Image.open(GALLERY / entry["file"]).convert("RGB"))
    renderers = [Renderer(scenes()[0])]
    truth = np.stack([render(command_walk(0, 0, key, LATENTS), renderers) for key in COMMANDS])
    world = worldline.load("pocket", device="cpu")
    for i, key in enumerate(COMMANDS):
        session = world.start(picture, entry["prompt"], seed=entry["seed"])
        chunks = [session.step([[key]]).frames for _ in range(LATENTS)]
        session.close()
        first, last = chunks[0][0], chunks[-1]
        assert measures.psnr(first, picture) > 28, "the first frame is the start picture"
        near = measures.psnr(last[None], truth[:, -4:]).mean(-1)
        assert int(near.argmax()) == i, f"{key!r} looks like {COMMANDS[int(near.argmax())]!r}"
        assert near[i] > 19

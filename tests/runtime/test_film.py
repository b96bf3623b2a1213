"""Tiny for the screen, full for the recording: the film is the one the full decoder would show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests import tiny
from tests.preview import random_decoder
from worldline.core.errors import ConfigError
from worldline.models.wan.tiny import TinyState
from worldline.runtime.engine import World

WALK = [("w",), ("w", "l"), ("j",)]


def preview_world() -> World:
    """The small world with a preview decoder."""
    world = tiny.world()
    return World(dataclasses.replace(world.components, preview=random_decoder()))


def test_the_recording_is_what_the_full_decoder_shows() -> None:
    full, quick = tiny.world(), preview_world()
    with (
        full.start(tiny.picture(), tiny.PROMPT, keep_latents=True) as shown,
        quick.start(tiny.picture(), tiny.PROMPT, keep_latents=True) as screen,
    ):
        expected = [shown.step(WALK).frames for _ in range(3)]
        seen = [screen.step(WALK).frames for _ in range(3)]
        recorded = list(screen.recording())
        again = list(shown.recording())
        assert isinstance(screen.state.decoder, TinyState)
        film = screen.state.film
        assert film is not None and len(film) == 3
        cells = tiny.WIDTH * tiny.HEIGHT // 64
        assert film.nbytes == 3 * 16 * 3 * cells * 4
    for on_screen, full_frames, kept, repeated in zip(seen, expected, recorded, again, strict=True):
        assert on_screen.shape == full_frames.shape
        assert not np.array_equal(on_screen, full_frames)
        assert np.array_equal(kept, full_frames) and np.array_equal(repeated, full_frames)


def test_a_recording_can_be_made_on_the_way() -> None:
    with preview_world().start(tiny.picture(), tiny.PROMPT, keep_latents=True) as session:
        session.step(WALK)
        early = list(session.recording())
        session.step(WALK)
        late = list(session.recording())
    assert len(early) == 1 and len(late) == 2
    assert np.array_equal(early[0], late[0])


def test_nothing_is_kept_unless_asked() -> None:
    with preview_world().start(tiny.picture(), tiny.PROMPT) as session:
        session.step(WALK)
        assert session.state.film is None
        with pytest.raises(ConfigError, match="kept no latents"):
            session.recording()


def test_what_is_kept_is_a_copy() -> None:
    with preview_world().start(tiny.picture(), tiny.PROMPT, keep_latents=True) as session:
        session.step(WALK)
        film = session.state.film
        assert film is not None
        given = torch.zeros(1, 16, 3, 4, 6)
        film.append(given)
        given.fill_(7)
        assert not film._chunks[-1].any()

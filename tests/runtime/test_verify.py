"""Every stage input has its typed error, with what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from worldline.core.errors import PromptError, ShapeError, WorldlineError
from worldline.runtime import verify


def control(*shape: int) -> None:
    verify.verify_control(torch.zeros(shape), 384, (1, 4, 4))


CASES: list[tuple[str, type[WorldlineError], Callable[[], object]]] = [
    ("latents 4-D", ShapeError, lambda: verify.verify_latents(torch.zeros(16, 3, 4, 4), 16)),
    ("latents channels", ShapeError, lambda: verify.verify_latents(torch.zeros(1, 8, 3, 4, 4), 16)),
    ("odd grid", ShapeError, lambda: verify.verify_latents(torch.zeros(1, 16, 3, 5, 4), 16)),
    ("image 4-D", ShapeError, lambda: verify.verify_image_latents(torch.zeros(20, 3, 4, 4))),
    ("image width", ShapeError, lambda: verify.verify_image_latents(torch.zeros(1, 16, 3, 4, 4))),
    ("timesteps 2-D", ShapeError, lambda: verify.verify_timesteps(torch.zeros(1, 1))),
    ("timesteps empty", ShapeError, lambda: verify.verify_timesteps(torch.zeros(0))),
    ("camera 4-D", ShapeError, lambda: control(384, 1, 4, 4)),
    ("camera width", ShapeError, lambda: control(1, 448, 1, 4, 4)),
    ("camera grid", ShapeError, lambda: control(1, 384, 1, 4, 6)),
    ("text 2-D", ShapeError, lambda: verify.verify_text(torch.zeros(4, 24), 24)),
    ("text width", ShapeError, lambda: verify.verify_text(torch.zeros(1, 4, 23), 24)),
    ("text empty", PromptError, lambda: verify.verify_text(torch.zeros(1, 0, 24), 24)),
    ("no text", PromptError, lambda: verify.stack_text([])),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "call"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_bad_stage_input(kind: type[WorldlineError], call: Callable[[], object]) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.expected
    assert caught.value.got is not None


def test_unequal_text_names_both_shapes() -> None:
    with pytest.raises(ShapeError) as caught:
        verify.stack_text([torch.zeros(4, 24), torch.zeros(5, 24)])
    assert caught.value.expected == "(4, 24)"
    assert caught.value.got == "(5, 24)"


def test_good_input_passes() -> None:
    verify.verify_latents(torch.zeros(1, 16, 3, 4, 6), 16)
    verify.verify_image_latents(torch.zeros(1, 20, 3, 4, 6))
    verify.verify_timesteps(torch.zeros(1))
    verify.verify_control(torch.zeros(1, 448, 3, 4, 6), 448, (3, 4, 6))
    verify.verify_text(torch.zeros(1, 10, 24), 24)
    assert verify.stack_text([torch.zeros(4, 24)] * 2).shape == (2, 4, 24)

"""`generate` with every option for small cards, on a small checkpoint of the published layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.checkpoints import make_tiny, write_diffusers
from worldline.cli.main import main
from worldline.models.presets import TAEW2_1
from worldline.models.wan.tiny import FILE_NAMES, TinyDecoder

Sum = Callable[..., str]
HOST = ("--offload", "blocks", "--resident-blocks", "1", "--text-encoder", "swap")
EIGHT = ("--mode", "8bit", "--kv", "8bit")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a preview decoder laid beside it."""
    folder = write_diffusers(tmp_path_factory.mktemp("model"), make_tiny())
    torch.manual_seed(0)
    tensors = {name: t.detach() for name, t in TinyDecoder(TAEW2_1).state_dict().items()}
    save_file(tensors, folder / FILE_NAMES[0])
    return folder


@pytest.fixture
def film_sum(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Sum:
    """Generate two chunks; returns the check sum of the frames."""
    picture = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    count = 0

    def run(*arguments: str) -> str:
        nonlocal count
        count += 1
        command = ["generate", "--model", str(model), "--image", str(picture), "--json"]
        command += ["--device", "cpu", "--threads", "1", "--prompt", "a sandy court"]
        command += ["--size", "48x32", "--window", "4", "--sink", "1", "--steps", "2"]
        command += ["--chunks", "2", "--actions", "w-8", "--out", str(tmp_path / f"film{count}")]
        assert main([*command, *arguments]) == 0
        return json.loads(capsys.readouterr().out)["sha256"]

    return run


def test_where_weights_are_changes_no_film(film_sum: Sum) -> None:
    plain = film_sum()
    assert film_sum(*HOST) == plain
    eight = film_sum(*EIGHT)
    assert eight != plain
    assert film_sum(*EIGHT, *HOST) == eight


def test_tiny_for_the_screen_and_full_for_the_recording(film_sum: Sum) -> None:
    tiny = ("--decoder", "tiny")
    full, screen = film_sum(*EIGHT), film_sum(*EIGHT, *tiny)
    assert screen != full
    assert film_sum(*EIGHT, *tiny, *HOST, "--record-decoder", "full") == full

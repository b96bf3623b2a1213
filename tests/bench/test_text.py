"""`bench text`: one encode for all requests, equal bits, and a failure that is one."""

from __future__ import annotations

import msgspec
import pytest
import torch

from tests import tiny
from worldline.bench.text import as_table, measure_text
from worldline.cli.main import main


class Drifting(tiny.HashText):
    """An encoder that never gives the same twice."""

    asked = 0

    def encode(self, prompts: list[str]) -> torch.Tensor:
        self.asked += 1
        return super().encode(prompts) + self.asked


def test_ten_requests_cost_one_encode() -> None:
    figures = measure_text(tiny.world(), requests=10)
    assert (figures.encoded, figures.unguided_encoded, figures.max_abs_diff) == (1, 0, 0)
    assert figures.kept
    assert figures.requests == 10 and figures.kept_bytes == 10 * 24 * 4
    assert "encoded 1 x for 10 guided requests" in as_table(figures)


def test_unequal_bits_are_told() -> None:
    figures = measure_text(tiny.world(text=Drifting()), requests=3)
    assert figures.max_abs_diff > 0
    assert not figures.kept


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "text", "--requests", "3", "--json", "--device", "cpu"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert found["model"] == "pocket" and found["encoded"] == 1
    assert main(["bench", "text", "--requests", "1"]) == 2
    assert main(["bench", "text", "--prompt", " "]) == 2

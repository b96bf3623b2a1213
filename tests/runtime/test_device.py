"""Torch's global flags, per mode."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from worldline.core.errors import ConfigError
from worldline.runtime import device


@pytest.fixture(autouse=True)
def flags_as_found() -> Generator[None]:
    """Other tests run in this process: end in exact mode with the threads they began with."""
    threads = torch.get_num_threads()
    yield
    device.setup("cpu", "exact", threads)


def test_exact_mode_fixes_everything_that_changes_bits() -> None:
    device.setup("cpu", "fast")
    assert device.setup("cpu", "exact") == torch.device("cpu")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_fast_mode_lets_torch_choose() -> None:
    device.setup("cpu", "fast")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.get_num_threads() in (1, 2)


@pytest.mark.parametrize("mode", device.MODES)
def test_asked_for_threads_win(mode: str) -> None:
    device.setup("cpu", mode, 3)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    ("name", "mode", "threads", "text"),
    [
        ("quantum", "exact", None, "unknown device"),
        ("mps", "exact", None, "unknown device"),
        ("cuda:99", "exact", None, "this device is not here"),
        ("cpu", "sloppy", None, "unknown mode"),
        ("cpu", "exact", 0, "threads must be positive"),
    ],
)
def test_refused(name: str, mode: str, threads: int | None, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        device.setup(name, mode, threads)

"""Torch's global flags, per mode."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize(
    ("cards", "name", "stands_for"),
    [(0, "auto:1", "cpu"), (2, "auto:1", "cuda:1"), (2, "cuda:0", "cuda:0"), (2, "cpu:0", "cpu:0")],
)
def test_a_rank_has_a_device_of_its_own(
    cards: int, name: str, stands_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made without naming a device is made on the rank's, not on the first one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    found = device.setup(name, "exact", 1)
    assert found == torch.device(stands_for)
    assert current == [found] * (found.type == "cuda")


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


@pytest.mark.parametrize(
    ("one", "two", "threads"), [(3.0, 1.7, 2), (3.0, 2.8, 1), (3.0, 40.0, 1), (3.0, 3.0, 1)]
)
def test_a_second_thread_must_be_worth_it(
    one: float, two: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(device, "_block_ms", lambda: (one, two))
    assert device.fastest_threads() == threads


def test_one_core_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(device, "_block_ms", lambda: pytest.fail("measured"))
    assert device.fastest_threads() == 1


def test_both_counts_are_timed() -> None:
    assert min(device._block_ms()) > 0


@pytest.mark.parametrize(
    ("found", "mode", "name", "wanted"),
    [
        ({"avx512_bf16": True}, "fast", "cpu", "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "fast", "cpu", "bfloat16"),
        ({"avx512_f": True}, "fast", "cpu", None),
        ({"avx512_bf16": True}, "exact", "cpu", None),
        ({"avx512_bf16": True}, "8bit", "cpu", None),
        ({"avx512_bf16": True}, "fast", "cuda", None),
    ],
)
def test_bfloat16_where_the_processor_multiplies_it(
    found: dict[str, bool],
    mode: str,
    name: str,
    wanted: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert device.preferred_dtype(torch.device(name), mode) == wanted


def test_only_small_networks_on_the_cpu_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[nn.Module] = []
    monkeypatch.setattr(device, "pack_linears", packed.append)
    network, other = nn.Linear(8, 8), nn.Linear(2, 2)
    device.tune_for_cpu(network, other, torch.device("cuda"), mode="exact")
    monkeypatch.setattr(device, "PACKED_BYTES", 8)
    device.tune_for_cpu(network, other, torch.device("cpu"), mode="exact")
    assert not packed
    monkeypatch.setattr(device, "PACKED_BYTES", 1000)
    device.tune_for_cpu(network, other, torch.device("cpu"), mode="exact")
    assert packed == [network]


@pytest.mark.parametrize(
    ("mode", "name", "dtype", "wanted"),
    [
        ("fast", "cpu", torch.bfloat16, torch.bfloat16),
        ("fast", "cpu", torch.float32, torch.float32),
        ("exact", "cpu", torch.bfloat16, torch.float32),
        ("fast", "cuda", torch.bfloat16, torch.float32),
    ],
)
def test_the_autoencoder_follows_in_fast_mode_on_a_cpu(
    mode: str, name: str, dtype: torch.dtype, wanted: torch.dtype
) -> None:
    where, network, vae = torch.device(name), nn.Linear(2, 2).to(dtype), nn.Conv2d(2, 2, 1)
    assert device.autoencoder_dtype(where, mode, dtype) == wanted
    device.tune_for_cpu(network, vae, where, mode=mode)
    assert vae.weight.dtype == wanted

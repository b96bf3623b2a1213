"""The one-shot all-to-all over memory that all ranks see, and when it is used.

Ranks are threads here and share ordinary memory; the real one is that of several GPUs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from worldline.runtime.parallel.group import Group
from worldline.runtime.parallel.one_shot import OneShot, Peers

SIZE = cases.Size(64, 16, 3)  # 12 tokens: even


class Shared:
    """One memory for the buffers of all ranks, by size."""

    def __init__(self, ranks: int) -> None:
        self.ranks, self._barrier, self._lock = ranks, threading.Barrier(ranks), threading.Lock()
        self._buffers: dict[int, list[Tensor]] = {}
        self.made = 0

    def peers(self, nbytes: int) -> Peers:
        with self._lock:
            if nbytes not in self._buffers:
                self._buffers[nbytes] = [
                    torch.zeros(nbytes, dtype=torch.uint8) for _ in range(self.ranks)
                ]
                self.made += 1
        return _SharedPeers(self._buffers[nbytes], self._barrier)


class _SharedPeers:
    def __init__(self, buffers: list[Tensor], barrier: threading.Barrier) -> None:
        self._buffers, self._barrier = buffers, barrier

    def at(self, rank: int) -> Tensor:
        return self._buffers[rank]

    def meet(self) -> None:
        self._barrier.wait(timeout=20)


def one_shot(group: Group, shared: Shared) -> OneShot:
    return OneShot(group.rank, group.size, shared.peers)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_it_gives_what_the_plain_one_gives_again_and_again(ranks: int) -> None:
    shared = Shared(ranks)

    def run(group: Group) -> bool:
        other, generator = one_shot(group, shared), torch.Generator().manual_seed(group.rank)
        equal = True
        for dtype in (torch.float32, torch.bfloat16, torch.float32):
            sent = torch.randn(ranks * 5, 2, 3, generator=generator).to(dtype)
            plain, received = torch.empty_like(sent), torch.empty_like(sent)
            group.all_to_all(plain, sent, name="plain")
            other(received, sent)
            equal &= torch.equal(plain, received)
        return equal

    assert on_ranks(ranks, run) == [True] * ranks
    assert shared.made == 2  # one buffer for each number of bytes, kept


class Clock:
    """Says that calls of one kind take so long: the plain way is timed first, then the other."""

    def __init__(self, *ms: float) -> None:
        self._ms = list(ms)

    def __call__(self, run: Callable[[], None]) -> float:
        run()
        return self._ms.pop(0)


@pytest.mark.parametrize(
    ("slow", "used"), [((2.0, 1.0), True), ((1.0, 2.0), False)], ids=["faster", "slower"]
)
def test_what_is_faster_is_used_and_changes_no_bit(slow: tuple[float, float], used: bool) -> None:
    """Rank 1 finds the other way faster in both cases; the slowest has its say."""
    shared = Shared(2)

    def run(group: Group) -> tuple[cases.Walked, set[bool], int]:
        shapes = 3  # queries, keys and values; results; keys and values alone
        times = (slow if group.rank == 0 else (2.0, 1.0)) * shapes
        group.measure(one_shot(group, shared), clock=Clock(*(20 * ms for ms in times)))
        walked = cases.walk(cases.begin(cases.world(group), SIZE), 2)
        assert group.choice is not None and len(group.choice.found) == shapes
        better = {found.better for found in group.choice.found.values()}
        return walked, better, group.traffic.calls["qkv"]

    plain = on_ranks(2, lambda group: cases.walk(cases.begin(cases.world(group), SIZE), 2))
    for walked, better, calls in on_ranks(2, run):
        assert better == {used} and calls == 18  # measuring is not counted
        assert cases.farthest(plain[0], walked) == 0


@pytest.mark.parametrize("fault", ["wrong bits", "no memory"])
def test_what_fails_on_one_rank_is_used_on_none(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    def run(group: Group) -> tuple[bool, list[bool]]:
        calls = 0

        def broken(received: Tensor, sent: Tensor) -> None:
            nonlocal calls
            calls += 1
            group.all_to_all(received, sent.clone(), name="inner", taken=[3, 3], given=[3, 3])
            if group.rank == 1:
                if fault == "no memory":
                    raise RuntimeError("these devices cannot see each other")
                received[0] += 1

        group.measure(broken, clock=Clock(1.0, 1.0))
        right = True
        for rows in (6, 6, 12):  # the second time it is known, another shape is not tried
            sent = torch.arange(float(rows)) + 100 * group.rank
            received = torch.empty_like(sent)
            group.all_to_all(received, sent, name="a")
            half = rows // 2
            mine = torch.arange(float(half)) + half * group.rank
            right &= torch.equal(received, torch.cat([mine, mine + 100]))
        assert calls == 1
        assert group.choice is not None
        return right, [found.better for found in group.choice.found.values()]

    assert on_ranks(2, run) == [(True, [False, False])] * 2
    assert "one-shot" in caplog.text


@pytest.mark.gpu
def test_symmetric_memory_of_one_gpu() -> None:
    """All of it that one GPU can show; several are needed for more."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    import torch.distributed as dist

    from worldline.runtime.parallel.one_shot import SymmetricPeers

    device = torch.device("cuda", 0)
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    try:
        group = dist.group.WORLD
        assert group is not None
        other = OneShot(0, 1, lambda nbytes: SymmetricPeers(group, nbytes, device))
        sent = torch.randn(64, 3, device=device)
        received = torch.empty_like(sent)
        other(received, sent)
        assert torch.equal(received, sent)
    finally:
        dist.destroy_process_group()

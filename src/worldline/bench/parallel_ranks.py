"""Processes for `bench parallel`: the ranks of one group, each with a device, and what they found.

Every number of ranks is a new group of new processes, as a server's would be; they meet through a
file in a temporary folder and leave their latents there. Rank r computes on GPU r, or all of them
on the CPU. A rank that ends too early ends all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.bench.machine import describe_machine
from worldline.bench.parallel import ParallelCase, ParallelFigures, Walk, WalkReport, compare, walk
from worldline.core.errors import ConfigError, WorkerDiedError

if TYPE_CHECKING:
    from worldline.ops.collectives import Collectives
    from worldline.runtime.engine import World

POLL_S = 0.05
PATIENCE_S = 600.0
Found = list[tuple[WalkReport, NDArray[np.float32]]]  # by walk, of one rank


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What every rank does. `model` None is the small world on the CPU."""

    walks: tuple[Walk, ...]
    chunks: int
    device: str
    model: str | None = None
    random_weights: bool = False
    dtype: str | None = None
    mode: str = "exact"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank writes down, beside its latents."""

    reports: tuple[WalkReport, ...]
    model: str
    dtype: str


def measure_parallel(
    job: Job, ranks: Sequence[int], on_group: Callable[[int], None] = lambda size: None
) -> ParallelFigures:
    """Walk on one rank, then on each of `ranks`; `on_group` hears before each.

    Raises `ConfigError` for devices that are not there, `WorkerDiedError` where a rank fails.
    """
    check_devices(job.device, max(ranks))
    on_group(1)
    told, (alone,) = run_ranks(job, 1)
    cases: list[ParallelCase] = []
    for size in ranks:
        on_group(size)
        _, found = run_ranks(job, size)
        for index, single in enumerate(alone):
            reports, latents = zip(*(of_rank[index] for of_rank in found), strict=True)
            cases.append(compare(reports, latents, alone=single))
    return ParallelFigures(
        model=told.model,
        device=job.device,
        dtype=told.dtype,
        link="gloo" if job.device == "cpu" else "nccl",
        chunks=job.chunks,
        machine=describe_machine(),
        cases=tuple(cases),
    )


def run_ranks(job: Job, size: int) -> tuple[Told, list[Found]]:
    """Run a group of `size` processes to its end: what rank 0 is, and what each rank found."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="worldline-parallel-") as folder:
        processes = [
            context.Process(target=run_rank, args=(job, rank, size, folder), daemon=True)
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        try:
            _wait(processes)
        finally:
            for process in processes:
                process.kill()
                process.join()
        return _collected(Path(folder), len(job.walks), size)


def run_rank(job: Job, rank: int, size: int, folder: str) -> None:
    """Entry of one process."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # they are all on this machine
    import torch

    from worldline.runtime.parallel.group import join

    device = torch.device(job.device if job.device == "cpu" else f"cuda:{rank}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    group = join(f"file://{folder}/meeting", rank=rank, size=size, device=device)
    world = _world(job, device, group)
    reports: list[WalkReport] = []
    for index, asked in enumerate(job.walks):
        report, latents = walk(world, group, asked, job.chunks)
        reports.append(report)
        np.save(f"{folder}/{rank}-{index}.npy", latents)
    told = Told(reports=tuple(reports), model=world.info.model, dtype=world.info.dtype)
    Path(folder, f"{rank}.told").write_bytes(msgspec.msgpack.encode(told))
    group.meet()
    torch.distributed.destroy_process_group()


def _world(job: Job, device: object, group: Collectives) -> World:
    if job.model is None:
        from worldline.bench.parallel_world import small_world
        from worldline.runtime.device import setup

        setup("cpu", "exact", 1)
        return small_world(group)
    from worldline.runtime.engine import load

    return load(
        job.model,
        device=str(device),
        dtype=job.dtype,
        mode=job.mode,
        random_weights=job.random_weights,
        group=group,
    )


def _wait(processes: Sequence[SpawnProcess]) -> None:
    """Until all have ended well. Raises `WorkerDiedError` as soon as one has not."""
    deadline = time.monotonic() + PATIENCE_S
    while any(process.is_alive() for process in processes):
        _check(processes)
        if time.monotonic() > deadline:
            raise WorkerDiedError("ranks do not come to an end", expected=f"{PATIENCE_S:.0f} s")
        time.sleep(POLL_S)
    _check(processes)


def _check(processes: Sequence[SpawnProcess]) -> None:
    for rank, process in enumerate(processes):
        if process.exitcode not in (None, 0):
            raise WorkerDiedError(f"rank {rank} failed", got=f"exit code {process.exitcode}")


def _collected(folder: Path, walks: int, size: int) -> tuple[Told, list[Found]]:
    told = [
        msgspec.msgpack.decode((folder / f"{rank}.told").read_bytes(), type=Told)
        for rank in range(size)
    ]
    found = [
        [(told[rank].reports[i], np.load(folder / f"{rank}-{i}.npy")) for i in range(walks)]
        for rank in range(size)
    ]
    return told[0], found


def check_devices(device: str, ranks: int) -> None:
    """Refuse more ranks than there are GPUs. Raises `ConfigError`."""
    if device == "cpu":
        return
    import torch

    here = torch.cuda.device_count()
    if here < ranks:
        raise ConfigError("not enough GPUs for so many ranks", expected=ranks, got=here)

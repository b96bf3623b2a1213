"""Training as several processes of one thread each that share gradients over gloo.

On a busy machine two such processes are faster than one with two OpenMP threads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn


def start(
    run: Callable[[int, int, argparse.Namespace], None], ranks: int, args: argparse.Namespace
) -> None:
    """Call `run(rank, ranks, args)` in `ranks` processes, or here when one is enough."""
    (args.out / "meet").unlink(missing_ok=True)
    if ranks == 1:
        run(0, 1, args)
    else:
        spawn(_child, (run, ranks, args), nprocs=ranks)


def _child(
    rank: int,
    run: Callable[[int, int, argparse.Namespace], None],
    ranks: int,
    args: argparse.Namespace,
) -> None:
    """One process of a run; it ends with its parent, or two runs would write one checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "started by spawn"
    threading.Thread(target=_end_after, args=(parent.join,), daemon=True).start()
    run(rank, ranks, args)


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(1)


def join(rank: int, ranks: int, folder: Path) -> None:
    """Meet the other processes through a file in `folder`."""
    if ranks > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder.resolve()}/meet", rank=rank, world_size=ranks
        )


def leave() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(model: nn.Module) -> None:
    """Mean over the processes in one flat all-reduce; nothing when there is only one."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))

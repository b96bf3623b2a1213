"""A group of ranks over torch.distributed: NCCL between GPUs, gloo between CPUs.

A `Group` is a value around a process group and counts what leaves this rank. Nothing here knows
what is shared out. Whoever starts the ranks calls `join` once in each; tests make groups of
threads with `over_store`, which sets nothing up in the process.

What ranks decide together (`agree`, `say`) never goes through a GPU: it has a gloo group of its
own where tensors have NCCL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from worldline.core.env import read_env
from worldline.core.errors import WorkerDiedError
from worldline.runtime.device import resolve
from worldline.runtime.parallel.choice import Choice, Clock, Exchange, device_clock
from worldline.runtime.parallel.one_shot import OneShot, SymmetricPeers

Store = dist.Store  # pyright: ignore[reportPrivateImportUsage]
MESSAGE = 7  # gloo's tag of what goes from one rank to one other
PATIENCE_S = 600.0  # what torch waits for the others before it gives up: start and compile included


@dataclass
class Traffic:
    """What left this rank, by name: number of collectives and bytes for other ranks."""

    calls: Counter[str] = field(default_factory=Counter)
    nbytes: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, nbytes: int) -> None:
        """Note one collective."""
        self.calls[name] += 1
        self.nbytes[name] += nbytes

    def clear(self) -> None:
        """Begin anew."""
        self.calls.clear()
        self.nbytes.clear()


class Group:
    """The ranks of one world, as one of them sees them; an `ops.collectives.Collectives`.

    Raises `WorkerDiedError` from every collective that another rank has left.
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup,
        *,
        control: dist.ProcessGroup,
        aside: Group | None = None,
    ) -> None:
        """`control` works on the CPU and may be the same group; `aside` is counted here."""
        self.process_group, self._control = process_group, control
        self._rank, self._size = process_group.rank(), process_group.size()
        self._aside = aside
        self.traffic = Traffic()
        self.choice: Choice | None = None
        if aside is not None:
            aside.traffic = self.traffic

    @property
    def rank(self) -> int:
        """Which one this is; 0 speaks with the outside."""
        return self._rank

    @property
    def size(self) -> int:
        """How many ranks there are; of 1 nothing is ever shared out."""
        return self._size

    @property
    def aside(self) -> Group:
        """See `Collectives`; this group itself where nothing runs beside it."""
        return self._aside or self

    def all_to_all(
        self,
        received: Tensor,
        sent: Tensor,
        *,
        name: str,
        taken: Sequence[int] = (),
        given: Sequence[int] = (),
    ) -> None:
        """See `Collectives`."""
        kept = given[self._rank] if given else sent.shape[0] // self._size
        self.traffic.count(name, sent.nbytes * (sent.shape[0] - kept) // max(1, sent.shape[0]))
        with _Together(name):
            if self.choice is not None and not given and not taken:
                self.choice(received, sent)
            else:
                self._exchange(received, sent, taken=taken, given=given)

    def measure(self, other: Exchange, *, clock: Clock) -> None:
        """From now on exchange equal parts by `other` where that is found to be faster."""
        self.choice = Choice(self._exchange, other, every=self.every, clock=clock)

    def _exchange(
        self,
        received: Tensor,
        sent: Tensor,
        *,
        taken: Sequence[int] = (),
        given: Sequence[int] = (),
    ) -> None:
        options = dist.AllToAllOptions()
        options.asyncOp = False  # on a GPU: in the current stream, where a graph can record it
        process_group = self.process_group
        work = process_group.alltoall_base(received, sent, list(taken), list(given), options)
        if work is not None:
            work.wait()

    def all_gather(self, received: Tensor, part: Tensor, *, name: str) -> None:
        """See `Collectives`."""
        self.traffic.count(name, part.nbytes * (self._size - 1))
        with _Together(name):
            self.process_group._allgather_base(received, part).wait()

    def agree(self, wanted: bool) -> bool:
        """What rank 0 wants, on every rank; the others' `wanted` does not count."""
        flag = torch.tensor([wanted], dtype=torch.uint8)
        self._broadcast(flag)
        return bool(flag.item())

    def every(self, able: bool) -> bool:
        """Whether every rank is able, on every rank."""
        count = torch.tensor([able], dtype=torch.int32)
        with _Together("decision"):
            self._control.allreduce([count], dist.AllreduceOptions()).wait()
        return int(count.item()) == self._size

    def say(self, data: bytes | None) -> bytes:
        """The bytes that rank 0 gives, on every rank; the others give None."""
        size = torch.tensor([0 if data is None else len(data)], dtype=torch.int64)
        self._broadcast(size)
        if data is not None and self._rank == 0:
            body = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
        else:
            body = torch.empty(int(size.item()), dtype=torch.uint8)
        if size.item():
            self._broadcast(body)
        return body.numpy().tobytes()

    def post(self, tensor: Tensor, to: int) -> Sending:
        """Begin to send a CPU tensor to one rank; what is sent so arrives in order.

        The tensor must not change until it is gone.
        """
        with _Together("message"):
            return Sending(self._control.send([tensor], to, MESSAGE), tensor)

    def expect(self, tensor: Tensor, of: int) -> Sending:
        """Begin to receive into a CPU tensor what one rank posts next, of equal size."""
        with _Together("message"):
            return Sending(self._control.recv([tensor], of, MESSAGE), tensor)

    def meet(self) -> None:
        """Go on once every rank is here."""
        with _Together("barrier"):
            self._control.barrier().wait()

    def _broadcast(self, tensor: Tensor) -> None:
        with _Together("broadcast"):
            self._control.broadcast(tensor, 0).wait()


class Sending:
    """A message under way. What it is sent from or comes into lives as long as this does."""

    def __init__(self, work: dist.Work, tensor: Tensor) -> None:
        self._work: dist.Work | None = work  # None once it is over: nobody may wait for it twice
        self._tensor = tensor

    def wait(self) -> Tensor:
        """Wait until it is gone, or here. Raises `WorkerDiedError`."""
        if self._work is not None:
            with _Together("message"):
                self._work.wait()
            self._work = None
        return self._tensor


class _Together:
    """Turns what torch says of a collective that failed into our own error."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):
            said = (str(error).splitlines() or [""])[0]
            raise WorkerDiedError(
                f"another rank is gone during {self._name}", expected="all ranks", got=said
            ) from error


def over_store(store: Store, rank: int, size: int, *, patience_s: float) -> Group:
    """A gloo group of its own over `store`: several may live in one process, a thread each."""
    backend = dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=patience_s))
    gloo = cast(dist.ProcessGroup, backend)  # has the same calls
    return Group(gloo, control=gloo)


def split(whole: Group, count: int, *, device: torch.device) -> Group | None:
    """A group of the first `count` ranks of this process's group; None on the others.

    All ranks of it call this, after `join`.
    """
    timeout, ranks, inside = timedelta(seconds=PATIENCE_S), list(range(count)), whole.rank < count

    def part(backend: str) -> dist.ProcessGroup:
        made = dist.new_group(ranks, timeout=timeout, backend=backend)
        assert not inside or isinstance(made, dist.ProcessGroup), "this rank is in it"
        return made  # pyright: ignore[reportReturnType]  # of others it says so, and is not used

    with _Together("start"):
        control = part("gloo")
        if device.type != "cuda":
            return Group(control, control=control) if inside else None
        passes, beside = part("nccl"), part("nccl")
    aside = Group(beside, control=control) if inside else None
    return Group(passes, control=control, aside=aside) if inside else None


def join(
    address: str,
    *,
    rank: int,
    size: int,
    device: torch.device | str,
    patience_s: float = PATIENCE_S,
) -> Group:
    """Join the group of this process, once: `address` is `tcp://HOST:PORT` or `file:///PATH`.

    `device` may be any name that `runtime.device.resolve` knows. Tensors on a GPU go through NCCL.
    With `WORLDLINE_ALL_TO_ALL=measured` GPUs exchange by symmetric memory where that is found to be
    faster. Returns when all ranks have joined; `dist.destroy_process_group` ends it.
    """
    device = resolve(device) if isinstance(device, str) else device
    timeout = timedelta(seconds=patience_s)
    cuda = device.type == "cuda"
    with _Together("start"):
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=address,
            rank=rank,
            world_size=size,
            timeout=timeout,
            device_id=device if cuda else None,
        )
        whole = dist.group.WORLD
        assert whole is not None, "just made"
        if not cuda:
            return Group(whole, control=whole)
        control = dist.new_group(backend="gloo", timeout=timeout)
        # NCCL keeps the calls of one communicator in order, over streams too: a decoder with a
        # stream of its own needs one of its own, or no pass would run beside it.
        beside = dist.new_group(backend="nccl", timeout=timeout, device_id=device)
    assert isinstance(control, dist.ProcessGroup), "every rank is in it"
    assert isinstance(beside, dist.ProcessGroup), "every rank is in it"
    return _measuring(Group(whole, control=control, aside=Group(beside, control=control)), device)


def _measuring(group: Group, device: torch.device) -> Group:
    """The group, exchanging in the way that was asked for."""
    if read_env().all_to_all == "measured":
        wire = group.process_group
        one_shot = OneShot(
            group.rank, group.size, lambda nbytes: SymmetricPeers(wire, nbytes, device)
        )
        group.measure(one_shot, clock=device_clock)
    return group

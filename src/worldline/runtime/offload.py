"""The transformer's blocks in host memory, each brought to the device just before its turn.

Every block's weights lie in page-locked host memory, one piece per block and part. On the device
there are a few slots per part; a block's parameters are views of its slot for ever, only the bytes
behind them change. While a block computes, the one that will use the freed slot next is copied on a
side stream, over the end of a pass into the next one. The order is kept by two events per slot:
nobody computes before the copy is there, nobody copies before the last computation has ended.

Bytes are moved and never changed: results are bit-identical to those of a resident model. On the
CPU the same code runs with copies that are done at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from worldline.core.errors import ConfigError
from worldline.models.lingbot.blocks import Block, Part
from worldline.models.lingbot.dit import LingBotDiT
from worldline.quant.linear import Fp8Linear
from worldline.runtime.fill import DtypeOf, attach

ALIGNMENT = 256  # bytes; what kernels may expect of the start of a tensor
ROTATING = 2  # slots that take turns: one computes, one is filled
PARTS: tuple[Part, ...] = ("body", "camera", "text")


class Lane(Protocol):
    """How bytes get into slots, and who waits for whom."""

    def fetch(self, slot: int, to: Tensor, source: Tensor) -> None:
        """Copy `source` into slot `slot`, whose memory is `to`, once the slot is released."""
        ...

    def wait(self, slot: int) -> None:
        """Whatever computes from now on sees what was last fetched into `slot`."""
        ...

    def release(self, slot: int) -> None:
        """Whatever was asked to compute until now is the last that reads `slot` as it is."""
        ...


class DirectLane:
    """Copies at once: for the CPU."""

    def fetch(self, slot: int, to: Tensor, source: Tensor) -> None:
        """See `Lane`."""
        del slot
        to.copy_(source)

    def wait(self, slot: int) -> None:
        """See `Lane`."""

    def release(self, slot: int) -> None:
        """See `Lane`."""


class StreamLane:
    """Copies on a stream of its own, beside the computation: for CUDA devices."""

    def __init__(self, device: torch.device, slots: int) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._filled = [torch.cuda.Event() for _ in range(slots)]
        self._free = [torch.cuda.Event() for _ in range(slots)]

    def fetch(self, slot: int, to: Tensor, source: Tensor) -> None:
        """See `Lane`."""
        self._stream.wait_event(self._free[slot])
        with torch.cuda.stream(self._stream):
            to.copy_(source, non_blocking=True)
            self._filled[slot].record(self._stream)

    def wait(self, slot: int) -> None:
        """See `Lane`."""
        torch.cuda.current_stream(self._device).wait_event(self._filled[slot])

    def release(self, slot: int) -> None:
        """See `Lane`."""
        self._free[slot].record(torch.cuda.current_stream(self._device))


def assign_slots(blocks: int, resident: int) -> list[int]:
    """The slot of every block: `resident` slots, all but two of which belong to one block each.

    The blocks that stay are spread evenly, so that each gives the copies beside it time.
    """
    if resident >= blocks:
        return list(range(blocks))
    rotating = min(ROTATING, resident)
    fixed = resident - rotating
    slots: list[int] = []
    stays = moves = 0
    for i in range(blocks):
        if (i + 1) * fixed // blocks > i * fixed // blocks:
            slots.append(stays)
            stays += 1
        else:
            slots.append(fixed + moves % rotating)
            moves += 1
    return slots


class Shelf:
    """One part of all blocks: `hosts` holds each block's bytes, `slots` those on the device."""

    def __init__(self, hosts: list[Tensor], slots: list[Tensor], slot_of: list[int], lane: Lane):
        self.hosts = hosts
        self.slots = slots
        self.slot_of = slot_of
        self._lane = lane
        self._held: list[int | None] = [None] * len(slots)

    def take(self, block: int) -> None:
        """Have the weights of `block` in its slot for what is computed next."""
        self._fetch(block)
        self._lane.wait(self.slot_of[block])

    def forget(self) -> None:
        """The hosts have changed: what is in the slots is fetched again."""
        self._held = [None] * len(self.slots)

    def leave(self, block: int) -> None:
        """`block` has computed: its slot may take the next block, after the last the first."""
        self._lane.release(self.slot_of[block])
        self._fetch(self._following(block))

    def _following(self, block: int) -> int:
        """The next block in the order of the passes that shares the slot of `block`."""
        count = len(self.slot_of)
        others = ((block + step) % count for step in range(1, count + 1))
        return next(i for i in others if self.slot_of[i] == self.slot_of[block])

    def _fetch(self, block: int) -> None:
        slot = self.slot_of[block]
        if self._held[slot] != block:
            self._lane.fetch(slot, self.slots[slot], self.hosts[block])
            self._held[slot] = block


class _Place(NamedTuple):
    """Where one tensor of one block lies: module, attribute, dtype, shape, first byte."""

    owner: nn.Module
    leaf: str
    dtype: torch.dtype
    shape: torch.Size
    offset: int

    def view(self, memory: Tensor) -> Tensor:
        """The tensor inside `memory [bytes]`."""
        size = self.shape.numel() * self.dtype.itemsize
        return memory[self.offset : self.offset + size].view(self.dtype).view(self.shape)


class BlockOffload:
    """The blocks of one transformer on their shelves; a `Residency` of `LingBotDiT`.

    Made from a network on the meta device, whose weights are then given to `store`. `resident` is
    the number of slots for the blocks' bodies.
    """

    def __init__(
        self,
        dit: LingBotDiT,
        *,
        device: torch.device,
        dtype_of: DtypeOf,
        resident: int,
        lane: Lane | None = None,
    ) -> None:
        if resident < 1:
            raise ConfigError("no block would fit", expected="1 or more resident", got=resident)
        self._index = {block: i for i, block in enumerate(dit.iter_blocks())}
        self._homes: dict[tuple[nn.Module, str], Tensor] = {}
        self._locked: list[int] = []
        weakref.finalize(self, _unlock, self._locked).atexit = False
        self.shelves = {
            part: self._shelf(part, device, dtype_of, resident=resident, lane=lane)
            for part in PARTS
        }
        dit.residency = self

    def __call__(self, part: Part, blocks: Sequence[Block]) -> Iterator[Block]:
        """Each of `blocks` with the weights of `part` in place while it is looked at."""
        shelf = self.shelves[part]
        for block in blocks:
            index = self._index[block]
            shelf.take(index)
            yield block
            # Not in a finally: after an error this would run late, into somebody else's pass.
            shelf.leave(index)

    @property
    def host_bytes(self) -> int:
        """Bytes of weights in host memory."""
        return sum(t.nbytes for shelf in self.shelves.values() for t in shelf.hosts)

    @property
    def device_bytes(self) -> int:
        """Bytes of all slots."""
        return sum(t.nbytes for shelf in self.shelves.values() for t in shelf.slots)

    def store(self, owner: nn.Module, leaf: str, tensor: Tensor) -> None:
        """Put a loaded tensor where it belongs: to its block in host memory, or onto `owner`."""
        home = self._homes.get((owner, leaf))
        if home is None:
            attach(owner, leaf, tensor)
        else:
            home.copy_(tensor)

    def home(self, owner: nn.Module, leaf: str) -> Tensor | None:
        """Where a block's tensor lies in host memory; None for one that is not of a block."""
        return self._homes.get((owner, leaf))

    def fetch_again(self) -> None:
        """Host memory was written to: nothing on the device is taken for it any more."""
        for shelf in self.shelves.values():
            shelf.forget()

    def _shelf(
        self,
        part: Part,
        device: torch.device,
        dtype_of: DtypeOf,
        *,
        resident: int,
        lane: Lane | None,
    ) -> Shelf:
        slot_of = assign_slots(len(self._index), resident if part == "body" else ROTATING)
        layouts = [_layout(block, i, part, dtype_of) for block, i in self._index.items()]
        size = max(nbytes for _, nbytes in layouts)
        slots = [
            torch.empty(size, dtype=torch.uint8, device=device) for _ in range(max(slot_of) + 1)
        ]
        hosts: list[Tensor] = []
        for (places, nbytes), slot in zip(layouts, slot_of, strict=True):
            host = self._host_memory(nbytes, device)
            hosts.append(host)
            for place in places:
                self._homes[place.owner, place.leaf] = place.view(host)
                attach(place.owner, place.leaf, place.view(slots[slot][:nbytes]))
        if lane is None:
            lane = StreamLane(device, len(slots)) if device.type == "cuda" else DirectLane()
        return Shelf(hosts, [slot[:size] for slot in slots], slot_of, lane)

    def _host_memory(self, nbytes: int, device: torch.device) -> Tensor:
        """`[nbytes]` on the host, page-locked where a CUDA device will copy from it."""
        memory = torch.empty(nbytes, dtype=torch.uint8)
        if device.type == "cuda":
            # Not `pin_memory`: torch's allocator rounds up to a power of two, here by a half.
            torch.cuda.check_error(_cuda().cudaHostRegister(memory.data_ptr(), nbytes, 0))
            self._locked.append(memory.data_ptr())
        return memory


def _unlock(addresses: list[int]) -> None:
    for address in addresses:
        _cuda().cudaHostUnregister(address)


def _cuda() -> Any:
    runtime = torch.cuda.cudart()
    assert runtime is not None, "only called where there is a CUDA device"
    return runtime


def _layout(block: Block, index: int, part: Part, dtype_of: DtypeOf) -> tuple[list[_Place], int]:
    """Places of the tensors of one part of a block, one after the other, and their bytes."""
    places: list[_Place] = []
    offset = 0
    for name, tensor in (*block.named_parameters(), *block.named_buffers()):
        if Block.part_of(name) != part:
            continue
        path, _, leaf = name.rpartition(".")
        owner = block.get_submodule(path)
        assert tensor.is_meta, "offload is arranged before loading"
        own = isinstance(owner, Fp8Linear)  # knows its dtypes; others are float32 until filled
        dtype = tensor.dtype if own else dtype_of(f"blocks.{index}.{name}") or tensor.dtype
        places.append(_Place(owner, leaf, dtype, tensor.shape, offset))
        nbytes = tensor.shape.numel() * dtype.itemsize
        offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return places, offset

"""Blocks in host memory: the same bits, the right order of copies, and little on the device."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import pytest
import torch

from tests import tiny
from worldline.core.errors import ConfigError
from worldline.models.lingbot.blocks import Block
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.quant.linear import quantise_linears
from worldline.runtime.fill import attach, fill_random
from worldline.runtime.offload import BlockOffload, Lane, Shelf, assign_slots

CPU = torch.device("cpu")
LAYERS = 5
FLOAT32 = torch.float32


def five_blocks() -> DiTParams:
    """The small numbers with five blocks."""
    return msgspec.structs.replace(tiny.dit_params(), num_layers=LAYERS)


def build(
    *, resident: int | None, lane: Lane | None = None, eight_bit: bool = False
) -> tuple[LingBotDiT, BlockOffload | None]:
    """A transformer of five blocks with the same random weights, resident or not."""
    with torch.device("meta"):
        dit = LingBotDiT(five_blocks())
    if eight_bit:
        quantise_linears(dit, dit.takes_eight_bits, dtype=FLOAT32, native=False)
    rule = lambda name: dit.storage_dtype(name, FLOAT32)  # noqa: E731
    if resident is None:
        fill_random(dit, device=CPU, dtype_of=rule, seed=3, label="dit")
        return dit, None
    offload = BlockOffload(dit, device=CPU, dtype_of=rule, resident=resident, lane=lane)
    fill_random(dit, device=CPU, dtype_of=rule, seed=3, label="dit", store=offload.store)
    return dit, offload


def forward(dit: LingBotDiT, seed: int = 0, device: torch.device = CPU) -> torch.Tensor:
    """Everything a block's weights are used for, once."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 36, 2, 4, 6, generator=generator)
    control = torch.randn(1, 384, 2, 4, 6, generator=generator)
    text = torch.randn(1, 10, 24, generator=generator)
    with torch.no_grad():
        return dit(
            x.to(device),
            torch.tensor([500.0], device=device),
            text=text.to(device),
            control=control.to(device),
        )


class LateLane:
    """A side stream at its slowest: copies come when waited for, freed slots are scribbled over."""

    def __init__(self) -> None:
        self.pending: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.slots: dict[int, torch.Tensor] = {}
        self.in_use: set[int] = set()
        self.log: list[tuple[str, int]] = []

    def fetch(self, slot: int, to: torch.Tensor, source: torch.Tensor) -> None:
        assert slot not in self.in_use, "copied over weights that are still computed with"
        self.log.append(("fetch", slot))
        self.slots[slot] = to
        to.fill_(255)  # not a number in every dtype
        self.pending[slot] = (to, source)

    def wait(self, slot: int) -> None:
        self.log.append(("wait", slot))
        if slot in self.pending:
            to, source = self.pending.pop(slot)
            to.copy_(source)
        self.in_use.add(slot)

    def release(self, slot: int) -> None:
        self.log.append(("release", slot))
        self.in_use.discard(slot)


@pytest.mark.parametrize("resident", [1, 2, 3, 4, LAYERS, 9])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_results_are_those_of_a_resident_model(resident: int, eight_bit: bool) -> None:
    whole, _ = build(resident=None, eight_bit=eight_bit)
    parted, offload = build(resident=resident, eight_bit=eight_bit)
    assert offload is not None
    for seed in range(3):
        assert torch.equal(forward(whole, seed), forward(parted, seed))


@pytest.mark.parametrize("resident", [1, 2, 3, 4])
def test_the_slowest_copies_change_nothing(resident: int) -> None:
    """Part by part, because slots are numbered per part and this lane knows one numbering only."""
    whole, _ = build(resident=None)
    expected = [forward(whole, seed) for seed in range(3)]
    parted, offload = build(resident=resident)
    assert offload is not None
    lanes = {part: LateLane() for part in offload.shelves}
    for part, shelf in offload.shelves.items():
        offload.shelves[part] = Shelf(shelf.hosts, shelf.slots, shelf.slot_of, lanes[part])
    for seed in range(3):
        assert torch.equal(forward(parted, seed), expected[seed])
    assert any(kind == "fetch" for kind, _ in lanes["body"].log)


def test_the_next_block_is_asked_for_before_it_is_needed() -> None:
    parted, offload = build(resident=2)
    assert offload is not None
    shelf = offload.shelves["body"]
    lane = LateLane()
    offload.shelves["body"] = Shelf(shelf.hosts, shelf.slots, shelf.slot_of, lane)
    forward(parted)
    lane.log.clear()
    forward(parted, 1)
    # In a later pass every block was fetched earlier than the wait for it: no fetch is followed at
    # once by its own wait.
    pairs = list(zip(lane.log, lane.log[1:], strict=False))
    assert not [a for a, b in pairs if a[0] == "fetch" and b == ("wait", a[1])]
    assert Counter(kind for kind, _ in lane.log)["fetch"] == LAYERS


def test_a_pass_that_failed_leaves_the_shelves_usable() -> None:
    whole, _ = build(resident=None)
    parted, offload = build(resident=2)
    assert offload is not None
    walk = iter(offload("body", parted.iter_blocks()))
    next(walk)
    next(walk)
    del walk
    assert torch.equal(forward(whole), forward(parted))


@pytest.mark.parametrize(
    ("blocks", "resident"), [(40, 2), (40, 1), (40, 12), (5, 3), (5, 5), (3, 9)]
)
def test_slots_are_as_many_as_asked_and_the_stayers_spread(blocks: int, resident: int) -> None:
    slots = assign_slots(blocks, resident)
    shared = Counter(slots)
    assert len(slots) == blocks and set(slots) == set(range(min(blocks, resident)))
    alone = [i for i, slot in enumerate(slots) if shared[slot] == 1]
    if resident >= blocks:
        assert len(alone) == blocks
    elif resident > 2:
        assert len(alone) >= resident - 2
        gaps = [b - a for a, b in itertools.pairwise(alone)]
        assert max(gaps, default=1) - min(gaps, default=1) <= 1
    moving = [slot for slot in slots if shared[slot] > 1]
    assert all(a != b for a, b in itertools.pairwise(moving)) or resident == 1


def test_the_device_holds_slots_only_and_the_host_everything() -> None:
    whole, _ = build(resident=None)
    parted, offload = build(resident=2)
    assert offload is not None
    blocks = list(whole.iter_blocks())
    streamed = sum(
        t.nbytes for b in blocks for n, t in b.named_parameters() if Block.part_of(n) is not None
    )
    padding = LAYERS * 64 * 256  # every tensor starts at a multiple of 256 bytes
    assert streamed <= offload.host_bytes <= streamed + padding
    assert offload.device_bytes < 0.5 * offload.host_bytes
    assert all(not t.is_meta for t in parted.state_dict().values())


def test_every_tensor_of_a_block_has_its_time() -> None:
    with torch.device("meta"):
        block = Block(tiny.dit_params())
    parts = {name: Block.part_of(name) for name, _ in block.named_parameters()}
    assert [n for n, part in parts.items() if part is None] == ["modulation"]
    assert {n.split(".")[0] for n, part in parts.items() if part == "camera"} == {
        "cam_injector_layer1",
        "cam_injector_layer2",
        "cam_scale_layer",
        "cam_shift_layer",
    }
    assert sorted(n for n, part in parts.items() if part == "text") == [
        "cross_attn.k.bias",
        "cross_attn.k.weight",
        "cross_attn.norm_k.weight",
        "cross_attn.v.bias",
        "cross_attn.v.weight",
    ]


def test_no_slot_is_refused() -> None:
    with pytest.raises(ConfigError, match="no block would fit"):
        build(resident=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [1, 2, 4])
def test_a_side_stream_changes_no_bit(resident: int) -> None:
    """The real lane: page-locked memory, events, several passes without a sync between them."""
    cuda = torch.device("cuda")
    found: list[list[torch.Tensor]] = []
    for kept in (None, resident):
        with torch.device("meta"):
            dit = LingBotDiT(five_blocks())
        rule = lambda name, dit=dit: dit.storage_dtype(name, torch.bfloat16)  # noqa: E731
        store = attach
        if kept is not None:
            offload = BlockOffload(dit, device=cuda, dtype_of=rule, resident=kept)
            store = offload.store
            assert all(t.is_pinned() for s in offload.shelves.values() for t in s.hosts)
        fill_random(dit, device=cuda, dtype_of=rule, seed=3, label="dit", store=store)
        found.append([forward(dit, seed, cuda).cpu() for seed in range(4)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

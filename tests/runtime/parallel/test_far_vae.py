"""An autoencoder on a rank of its own: the pictures it would give here, made beside the passes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from tests import tiny
from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from tests.runtime.parallel.cases import Size
from worldline.core.errors import SessionError, ShapeError
from worldline.runtime.engine import World
from worldline.runtime.lane import InTurn
from worldline.runtime.parallel.far_vae import UNDER_WAY, FarLane, FarVae, far
from worldline.runtime.parallel.group import Group, over_store
from worldline.runtime.parallel.vae_rank import VaeRank

T = TypeVar("T")
SIZE = Size(80, 48, 2)
CPU = torch.device("cpu")
PATIENCE = 20.0


def beside(
    run: Callable[[Group], T], vae: Any = None, *, ranks: int = 1
) -> tuple[list[T | None], VaeRank]:
    """`run` on so many ranks and an autoencoder's rank beside them, until they are done."""
    vae = vae or tiny.world().components.vae
    served: list[VaeRank] = []

    def work(group: Group) -> T | None:
        if group.rank < ranks:
            try:
                return run(group)
            finally:
                FarVae(vae, group).stop()
        served.append(VaeRank(vae, group, device=CPU))
        return served[0].serve()

    return on_ranks(ranks + 1, work), served[0]


def latents(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


class Slow:
    """An autoencoder that gives no picture before it is let."""

    stationary_latent, frame_by_frame = 1, True

    def __init__(self) -> None:
        self.let = threading.Event()
        self.begun = 0

    def encode_stream(self, video: Tensor, state: Any) -> tuple[Tensor, Any]:
        raise AssertionError("only decodes")

    def decode_stream(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        self.begun += 1
        assert self.let.wait(PATIENCE), "whoever asked waits for the pictures"
        frames = 4 * latents.shape[2] - (0 if state else 3)
        return torch.ones(1, 3, frames, 8 * latents.shape[3], 8 * latents.shape[4]), self


def test_nobody_waits_for_what_is_decoded() -> None:
    """Two chunks are asked for, and their pictures fetched only when the asker has gone on."""
    slow = Slow()

    def run(group: Group) -> list[tuple[int, ...]]:
        vae = FarVae(slow, group)
        lane = FarLane(InTurn(), vae)
        first, state = vae.decode_stream(latents(1, 16, 2, 3, 5), None)
        then, _ = vae.decode_stream(latents(1, 16, 2, 3, 5), state)
        waits = [lane.fetching(video) for video in (first, then)]
        assert not slow.let.is_set()
        slow.let.set()  # here the passes of the next chunk have run
        return [wait().shape for wait in waits]

    assert beside(run, slow)[0][0] == [(5, 24, 40, 3), (8, 24, 40, 3)]
    assert slow.begun == 2


@pytest.mark.parametrize(
    ("streams", "published"), [(False, True), (True, False)], ids=["published", "streams"]
)
def test_a_world_shows_the_same_pictures(streams: bool, published: bool) -> None:
    def walk(world: World) -> list[NDArray[np.uint8]]:
        seen: list[NDArray[np.uint8]] = []
        with cases.begin(world, SIZE) as session:
            for i in range(4):
                parts: list[NDArray[np.uint8]] = []
                chunk = session.step(
                    [cases.WALK[i % 3]] * session.chunk,
                    on_frames=(lambda d, to=parts: to.append(d.frames)) if streams else None,
                )
                assert not streams or np.array_equal(np.concatenate(parts), chunk.frames)
                seen.append(chunk.frames)
                session.prepare()
            for shown, recorded in zip(seen, session.recording(), strict=True):
                assert np.array_equal(shown, recorded)
        with cases.begin(world, SIZE) as again:  # an equal start
            assert np.array_equal(again.step([cases.WALK[0]] * again.chunk).frames, seen[0])
        return seen

    def run(group: Group) -> list[NDArray[np.uint8]]:
        world = cases.world(published=published)
        world.shared = far(world.shared, group)
        return walk(world)

    alone = walk(cases.world(published=published))
    (found, _), served = beside(run, cases.components(published=published).vae)
    assert found is not None
    assert [f.shape[0] for f in found] == [5, 8, 8, 8]
    assert all(np.array_equal(a, b) for a, b in zip(found, alone, strict=True))
    assert len(served) == 0, "histories end with it"


def test_messages_do_not_pile_up() -> None:
    z = latents(1, 16, 1, 3, 5)

    kept: list[FarVae] = []  # as long as its group: what it expects may still come
    quick = Slow()
    quick.let.set()

    def run(group: Group) -> int:
        vae = FarVae(quick, group)
        kept.append(vae)
        for _ in range(3 * UNDER_WAY):  # given up: nobody fetches them
            vae.decode_stream(z, None)
        return len(vae._under_way)

    found, served = beside(run, quick)
    assert found[0] is not None and found[0] <= UNDER_WAY + 8
    assert len(served._under_way) <= UNDER_WAY + 2


def test_what_only_rank_0_says_piles_up_on_no_other_rank() -> None:
    video = latents(1, 3, 1, 16, 16)

    def run(group: Group) -> tuple[int, int]:
        vae = FarVae(cases.components().vae, group)
        for _ in range(UNDER_WAY):
            vae.encode_stream(video, None)
        return len(vae._under_way), len(vae._dropped)

    for found in beside(run, cases.components().vae, ranks=2)[0][:2]:
        assert found is not None
        waiting, dropped = found
        assert waiting <= UNDER_WAY + 8 and dropped <= 2


def test_two_ranks_of_the_transformer_and_one_of_the_autoencoder() -> None:
    alone = cases.walk(cases.begin(cases.world(), SIZE), 3)
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]

    def run(group: Group) -> cases.Walked:
        passes = over_store(store, group.rank, 2, patience_s=PATIENCE)
        world = cases.world(passes)
        world.shared = far(world.shared, group)
        with cases.begin(world, SIZE) as session:
            found = cases.walk(session, 3)
        assert not any(name.startswith("vae") for name in passes.traffic.calls)
        return found

    (first, other, _), _ = beside(run, cases.components().vae, ranks=2)
    assert first is not None and other is not None
    assert cases.farthest(first, alone) <= 1e-5 and cases.farthest(first, other) == 0
    assert np.abs(first.frames.astype(int) - alone.frames).max() <= 1
    assert not (other.frames - 128).any(), "pictures are where they are encoded"


def test_histories_that_nobody_holds_are_dropped() -> None:
    z, there = latents(1, 16, 1, 3, 5), tiny.world().components.vae
    served: list[VaeRank] = []

    def run(group: Group) -> list[int]:
        vae = FarVae(there, group)
        lane, held = FarLane(InTurn(), vae), list[int]()
        video, state = vae.decode_stream(z, None)
        branch = state.clone()
        lane.fetch(video)
        second: NDArray[np.uint8] | None = None
        pictures = np.zeros(0, np.uint8)
        for _ in range(6):
            video, state = vae.decode_stream(z, state)
            pictures = lane.fetch(video)
            second = pictures if second is None else second
            gc.collect()
            held.append(len(served[0]))
        # What is still held is still there, as it was.
        assert second is not None
        assert np.array_equal(lane.fetch(vae.decode_stream(z, branch)[0]), second)
        assert not np.array_equal(pictures, second)
        return held

    def work(group: Group) -> list[int] | None:
        if group.rank == 0:
            try:
                return run(group)
            finally:
                FarVae(there, group).stop()
        served.append(VaeRank(there, group, device=CPU))
        return served[0].serve()

    # The branch's, the newest, and the one before, which is told of with the next call.
    assert on_ranks(2, work)[0] == [2, 3, 3, 3, 3, 3]


def test_what_fails_there_is_an_error_here_and_the_next_call_works() -> None:
    z = latents(1, 16, 1, 3, 5)

    def run(group: Group) -> bool:
        vae = FarVae(tiny.world().components.vae, group)
        lane = FarLane(InTurn(), vae)
        video, state = vae.decode_stream(z, None)
        lane.fetch(video)
        other, broken = vae.decode_stream(latents(1, 16, 1, 3, 7), state)  # of another size
        with pytest.raises(ShapeError, match="changed its size"):
            lane.fetch(other)
        later, _ = vae.decode_stream(z, broken)
        with pytest.raises(SessionError, match="lost this stream"):
            lane.fetch(later)
        for bad in (latents(1, 15, 1, 3, 5), latents(16, 1, 3, 5), latents(2, 16, 1, 3, 5)):
            with pytest.raises(ShapeError):  # refused here, before anything is sent
                vae.decode_stream(bad, None)
        with pytest.raises(ShapeError):
            vae.encode_stream(latents(1, 3, 2, 24, 40), None)
        with pytest.raises(ShapeError):
            vae.encode_stream(latents(1, 4, 1, 24, 40), None)  # refused there
        again, _ = vae.decode_stream(z, state)
        return lane.fetch(again).any().item()

    assert beside(run)[0][0] is True

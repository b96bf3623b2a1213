"""Guided films of the bidirectional base models, and of causal ones, on several ranks."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import film_worlds
from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from worldline.core.errors import CapacityError
from worldline.core.film import BranchesName
from worldline.ops.collectives import ALONE, Collectives
from worldline.runtime import films_sides
from worldline.runtime.engine import World
from worldline.runtime.films_sides import choose_way, pass_bytes


@pytest.mark.parametrize(
    ("kind", "branches"),
    list(itertools.product(["base", "pretrain"], ["sequence", "batched"]))
    if "WORLDLINE_ALL_RANKS" in os.environ
    else [("base", "batched"), ("pretrain", "sequence")],
)
def test_a_guided_film_is_shared_out(kind: str, branches: BranchesName) -> None:
    """Two heads on two ranks; 54 tokens of both experts, or chunks of 12 tokens."""
    request = film_worlds.request(
        3 if kind == "base" else 6, branches=branches, **({"chunks": 3} if kind != "base" else {})
    )

    def film(group: Collectives = ALONE) -> NDArray[np.uint8]:
        made = film_worlds.base() if kind == "base" else film_worlds.pretrain()
        parts = dataclasses.replace(made.components, vae=cases.components().vae)
        return film_worlds.made(World(parts, group=group), request)

    alone = film()
    shared, other = on_ranks(2, film)
    assert shared.shape == alone.shape == other.shape and alone.std() > 10
    assert np.abs(alone.astype(int) - shared).max() <= 1


def test_ranks_go_the_same_way_whatever_memory_each_has(monkeypatch: pytest.MonkeyPatch) -> None:
    request, rooms = film_worlds.request(3), itertools.cycle([1 << 40, 1 << 20])

    def room(*_: object) -> int:
        with lock:
            return next(rooms)

    def choose(group: Collectives) -> str:
        engine = World(film_worlds.base().components, group=group).shared
        return choose_way(engine, request, tokens=54, partner=False)

    lock = threading.Lock()
    once = pass_bytes(film_worlds.base().components.dit, 54)
    assert once <= 1 << 20 < 2 * once
    monkeypatch.setattr(films_sides, "budget_bytes", room)
    ways = {choose_way(film_worlds.base().shared, request, tokens=54, partner=False) for _ in "ab"}
    assert ways == {"batched", "sequence"}  # one alone goes by its own memory
    for _ in range(3):
        assert len(set(on_ranks(2, choose))) == 1


def test_a_pass_that_one_rank_has_no_room_for_is_refused_by_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request, rooms = film_worlds.request(3), itertools.cycle([1 << 40, 1 << 10])
    lock = threading.Lock()

    def room(*_: object) -> int:
        with lock:
            return next(rooms)

    def choose(group: Collectives) -> str:
        engine = World(film_worlds.base().components, group=group).shared
        with pytest.raises(CapacityError, match="do not fit"):
            choose_way(engine, request, tokens=54, partner=False)
        return "refused"

    monkeypatch.setattr(films_sides, "budget_bytes", room)
    assert on_ranks(2, choose, patience_s=5.0) == ["refused"] * 2

"""What goes where on several devices: all of a chunk on somebody, bytes by their share."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

import pytest
import torch

from worldline.bench.fleet_plan import FleetPlan, as_text, plan_fleet
from worldline.bench.plan import plan_memory, wanted
from worldline.cli.main import main
from worldline.core.errors import ConfigError
from worldline.models.registry import get_preset
from worldline.runtime.parallel.expected import Sharing, formula

POCKET, FAST = get_preset("pocket"), get_preset("lingbot-world-fast")


@functools.cache
def shared(ranks: int) -> FleetPlan:
    return plan_fleet(FAST, [[f"cuda:{i}" for i in range(ranks)]], mode="fast")


@pytest.mark.parametrize("what", ["tokens", "heads", "columns"])
def test_every_part_of_a_chunk_is_on_one_rank(what: str) -> None:
    plan = plan_fleet(POCKET, [["cpu", "cpu"]])
    spans = [getattr(rank, what) for rank in plan.replicas[0]]
    assert spans[0][0] == 0 and spans[-1][1] == getattr(plan, what)
    assert spans[0][1] == spans[1][0]


def test_weights_are_on_every_rank_and_the_rest_is_shared_out() -> None:
    memory = plan_memory(wanted(FAST, mode="fast"))
    (alone,), (first, *_) = shared(1).replicas[0], shared(4).replicas[0]
    assert alone.weights == first.weights == sum(memory.weights.values())
    assert alone.session == sum(memory.session.values())
    assert alone.workspace == memory.workspace()
    ring = memory.session["keys and values"]
    assert first.session <= alone.session - ring * 3 // 4
    assert alone.workspace / 5 < first.workspace < alone.workspace


def test_exchanges_are_those_of_the_formula() -> None:
    assert shared(1).exchanges == []
    plan = shared(4)
    dit = FAST.dit
    whole = formula(
        Sharing(
            ranks=4,
            tokens=plan.tokens,
            width=dit.dim,
            heads=dit.num_heads,
            layers=dit.num_layers,
            steps=4,
            itemsize=2,
            values=64,
        )
    )
    there, back = plan.exchanges[:2]
    assert there.nbytes == 3 * back.nbytes
    # The formula has the last block of the context pass whole; it stops after its cache write.
    assert whole.nbytes * 0.99 < there.nbytes + back.nbytes < whole.nbytes
    assert whole.calls - (there.calls + back.calls) == 2


def test_ranks_that_do_not_divide_the_heads_are_refused_and_the_others_listed() -> None:
    with pytest.raises(ConfigError, match="expected one of 1, 2, 4, 5, 8, 10, 20, 40; got 3"):
        shared(3)


def test_replicas_exchange_nothing() -> None:
    plan = plan_fleet(POCKET, [["cpu"], ["cpu"]])
    assert plan.exchanges == [] and len(plan.replicas) == 2
    assert "2 replicas of 1 rank" in as_text(plan) and "tokens" not in as_text(plan)


def test_an_autoencoder_of_its_own_takes_its_bytes_along() -> None:
    both = plan_fleet(FAST, [["cuda:0", "cuda:1", "cuda:2"]], mode="fast", own_vae=True)
    *passes, vae = both.replicas[0]
    (alone,) = shared(1).replicas[0]
    assert [rank.tokens for rank in passes] == [(0, 2340), (2340, 4680)]
    assert (vae.tokens, vae.columns) == ((0, 0), (0, both.columns))
    assert passes[0].weights + vae.weights == alone.weights
    assert passes[0].columns == (0, 0) and vae.session > 0
    assert "the autoencoder" in as_text(both) and "messages" in as_text(both)


def test_doctor_says_which_devices_are_too_small(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Card(NamedTuple):
        total_memory: int

    need = sum((one.weights + one.session + one.workspace) for one in shared(2).replicas[0][:1])
    cards = [Card(2 * need), Card(need // 2)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: cards[i])
    words = ["doctor", "--devices", "0,1", "--sp", "2", "--model", FAST.name, "--mode", "fast"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "cuda:0 is too small" not in out and "cuda:1 is too small" in out
    assert "not on this machine" not in out


def test_doctor_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--devices", "cpu,cpu,cpu,cpu", "--sp", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 replicas of 2 ranks" in said and "rank 1  cpu" in said
    assert "collectives" in said
    assert main(["doctor", "--vae", "own"]) == 0
    assert "the autoencoder" in capsys.readouterr().out
    assert main(["doctor", "--devices", "0,900", "--json"]) == 0
    ranks = json.loads(capsys.readouterr().out)["replicas"]
    assert [[rank["device"] for rank in replica] for replica in ranks] == [["cuda:0"], ["cuda:900"]]
    assert main(["doctor", "--devices", "0,900"]) == 0
    assert "not on this machine" in capsys.readouterr().out

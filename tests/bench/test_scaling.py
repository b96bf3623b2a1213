"""The model of chunk time on several devices, and the exchanges it counts."""

from __future__ import annotations

import copy

import msgspec
import pytest
import torch

from tests import tiny
from tests.ranks import on_ranks
from worldline.bench.arithmetic import ChunkFlops
from worldline.bench.column_work import Exchanged, decode_exchanges
from worldline.bench.scaling import (
    Assumptions,
    Shape,
    Stages,
    Sustained,
    computed_stages,
    estimate,
    measured_stages,
    scale,
    verdict,
)
from worldline.bench.scaling_cases import TINY_RATE, WAYS, Subject, estimates, subject_of
from worldline.bench.scaling_report import as_panels, as_table, assumption_lines
from worldline.runtime.parallel.expected import Sharing
from worldline.runtime.parallel.group import Group
from worldline.runtime.parallel.vae import SharedVae

DIGITS = "0123456789"
FREE = Assumptions(link_gb_per_s=1e12, call_us=0, lost=0, source="nothing costs anything")
STAGES = Stages(passes=800, decode=160, fixed=40, source="made up")
SHARING = Sharing(
    ranks=1, tokens=4680, width=5120, heads=40, layers=40, steps=4, itemsize=2, values=64
)
EXCHANGES = {ranks: Exchanged(100, 10**8) for ranks in (2, 4, 8)}
SHAPE = Shape(SHARING, 12, 104, EXCHANGES)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return subject_of(tiny.preset(), tiny.WIDTH, tiny.HEIGHT)


def test_one_device_takes_what_its_stages_take() -> None:
    alone = estimate(STAGES, SHAPE, FREE, ranks=1)
    assert alone.chunk_ms == 1000 and alone.fps == 12
    assert alone.parts["all-to-all"] == alone.parts["halo"] == 0


def test_shares_of_what_can_be_cut() -> None:
    four = estimate(STAGES, SHAPE, FREE, ranks=4)
    assert four.parts["passes"] == 200 and four.parts["decode"] == 40 and four.parts["fixed"] == 40
    # 104 columns do not go into 5, nor 4680 tokens into 7: the slowest rank counts.
    five = estimate(STAGES, SHAPE._replace(decoding={5: Exchanged(0, 0)}), FREE, ranks=5)
    assert five.parts["decode"] == pytest.approx(160 * 21 / 104, abs=1e-3)
    seven = estimate(STAGES, SHAPE._replace(decoding={7: Exchanged(0, 0)}), FREE, ranks=7)
    assert seven.parts["passes"] == pytest.approx(800 * 669 / 4680, abs=1e-3)


def test_a_decoder_that_is_not_cut_costs_every_rank_all_of_it() -> None:
    four = estimate(STAGES, SHAPE._replace(columns=None), FREE, ranks=4)
    assert four.parts["decode"] == 160 and four.parts["halo"] == 0


def test_exchanges_cost_calls_and_bytes() -> None:
    slow = msgspec.structs.replace(FREE, call_us=25, link_gb_per_s=350)
    four = estimate(STAGES, SHAPE, slow, ranks=4)
    # 400 collectives of 25 us, and 4 (N/P) d 2 B (P-1)/P x 40 x 5 bytes at 350 GB/s.
    sent = 4 * 1170 * 5120 * 2 * 3 / 4 * 40 * 5
    assert four.parts["all-to-all"] == pytest.approx(10 + 1000 * sent / 350e9, abs=1e-3)
    assert four.parts["halo"] == pytest.approx(2.5 + 1000 * 1e8 / 350e9, abs=1e-3)


def test_smaller_shares_fill_a_device_less_well() -> None:
    losing = msgspec.structs.replace(FREE, lost=0.04)
    assert [losing.kept(ranks) for ranks in (1, 2, 4, 8)] == pytest.approx([1, 0.96, 0.92, 0.88])
    four = estimate(STAGES, SHAPE, losing, ranks=4)
    assert four.parts["passes"] == pytest.approx(200 / 0.92, abs=1e-3)


def test_stages_from_work_and_rates() -> None:
    work = ChunkFlops(
        conditions={"camera": 10**12},
        denoise={"projections": 7 * 10**12, "self_attention": 4 * 10**12},
        context={"projections": 2 * 10**12, "self_attention": 10**12},
    )
    rate = Sustained(matmul=1000, attention=500, decoder=100, source="a guess")
    stages = computed_stages(work, 5 * 10**12, rate)
    assert stages.passes == pytest.approx(10 + 10) and stages.decode == pytest.approx(50)
    assert computed_stages(work, 0, rate, context=False).passes == pytest.approx(8 + 8)
    assert "a guess" in stages.source


def test_measured_stages_are_those_of_bench_chunk() -> None:
    found = {"conditions": 5.0, "encode": 0.0, "denoise": 80.0, "context": 20.0, "decode": 9.0}
    stages = measured_stages({**found, "transfer": 0.5}, "a card")
    assert (stages.passes, stages.decode, stages.fixed) == (105.0, 9.0, 0.5)
    assert stages.source == "measured on a card"


@pytest.mark.parametrize(
    ("passes", "said"), [(1800.0, "missed"), (1600.0, "reached"), (1400.0, "moonshot")]
)
def test_what_is_wanted_of_four(passes: float, said: str) -> None:
    stages = msgspec.structs.replace(STAGES, passes=passes)
    assert verdict(scale("x", stages, SHAPE, FREE)) == said
    assert verdict(scale("x", stages, SHAPE, FREE, judged=False)) == ""


def test_counted_exchanges_are_those_of_real_ranks() -> None:
    """The rank in the middle of three, in its second chunk, over gloo."""
    vae = tiny.world().components.vae
    latents = torch.zeros(1, 16, 2, 6, 10)

    def run(group: Group) -> tuple[int, int]:
        shared = SharedVae(vae, group)
        _, state = shared.decode_stream(latents, None)
        group.traffic.clear()
        shared.decode_stream(latents, state)
        return sum(group.traffic.calls.values()), sum(group.traffic.nbytes.values())

    real = on_ranks(3, run)[1]
    there = copy.deepcopy(vae).to("meta")
    assert decode_exchanges(there, 2, (6, 10), ranks=3) == real
    assert decode_exchanges(there, 2, (6, 10), ranks=1) == (0, 0)


def test_every_assumption_is_printed(subject: Subject) -> None:
    assert subject.shape.columns == tiny.WIDTH // 8 and subject.shape.frames == 12
    found = estimates(subject)
    assert [s.title for s in found] == [way.title for way in WAYS]
    lines = "\n".join(assumption_lines(found))
    for way in WAYS:
        decoder = TINY_RATE if way.tiny else way.rate.decoder
        told = (way.rate.source, way.rate.matmul, way.rate.attention, decoder)
        told += (way.assumed.source, way.assumed.link_gb_per_s, way.assumed.call_us)
        for number in told:
            assert (number if isinstance(number, str) else f"{number:g}") in lines
    assert not subject.wanted and "wanted" not in lines, "a small model owes nothing"
    assert "a model, not a measurement" in as_panels(found)[0].title
    assert lines in as_table(found)
    for row, scaling in zip(as_table(found).splitlines()[1:], found, strict=False):
        figures = [float(word) for word in row[len(scaling.title) :].split() if word[0] in DIGITS]
        four = scaling.estimates[2]
        assert figures[-6:] == pytest.approx([four.chunk_ms, *four.parts.values()], abs=0.051)


def test_measured_stages_take_the_place_of_all_guesses_of_one_device(subject: Subject) -> None:
    (found,) = estimates(subject, measured=STAGES)
    assert found.estimates[0].chunk_ms == 1000 and "made up" in as_table([found])

"""`bench latency` and `bench served`: arithmetic, and walks on a server with a fake engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.fakes import FakeHandle
from tests.server.live_server import LiveServer
from worldline.bench import latency, served
from worldline.bench.arrival import Parts, expected
from worldline.bench.latency_report import show
from worldline.bench.picture import draw
from worldline.bench.served_report import show as show_served
from worldline.bench.walker import (
    ChunkTimes,
    Clock,
    Figures,
    Press,
    Reading,
    Scene,
    Shot,
    Walk,
)
from worldline.cli.main import main
from worldline.client import AsyncClient
from worldline.core.errors import ProtocolError

SCENE = Scene("fake", 16, 3, 4, 160, 96, "h264")


def parts(**changes: float) -> Parts:
    """A chunk of 750 ms made in 300, everything else 10."""
    plain = Parts(
        video=750.0,
        made=300.0,
        denoise=10.0,
        decode=10.0,
        encode=10.0,
        network=10.0,
        queue=10.0,
        display=10.0,
    )
    return msgspec.structs.replace(plain, **changes)


def test_the_formula_of_a_chunk_that_is_made_in_time() -> None:
    found = expected(parts())
    assert (found.mean, found.p95, found.worst) == (375 + 60, 712.5 + 60, 750 + 60)


def test_the_formula_of_a_chunk_that_takes_longer_than_it_plays() -> None:
    found = expected(parts(made=1000.0))
    assert (found.mean, found.p95, found.worst) == (500 + 60, 950 + 60, 1000 + 60)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_of_what_was_measured(values: list[float]) -> None:
    found = latency.spread(values)
    assert {found.p50, found.p95, found.p99, found.most} <= set(values)
    assert found.p50 <= found.p95 <= found.p99 <= found.most == max(values)
    assert sum(v <= found.p95 for v in values) >= 0.95 * len(values)


def reading(first: int, *, stalls: int = 0, levers: tuple[str, ...] = ()) -> Reading:
    """Four frames and two inputs; the page's clock is 1000 ms behind the server's."""
    frames = tuple(
        Shot(n, 1000.0 + n * 60, n * 60 + 8.0, n * 60 + 12.0, n * 60 + 40.0, 8.0)
        for n in range(first, first + 4)
    )
    each: dict[str, float] = {str(name): 10.0 for name in latency.PARTS}
    inputs = (
        Press(first, "keys", each, 90.0 + first),
        Press(first + 1, "prompt", None, 900.0),
        Press(first + 2, "keys", None, None),
    )
    times = {"step": 300.0, "denoise": 200.0, "decode": 30.0, "encode": 24.0}
    chunks = (ChunkTimes(first, 12, times, 0.4, first, levers),)
    figures = Figures(stalls, 0.001 * stalls, 900.0, 15.9, 2)
    return Reading("live", Clock(1000.0, 3.0), frames, inputs, chunks, figures)


def test_a_walk_becomes_figures(tmp_path: Path) -> None:
    walk = Walk(scene=SCENE)
    walk.add(reading(0))
    walk.add(reading(2, stalls=1, levers=("encode_quality",)))  # overlaps, as the page's log does
    walk.seconds = 10.0
    found = latency.figures_of(walk)
    assert len(walk.frames) == 6
    assert (found.total.count, found.total.p50, found.total.most) == (2, 90.0, 92.0)
    assert found.transport.p95 == pytest.approx(12.0)
    assert sum(found.parts[name].p50 for name in latency.PARTS) == 90.0
    assert found.expected.mean == pytest.approx(375 + 200 + 10 + 2 + 3 + 10 + 10)
    assert (found.stalls, found.stall_rate, found.deadline_misses) == (1, 0.001, 2)
    assert (found.bitrate, found.real_time_factor, found.levers) == (
        0.9,
        0.4,
        {"encode_quality": 1},
    )
    assert found.kept
    console = Console(record=True, width=120)
    show(found, console)
    assert "input to photon" in console.export_text()
    draw(tmp_path / "latency.png", latency.headline(found), latency.as_panels(found))
    assert (tmp_path / "latency.png").stat().st_size > 1000


def test_two_walks_do_not_share_what_they_found() -> None:
    one = Walk(scene=SCENE)
    one.add(reading(0))
    assert Walk(scene=SCENE).frames == {}


def test_a_late_hand_is_told() -> None:
    walk = Walk(scene=SCENE)
    walk.add(reading(0))
    found = latency.figures_of(walk)
    late = msgspec.structs.replace(found, total=latency.spread([found.expected.p95 + 100.1]))
    assert not late.kept


def test_nothing_measured_is_an_error_and_no_figure() -> None:
    with pytest.raises(ProtocolError):
        latency.figures_of(Walk(scene=SCENE))


def test_fairness_is_one_for_equals_and_falls_to_its_floor() -> None:
    assert served.fairness([5.0, 5.0, 5.0]) == pytest.approx(1.0)
    assert served.fairness([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert served.fairness([]) == 0.0


def test_worlds_are_walked_at_once(tmp_path: Path) -> None:
    handle = FakeHandle()
    with LiveServer(handle, seats=3) as server:
        client = AsyncClient(f"http://127.0.0.1:{server.port}")
        found = served.measure_served(client, 3, 3.0, format="raw")
    handle.nothing_is_left()
    assert len(found.worlds) == 3
    assert all(world.frames > 0 and world.input.count > 0 for world in found.worlds)
    assert 0 < found.fairness <= 1.0 + 1e-9
    console = Console(record=True, width=140)
    show_served(found, console)
    assert "fairness" in console.export_text()
    draw(tmp_path / "served.png", served.headline(found), served.as_panels(found))
    assert (tmp_path / "served.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "wrong",
    [
        "latency --seconds 0",
        "latency --picture /no/such/folder/a.png",
        "served --worlds 0",
        "served --seconds nan",
    ],
)
def test_what_cannot_be_measured_is_refused_before_a_server_is_started(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *wrong.split()]) == 2
    assert "invalid_config" in capsys.readouterr().err


def test_without_a_browser_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLDLINE_CHROMIUM", "/no/such/browser")
    assert main(["bench", "latency", "--url", "http://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert "no browser" in said and "WORLDLINE_CHROMIUM" in said

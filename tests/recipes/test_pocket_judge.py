"""What is made of the measures: verdicts on true and on broken walks, and the page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("numba", reason="the recipe renders with numba")

from recipes.pocket import measures
from recipes.pocket.judge_camera import COMMANDS, camera_figures
from recipes.pocket.judge_looks import Looks, colour_floor, furthest, numbers_of
from recipes.pocket.judge_memory import again_figure, turn_figures
from recipes.pocket.judge_picture import copy_psnr
from recipes.pocket.judge_report import (
    MISS,
    PASS,
    REPORTED,
    UNKNOWN,
    Chart,
    Figure,
    Finding,
    Goal,
    Matrix,
    Sheet,
    load_findings,
    save_finding,
    save_sheet,
)
from recipes.pocket.judge_speed import read_report, speed_figures
from recipes.pocket.judge_trial import command_walk
from recipes.pocket.judge_walk import walk_figures
from recipes.pocket.page import make_page
from recipes.pocket.page_chart import draw_chart
from recipes.pocket.renderer import Renderer
from recipes.pocket.scenes import scenes
from recipes.pocket.walks import frame_poses, make_walk, render, walk_seed

WORLDS = scenes()


def figure(figures: list[Figure], name: str) -> Figure:
    """The one figure whose name begins so."""
    (found,) = (f for f in figures if f.name.startswith(name))
    return found


def value(figures: list[Figure], name: str) -> float:
    """The value of the figure whose name begins so."""
    found = figure(figures, name).value
    assert found is not None
    return found


def blurred(pictures: np.ndarray) -> np.ndarray:
    """Every pixel the mean of 9 beside it."""
    shifted = [np.roll(pictures.astype(np.float32), k, axis=-2) for k in range(-4, 5)]
    return np.mean(shifted, axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    """Two true walks, `[2, F, H, W, 3]`."""
    renderers = [Renderer(scene) for scene in WORLDS]
    walks = [make_walk(i, walk_seed("test", 40 + i), 6) for i in (0, 6)]
    return np.stack([render(walk, renderers) for walk in walks])


@pytest.fixture(scope="module")
def looks() -> Looks:
    """True pictures of four walks in two worlds every three latent frames, seen as made too."""
    walks = [make_walk(i, walk_seed("test", 60 + n), 13) for n in range(2) for i in (0, 4)]
    at = np.array([3, 6, 9, 12])
    true = np.stack([
        np.stack([Renderer(WORLDS[w.scene]).frame(pose) for pose in frame_poses(w)[4 * at]])
        for w in walks
    ])  # fmt: skip
    return Looks(walks, at, true, true)


def test_goals_and_verdicts() -> None:
    within, open_end = Goal(low=0.7, high=1.3), Goal(high=500.0, open=True)
    assert [within.met(v) for v in (0.69, 0.7, 1.3, 1.31)] == [False, True, True, False]
    assert [open_end.met(v) for v in (499.9, 500.0)] == [True, False]
    assert not Goal(low=1.0).met(float("nan"))
    assert within.words("") == "0.7 to 1.3"
    assert open_end.words("ms") == "< 500 ms"
    assert Goal(low=38.0).words("dB") == "≥ 38 dB"
    verdicts = [
        Figure(name="", value=v, goal=g).verdict
        for v, g in ((1.0, within), (2.0, within), (2.0, None), (None, within))
    ]
    assert verdicts == [PASS, MISS, REPORTED, UNKNOWN]


def test_a_wrong_command_is_found_out() -> None:
    renderers = [Renderer(scene) for scene in WORLDS]
    walks = [command_walk(0, 0, key, 5) for key in COMMANDS]
    true = np.stack([render(walk, renderers)[-4:] for walk in walks])[None]
    figures, matrix = camera_figures(blurred(true), true)
    assert figures[0].value == 100 and figures[0].verdict == PASS
    assert np.array_equal(matrix.counts, np.eye(len(COMMANDS)))
    assert all(f.value is not None and f.value > 0 for f in figures[1:])
    names = list(COMMANDS)
    order = [names.index({"j": "l", "l": "j"}.get(key, key)) for key in names]
    figures, matrix = camera_figures(true[:, order], true)
    assert figures[0].value == 75 and figures[0].verdict == MISS
    assert matrix.counts[names.index("j")][names.index("l")] == 1


def test_the_first_second_and_what_fades(clips: np.ndarray) -> None:
    figures, chart = walk_figures(clips, clips)
    assert figure(figures, "first second").verdict == PASS
    assert value(figures, "edges against the truth, first") == 1
    assert len(chart.x) == 6
    soft, _ = walk_figures(blurred(clips), clips)
    assert value(soft, "steepness of edges against the truth, first") < 0.6
    assert value(soft, "edges against the truth, first") < 0.9
    assert value(soft, "columns against the truth, 2nd") < 0.9
    wrong, _ = walk_figures(clips[::-1], clips)
    assert figure(wrong, "first second").verdict == MISS
    assert value(wrong, "colour error") > 0.05


def test_copying_is_perfect_only_for_what_stands_still(clips: np.ndarray) -> None:
    still = np.repeat(clips[:, :1], 9, axis=1)
    assert (copy_psnr(still) == 99).all()
    assert copy_psnr(clips).shape == (2, 5)
    expected = measures.psnr(clips[0, 4], clips[0, 5:9]).mean()
    assert copy_psnr(clips)[0, 1] == pytest.approx(expected)


def test_memory_figures(clips: np.ndarray) -> None:
    first, other = clips[:, 0], clips[:, -1]
    soft, sharp = (again_figure(p, first, "").value for p in (blurred(first), first))
    assert soft is not None and sharp is not None and soft < sharp
    assert again_figure(first, first, "").verdict == PASS
    assert again_figure(first[::-1], first, "").verdict == MISS
    assert other.shape == first.shape
    around = clips[:, ::4]
    degrees = [float(i) for i in range(around.shape[1])]
    kept, _ = turn_figures(around, around, degrees)
    assert [f.verdict for f in kept[:3]] == [PASS] * 3
    broken = around.copy()
    broken[:, :, -24:] = 255 - broken[:, :, -24:]  # only the ground
    lost, chart = turn_figures(broken, around, degrees)
    assert figure(lost, "full turn keeps the sky").verdict == PASS
    assert figure(lost, "full turn keeps the ground").verdict == MISS
    assert max(chart.curves["ground"]) > 0.05
    dark, _ = turn_figures((around * 0.6).astype(np.uint8), around, degrees)
    assert figure(dark, "full turn keeps the light").verdict == MISS


def test_endurance_numbers_of_the_truth_and_of_fog(looks: Looks) -> None:
    true = numbers_of([looks], WORLDS)
    for name in ("edges", "sharpness", "bands", "objects"):
        assert true.by_quarter(name, 12) == pytest.approx([1.0] * 4)
    assert true.by_quarter("colour", 12) == [0.0] * 4
    fog = np.array([[[[scene.horizon]]] for scene in (WORLDS[w.scene] for w in looks.walks)]) * 255
    late = looks.made.copy()
    late[:, 2:] = (0.3 * late[:, 2:] + 0.7 * fog).astype(np.uint8)
    faded = numbers_of([looks._replace(made=late)], WORLDS)
    edges, objects, colour = (faded.by_quarter(n, 12) for n in ("edges", "objects", "colour"))
    assert edges[:2] == pytest.approx([1, 1]) and max(edges[2:]) < 0.6
    assert objects[:2] == pytest.approx([1, 1]) and max(objects[2:]) < 0.85
    assert colour[:2] == [0, 0] and min(colour[2:]) > 0.02
    assert furthest(edges) == min(edges)
    assert furthest([0.9, 1.2, 1.0]) == 1.2


def test_quarters_without_looks_are_left_out(looks: Looks) -> None:
    short = looks._replace(at=looks.at[:2], made=looks.made[:, :2], true=looks.true[:, :2])
    numbers = numbers_of([looks, short], WORLDS)
    assert len(numbers.by_quarter("edges", 24)) == 2
    assert len(numbers.at) == 6 * len(looks.walks)
    assert 0 < colour_floor([looks]) < 0.2
    assert np.isnan(colour_floor([looks._replace(walks=looks.walks[:2])]))


def test_speed_comes_from_the_commands_reports(tmp_path: Path) -> None:
    report = {
        "fps": 50.0, "chunk_ms_p50": 70.0, "dtype": "float32", "width": 160, "height": 96,
        "machine": {"threads": 1, "cores": 2, "processor": "some", "commit": "abc"},
    }  # fmt: skip
    two = {**report, "fps": 60.0, "machine": {**report["machine"], "threads": 2}}
    served = {"served_fps": 15.0, "key_to_photon_ms_p50": 380.0}
    figures = speed_figures([report, two, served])
    assert [f.value for f in figures] == [60.0, 50.0, 15.0, 380.0]
    assert [f.verdict for f in figures] == [PASS, PASS, MISS, PASS]
    assert [f.verdict for f in speed_figures([])] == [UNKNOWN] * 4
    path = tmp_path / "speed.json"
    path.write_bytes(msgspec.json.encode(served))
    assert read_report(path) == served
    path.write_text("fps: 12")
    with pytest.raises(ValueError, match=r"speed\.json holds no JSON object"):
        read_report(path)


def a_finding(folder: Path, clips: np.ndarray) -> Finding:
    """One of everything, with characters that a page has to escape."""
    sheet = save_sheet(folder / "a.png", [list(clips[0, :3]), list(clips[1, :3])], 'a < b & "c"')
    chart = Chart(
        title="t <1>", x_label="x", y_label="y", x=[0.0, 1.0, 2.0],
        curves={"a & b": [1.0, float("nan"), 2.0]}, band=(0.5, 1.5),
    )  # fmt: skip
    matrix = Matrix(title="m", rows=["a<"], columns=["b", "c"], counts=[[3, 0]])
    return Finding(
        group="walk", title="A & B", text="less < more", charts=[chart], matrices=[matrix],
        sheets=[sheet, Sheet("gone.png", "not there")], settings={"judged": "<file>"},
        figures=[
            Figure(name="good <", value=2.0, unit="dB", goal=Goal(low=1.0)),
            Figure(name="bad", value=0.5, goal=Goal(low=1.0), note="a & b"),
            Figure(name="missing", value=None, goal=Goal(low=1.0)),
            Figure(name="plain", value=float("nan")),
        ],
    )  # fmt: skip


def test_the_page_is_well_formed_and_needs_no_other_file(tmp_path: Path, clips: np.ndarray) -> None:
    page = make_page(tmp_path, [a_finding(tmp_path, clips)])
    head, body = page.split("\n", 1)
    assert head == "<!DOCTYPE html>"
    root = ElementTree.fromstring(body)
    assert [e.text for e in root.iter("b")] == ["1", "1", "1"]
    classes = [e.get("class") for e in root.iter("td")]
    assert classes.count("pass") == classes.count("miss") == 2  # once in each table
    (image,) = root.iter("img")
    assert str(image.get("src")).startswith("data:image/jpeg;base64,")
    assert all(not str(e.get(key)).startswith("http") for e in root.iter() for key in e.attrib)
    (line,) = (e for e in root.iter("polyline"))
    assert len(str(line.get("points")).split()) == 2, "a value that is no number is left out"


def test_an_empty_chart_is_none() -> None:
    empty = Chart(title="", x_label="", y_label="", x=[], curves={"a": []})
    flat = Chart(title="", x_label="", y_label="", x=[1.0], curves={"a": [3.0]})
    assert draw_chart(empty) == ""
    assert ElementTree.fromstring(draw_chart(flat)).tag == "svg"


def test_findings_survive_their_file(tmp_path: Path, clips: np.ndarray) -> None:
    finding = a_finding(tmp_path, clips)
    finding.figures.pop()  # JSON knows no nan
    finding.charts.clear()
    save_finding(tmp_path, finding)
    assert load_findings(tmp_path, ("camera", "walk")) == [finding]
    assert not list(tmp_path.glob("*.part"))

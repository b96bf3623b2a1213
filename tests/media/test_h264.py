"""H.264: every picture at once, key frames that stand alone, colours that come back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from playwright.sync_api import sync_playwright

from tests.e2e.browsers import FLAGS, MISSING, find_browser
from tests.media.browser_decode import decode_in_browser, secure_page
from tests.media.charts import chart, off_by
from worldline.core.errors import ConfigError, ShapeError
from worldline.media import sps
from worldline.media.h264 import AccessUnit, H264Encoder

LEVELS = 3
FPS = 16
av = pytest.importorskip("av", reason="H.264 needs the extra `video`")


def moving(count: int, *, width: int = 160, height: int = 96) -> list[NDArray[np.uint8]]:
    """Textured pictures in which everything moves by a few pixels."""
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    still = blocks.repeat(4, axis=0).repeat(4, axis=1)
    still = (still.astype(np.uint16) + np.roll(still, 3, axis=1) + np.roll(still, 5, axis=0)) // 3
    return [np.roll(still.astype(np.uint8), 3 * index, axis=1) for index in range(count)]


def encoded(encoder: H264Encoder, pictures: Sequence[NDArray[np.uint8]]) -> list[AccessUnit]:
    return [encoder.encode(picture) for picture in pictures]


def decoded(units: Sequence[AccessUnit]) -> list[NDArray[np.uint8]]:
    """What FFmpeg makes of them; one picture per unit or the test fails."""
    from av.codec.context import CodecContext
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import Interpolation

    codec = CodecContext.create("h264", "r")
    assert isinstance(codec, VideoCodecContext)
    codec.thread_count = 1
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    frames = [frame for unit in units for frame in codec.decode(Packet(unit.data))]
    frames += codec.decode(None)
    # No colour space is named here: FFmpeg has it from the stream or not at all.
    pictures = [
        np.asarray(frame.reformat(format="rgb24", interpolation=exact).to_ndarray(), np.uint8)
        for frame in frames
    ]
    assert len(pictures) == len(units)
    return pictures


def types(unit: AccessUnit) -> list[int]:
    return [sps.nal_type(nal) for nal in sps.nal_units(unit.data)]


def test_every_picture_is_one_access_unit_and_key_frames_stand_alone() -> None:
    encoder = H264Encoder(160, 96, FPS)
    units = [encoder.encode(p, key=i in (5, 9)) for i, p in enumerate(moving(12))]
    assert [unit.key for unit in units] == [i in (0, 5, 9) for i in range(12)]
    for unit in units:
        kinds = types(unit)
        if unit.key:
            assert kinds.index(sps.SPS) < kinds.index(sps.PPS) < kinds.index(sps.IDR)
            assert unit.codec is not None
        else:
            assert kinds == [1], "one slice, and no parameter sets between key frames"
            assert unit.codec is None
    whole, from_key = decoded(units), decoded(units[5:])
    np.testing.assert_array_equal(whole[5:], from_key)


def test_the_stream_says_how_to_read_it() -> None:
    encoder = H264Encoder(160, 96, FPS)
    unit = encoder.encode(chart())
    assert encoder.parameters == sps.Sps(
        codec=unit.codec or "", width=160, height=96, full_range=True,
        primaries=1, transfer=13, matrix=1,
    )  # fmt: skip
    first = next(nal for nal in sps.nal_units(unit.data) if sps.nal_type(nal) == sps.SPS)
    assert unit.codec == f"avc1.{first[1]:02X}{first[2]:02X}{first[3]:02X}"
    assert first[1] == 66, "baseline: no B-frames to wait for, and every decoder knows it"


@pytest.mark.parametrize("size", [(832, 480), (64, 48), (146, 82)])
def test_sizes_survive_the_stream(size: tuple[int, int]) -> None:
    width, height = size
    encoder = H264Encoder(width, height, FPS)
    unit = encoder.encode(np.full((height, width, 3), 99, dtype=np.uint8))
    assert encoder.parameters is not None
    assert (encoder.parameters.width, encoder.parameters.height) == size
    assert decoded([unit])[0].shape == (height, width, 3)


def test_a_colour_chart_comes_back() -> None:
    units = encoded(H264Encoder(160, 96, FPS), [chart()] * 6)
    assert max(off_by(picture) for picture in decoded(units)) <= LEVELS


@pytest.mark.browser
def test_a_colour_chart_comes_back_from_a_canvas() -> None:
    browser_path = find_browser()
    if browser_path is None:
        pytest.skip(MISSING)
    units = encoded(H264Encoder(160, 96, FPS), [chart()] * 6)
    with secure_page() as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=Path(browser_path), args=FLAGS)
        page = browser.new_page()
        page.goto(address)
        pictures, spaces = decode_in_browser(page, units, width=160, height=96)
        browser.close()
    assert len(pictures) == 6, "each unit gives its picture; none waits for a later one"
    assert spaces["matrix"] == "bt709" and spaces["fullRange"] is True
    assert max(off_by(picture) for picture in pictures) <= LEVELS


def kbps(units: Sequence[AccessUnit]) -> float:
    return 8 * sum(len(unit.data) for unit in units) * FPS / len(units) / 1000


def test_the_default_size_stays_under_two_megabits() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 160, 3), dtype=np.uint8)
    units = encoded(H264Encoder(160, 96, FPS), list(noise))
    for second in range(0, 96, FPS):
        assert kbps(units[second : second + FPS]) < 2000, "even pure noise"


def test_the_bitrate_changes_while_running() -> None:
    encoder = H264Encoder(160, 96, FPS, kbps=800)
    noise = np.random.default_rng(1).integers(0, 256, (128, 24, 40, 3), dtype=np.uint8)
    pictures = noise.repeat(4, axis=1).repeat(4, axis=2)
    before = encoded(encoder, list(pictures[:64]))
    encoder.kbps = 200
    after = encoded(encoder, list(pictures[64:]))
    assert not any(unit.key for unit in after), "no key frame is spent on it"
    assert kbps(after[32:]) < 300 < kbps(before[32:])


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ConfigError, match="even sizes"):
        H264Encoder(161, 96, FPS)
    encoder = H264Encoder(160, 96, FPS)
    with pytest.raises(ShapeError):
        encoder.encode(np.zeros((96, 162, 3), dtype=np.uint8))
    with pytest.raises(ShapeError):
        encoder.encode(np.zeros((96, 160, 3), dtype=np.float32))  # pyright: ignore[reportArgumentType]


@given(st.binary(max_size=64))
def test_any_parameter_set_is_read_or_refused(data: bytes) -> None:
    try:
        found = sps.parse_sps(b"\x67" + data)
    except ShapeError:
        return
    assert found.codec.startswith("avc1.")

"""The parts of the SDK that know no connection."""

from __future__ import annotations

import io
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.client.peer import frame, picture
from worldline.client.address import parse_address
from worldline.client.clock_sync import ClockSync
from worldline.client.decoding import Decoder, start_bytes
from worldline.client.hand import ACTIONS, Hand
from worldline.client.notebook import show
from worldline.client.options import Patience
from worldline.client.picture import Picture
from worldline.client.playhead import Player
from worldline.client.receipts import KEPT, Receipts
from worldline.core.errors import ConfigError, ImageError
from worldline.core.live.server import Applied, Failure, Received


@pytest.mark.parametrize(
    ("written", "socket", "page"),
    [
        ("http://h:1", "ws://h:1/v1/worlds/live", "http://h:1/x"),
        ("h:1", "ws://h:1/v1/worlds/live", "http://h:1/x"),
        ("https://h/p/", "wss://h/p/v1/worlds/live", "https://h/p/x"),
        ("wss://h/v1/worlds/live", "wss://h/v1/worlds/live", "https://h/x"),
    ],
)
def test_an_address_as_users_write_it(written: str, socket: str, page: str) -> None:
    address = parse_address(written)
    assert (address.socket, address.http("/x")) == (socket, page)


@pytest.mark.parametrize("written", ["ftp://h", "http://", "http://k@h", "http://h?token=k", ""])
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(written)


def test_the_quickest_answer_says_the_offset() -> None:
    clock = ClockSync()
    assert not clock.known
    clock.answered(sent=100.0, server=1150.0, now=200.0)  # 100 ms there and back
    clock.answered(sent=300.0, server=1301.0, now=304.0)
    clock.answered(sent=400.0, server=1490.0, now=480.0)
    assert (clock.round_trip, clock.offset) == (4.0, 999.0)
    assert clock.here(1999.0) == 1000.0


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(ACTIONS)))))
def test_the_newest_message_is_what_is_held(steps: list[tuple[bool, set[Any]]]) -> None:
    hand, told, down = Hand(), (), set[str]()
    for press, keys in steps:
        changed = hand.press(tuple(keys)) if press else bool(keys) and hand.release(tuple(keys))
        down = down | keys if press else down - keys
        told = hand.held if changed else told
        assert set(told) == down == set(hand.held)
        assert len(told) == len(down)


def test_receipts_end_and_are_bounded() -> None:
    receipts = Receipts()
    first, second = receipts.begin(0.0), receipts.begin(0.0)
    receipts.received(Received(id=1, server_ms=0.0))
    receipts.lose()
    assert (first.stage, second.stage) == ("received", "lost")
    receipts.applied(Applied(id=2, chunk=0, latent_frame=0, server_ms=0.0))
    assert second.applied is None
    assert not receipts.refused(Failure(code="x", message="x", retryable=False, id=2))
    assert receipts.shown(5, 7) is first and first.shown == 7
    assert receipts.shown(5, 8) is None
    for _ in range(KEPT + 10):
        receipts.begin(0.0)
    assert len(receipts._open) == KEPT  # pyright: ignore[reportPrivateUsage]


def test_patience_grows_to_an_end() -> None:
    waits = [Patience().pause(n) for n in (0, 1, 2, 3, 4, 5, 100_000)]
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_playhead_moves_as_an_eye_would() -> None:
    player = Player(fps=10, realtime=True)
    for number in range(10):
        player.arrived(number, 0.0)
        player.handed(number, 0.0)
    assert player.position(0.0) == (0, 900.0)
    assert player.position(450.0) == (4, 450.0)
    assert player.position(900.0) == (9, 0.0)
    assert player.stalls == 0
    assert player.position(1200.0) == (9, 0.0)
    assert player.stalls == 1
    player.position(1500.0)
    assert player.stalls == 1  # one and the same
    player.arrived(10, 1600.0)
    player.handed(10, 1600.0)
    assert player.position(1700.0) == (10, 0.0)


def test_a_slow_program_is_where_the_playhead_is() -> None:
    player = Player(fps=10, realtime=True)
    for number in range(10):
        player.arrived(number, 0.0)
    player.handed(2, 100.0)
    assert player.position(5000.0) == (2, 700.0)


def test_without_real_time_only_what_waits_counts() -> None:
    player = Player(fps=10, realtime=False)
    for number in range(4):
        player.arrived(number, 0.0)
    player.handed(3, 1.0)
    assert player.position(1.0) == (3, 0.0)
    assert player.position(9000.0) == (3, 0.0)
    assert player.stalls == 0


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_still_pictures_are_decoded(format: str) -> None:
    data = picture(format.upper(), level=120)
    pixels = Decoder().decode(frame(0, format=format, payload=data))
    assert pixels is not None and pixels.shape == (6, 8, 3)
    assert np.abs(pixels.astype(int) - 120).max() <= 3


def test_what_cannot_be_decoded_is_passed_over() -> None:
    decoder = Decoder()
    assert decoder.decode(frame(0, payload=b"short")) is None
    assert decoder.decode(frame(0, format="jpeg", payload=b"no picture")) is None
    assert decoder.decode(frame(0, format="h264", key=False, payload=b"\0\0\0\1\x41")) is None
    assert decoder.needs_key_frame()
    assert not decoder.needs_key_frame()  # asked already


def encode_h264(levels: list[int]) -> list[bytes]:
    """Grey 64x48 pictures as Annex B access units without B-frames."""
    av = pytest.importorskip("av")
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
    context.framerate = 16
    context.options = {"preset": "ultrafast", "tune": "zerolatency"}
    units: list[bytes] = []
    for level in levels:
        pixels = np.full((48, 64, 3), level, np.uint8)
        units += map(bytes, context.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    assert len(units) == len(levels)
    return units


def test_video_gives_every_picture_at_once_and_recovers() -> None:
    levels = [40, 80, 120, 160]
    units = encode_h264(levels)
    decoder, seen = Decoder(), list[int]()

    def show_unit(number: int) -> bool:
        unit = frame(number, format="h264", payload=units[number], key=number == 0)
        pixels = decoder.decode(unit)
        if pixels is not None:
            seen.append(round(float(pixels.mean())))
        return pixels is not None

    assert all(show_unit(n) for n in range(4))
    assert [abs(a - b) <= 4 for a, b in zip(seen, levels, strict=True)] == [True] * 4
    still = decoder.decode(frame(4, format="jpeg", payload=picture("JPEG")))
    assert still is not None
    assert not show_unit(2)  # the stream went on without us: wait for a key frame
    assert decoder.needs_key_frame()
    assert show_unit(0)


def test_start_pictures_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    path.write_bytes(picture())
    pixels = np.full((4, 6, 3), 7, np.uint8)
    assert start_bytes(path) == start_bytes(str(path)) == start_bytes(picture()) == picture()
    for kind in (pixels, Image.fromarray(pixels)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(start_bytes(kind)))), pixels)
    for wrong in (tmp_path / "none.png", pixels.astype(np.float32), pixels[..., 0]):
        with pytest.raises(ImageError):
            start_bytes(wrong)  # pyright: ignore[reportArgumentType]


class Cell:
    """A notebook's display."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def __call__(self, item: Any, /, *, display_id: bool) -> Cell:
        assert display_id
        assert self.shown == []
        self.update(item)
        return self

    def update(self, item: Any, /) -> None:
        self.shown.append(item)


def test_a_notebook_shows_one_place_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [Picture(frame(n), np.full((6, 8, 3), n, np.uint8), 0.0) for n in range(3)]
    cell = Cell()
    show(pictures, 2, display=cell)
    assert cell.shown == pictures[:2]
    html = pictures[0]._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert html.startswith('<img width="8" height="6"') and "data:image/png;base64," in html
    monkeypatch.setitem(__import__("sys").modules, "IPython.display", None)
    with pytest.raises(ConfigError):
        show(pictures)
    module: Any = types.ModuleType("IPython.display")
    module.display = Cell()
    monkeypatch.setitem(__import__("sys").modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(__import__("sys").modules, "IPython.display", module)
    show(pictures)
    assert module.display.shown == pictures

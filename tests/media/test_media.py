"""Encoders: settings that clients rely on, and the films and folders of `generate`."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from worldline.core.errors import ConfigError, ShapeError
from worldline.media import jpeg, raw, record, resize, webp


def gradient(height: int = 48, width: int = 64, *, count: int = 1) -> NDArray[np.uint8]:
    """Smooth frames `F H W 3` whose colour differs in every corner and frame."""
    y, x = np.mgrid[0:height, 0:width]
    frames = [
        np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40 * i)], -1)
        for i in range(count)
    ]
    return np.stack(frames).astype(np.uint8)


def decode(data: bytes) -> NDArray[np.int16]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.int16)


@pytest.mark.parametrize("encode", [jpeg.encode_jpeg, jpeg.encode_with_pillow])
def test_jpeg_has_no_chroma_subsampling_and_keeps_the_colours(encode) -> None:
    frame = gradient()[0]
    data = encode(frame, 95)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        sampling = {(h, v) for _, h, v, _ in picture.layer}  # pyright: ignore
    assert sampling == {(1, 1)}
    assert np.abs(decode(data) - frame).max() <= 8


def test_jpeg_falls_back_to_pillow_without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = gradient()[0]
    monkeypatch.setattr(jpeg, "has_simplejpeg", lambda: False)
    assert jpeg.encode_jpeg(frame, 80) == jpeg.encode_with_pillow(frame, 80)


@pytest.mark.parametrize("encode", [jpeg.encode_jpeg, webp.encode_webp])
def test_quality_is_used(encode) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    assert len(encode(noise, 20)) < len(encode(noise, 90))


def test_webp_keeps_the_picture() -> None:
    frame = gradient()[0]
    assert np.abs(decode(webp.encode_webp(frame)) - frame).mean() < 4


def test_raw_is_the_memory_itself() -> None:
    frames = gradient(count=2)
    view = raw.view(frames)
    assert bytes(view) == frames.tobytes()
    frames[0, 0, 0, 0] = 77
    assert view[0] == 77  # no copy was made
    with pytest.raises(ValueError, match="contiguous"):
        raw.view(frames[:, :, ::2])


@pytest.mark.parametrize(
    ("max_width", "size"),
    [(None, (832, 480)), (0, (832, 480)), (900, (832, 480)), (416, (416, 240)), (100, (100, 58))],
)
def test_preview_sizes(max_width: int | None, size: tuple[int, int]) -> None:
    assert resize.preview_size(832, 480, max_width) == size


def test_shrink_is_bicubic_and_leaves_fitting_frames_alone() -> None:
    frame = gradient()[0]
    assert resize.shrink(frame, 64, 48) is frame
    expected = Image.fromarray(frame).resize((32, 24), Image.Resampling.BICUBIC)
    assert np.array_equal(resize.shrink(frame, 32, 24), np.asarray(expected))


def test_a_film_plays_back_with_its_colours(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = gradient(count=5)
    path = tmp_path / "sub" / "film.mp4"
    with record.open_recorder(path, 16, width=64, height=48) as film:
        film.write(frames[:2])
        film.write(frames[2:])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 16)
        shown = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
    assert len(shown) == 5
    assert np.abs(np.stack(shown).astype(np.int16) - frames).mean() < 3


def test_a_film_survives_an_error_in_the_middle(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    with (
        pytest.raises(RuntimeError, match="stopped"),
        record.open_recorder(path, 16, width=64, height=48) as film,
    ):
        film.write(gradient(count=3))
        raise RuntimeError("stopped")
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_a_film_without_frames_is_closed_quietly(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with record.open_recorder(tmp_path / "film.mp4", 16, width=64, height=48):
        pass


def test_a_film_without_the_extra_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "av" else find(n))
    with pytest.raises(ConfigError, match=r"worldline\[video\]"):
        record.open_recorder(tmp_path / "film.mp4", 16, width=64, height=48)
    with record.open_recorder(tmp_path / "frames", 16, width=64, height=48) as folder:
        folder.write(gradient())
    assert (tmp_path / "frames" / "frame_000000.png").exists()


@pytest.mark.parametrize(("name", "pictures"), [("frames/", "png"), ("frames", "jpeg")])
def test_a_folder_of_pictures(tmp_path: Path, name: str, pictures) -> None:
    frames = gradient(count=3)
    target = f"{tmp_path}/{name}"
    with record.open_recorder(target, 16, width=64, height=48, pictures=pictures) as folder:
        folder.write(frames)
    files = sorted((tmp_path / "frames").iterdir())
    suffix = "jpg" if pictures == "jpeg" else "png"
    assert [f.name for f in files] == [f"frame_{i:06d}.{suffix}" for i in range(3)]
    tolerance = 8 if pictures == "jpeg" else 0
    assert np.abs(decode(files[2].read_bytes()) - frames[2]).max() <= tolerance
    with pytest.raises(ConfigError, match="already holds frames"):
        record.open_recorder(target, 16, width=64, height=48)


def test_recorders_refuse_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.mp4"):
        record.open_recorder(tmp_path / "film.gif", 16, width=64, height=48)
    with pytest.raises(ConfigError, match="even"):
        record.open_recorder(tmp_path / "film.mp4", 16, width=63, height=48)
    with (
        record.open_recorder(tmp_path / "frames", 16, width=64, height=48) as folder,
        pytest.raises(ShapeError, match="48, 64"),
    ):
        folder.write(gradient(24, 64))

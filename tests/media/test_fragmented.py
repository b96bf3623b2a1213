"""A film that is playable however early it ends, and the camera path beside it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.media.charts import chart, off_by
from worldline.core.camera import Intrinsics
from worldline.core.errors import ShapeError
from worldline.media.camera_files import (
    INTRINSICS,
    POSES,
    TRANSFORMS,
    PoseFile,
    between,
    write_rest,
)
from worldline.media.fragmented import FragmentedMp4, Sample
from worldline.media.h264 import H264Encoder

av = pytest.importorskip("av", reason="H.264 needs the extra `video`")
FPS = 16
PER_FRAGMENT = 8
STILL = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def samples(numbers: Sequence[int], keys: Sequence[int] = ()) -> list[Sample]:
    """The chart, moving; picture `number` is rolled by so many pixels."""
    encoder = H264Encoder(160, 96, FPS)
    made: list[Sample] = []
    for number in numbers:
        unit = encoder.encode(np.roll(chart(), number, axis=1), key=number in keys)
        made.append(Sample(unit.data, unit.key, number))
    return made


def film(given: list[Sample]) -> tuple[bytes, list[int]]:
    """The file, and where each fragment ends."""
    out, ends = io.BytesIO(), []
    mp4 = FragmentedMp4(out, FPS)
    for start in range(0, len(given), PER_FRAGMENT):
        part, after = given[start : start + PER_FRAGMENT], given[start + PER_FRAGMENT :]
        mp4.write(part, after[0].number if after else part[-1].number + 1)
        ends.append(out.tell())
    return out.getvalue(), ends


def played(data: bytes) -> list[tuple[float, int]]:
    """Time in seconds and error of each picture, as FFmpeg plays the file."""
    from av.container import InputContainer

    seen: list[tuple[float, int]] = []
    container = av.open(io.BytesIO(data), "r")
    assert isinstance(container, InputContainer)
    with container:
        try:
            for frame in container.decode(video=0):
                number = round((frame.time or 0.0) * FPS)
                pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                seen.append((frame.time or 0.0, off_by(np.roll(pixels, -number, axis=1))))
        except av.error.FFmpegError:
            pass  # a broken end is reported after everything before it
    return seen


def test_a_film_plays_in_its_own_time() -> None:
    data, _ = film(samples(range(40), keys=(20,)))
    seen = played(data)
    assert [time for time, _ in seen] == [number / FPS for number in range(40)]
    assert max(error for _, error in seen[:1] + seen[20:21]) <= 4


def test_it_begins_at_nought_and_gaps_are_held() -> None:
    numbers = [*range(100, 110), *range(130, 140)]
    data, _ = film(samples(numbers, keys=(130,)))
    assert [time for time, _ in played(data)] == [(number - 100) / FPS for number in numbers]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.77, 0.999])
def test_a_film_cut_off_anywhere_plays_up_to_the_fragment_before(share: float) -> None:
    data, ends = film(samples(range(64)))
    cut = ends[0] + int(share * (len(data) - ends[0]))
    whole = sum(end <= cut for end in ends)
    seen = played(data[:cut])
    assert len(seen) >= whole * PER_FRAGMENT > 0
    assert [time for time, _ in seen] == [number / FPS for number in range(len(seen))]


def test_the_head_says_the_colours() -> None:
    data, _ = film(samples(range(3)))
    at = data.index(b"colrnclx") + 8
    assert data[at : at + 7] == bytes([0, 1, 0, 13, 0, 1, 0x80])


def test_a_film_without_a_key_frame_is_refused() -> None:
    given = samples(range(4))
    with pytest.raises(ShapeError, match="begins with a key frame"):
        FragmentedMp4(io.BytesIO(), FPS).write(given[1:], 4)
    with pytest.raises(ShapeError, match="out of order"):
        FragmentedMp4(io.BytesIO(), FPS).write(given, 3)


def ahead(distance: float) -> tuple[float, ...]:
    return (*STILL[:11], distance)


def test_poses_are_whole_after_every_addition(tmp_path: Path) -> None:
    poses = PoseFile(tmp_path / POSES)
    assert np.load(tmp_path / POSES).shape == (0, 4, 4)
    total = 0
    for count in (1, 8, 3, 1000):
        poses.add([ahead(float(total + index)) for index in range(count)])
        total += count
        found = np.load(tmp_path / POSES)
        assert found.shape == (total, 4, 4) and found.dtype == np.float32
        np.testing.assert_array_equal(found[:, 2, 3], np.arange(total))
    poses.close()


def test_pictures_lie_between_latent_frames() -> None:
    path = [between(ahead(1.0), ahead(3.0), index, 4)[11] for index in range(4)]
    np.testing.assert_allclose(path, [1.5, 2.0, 2.5, 3.0])
    assert between(ahead(1.0), ahead(3.0), 0, 1) == pytest.approx(ahead(3.0))


def test_the_other_files_fit_the_poses(tmp_path: Path) -> None:
    poses = PoseFile(tmp_path / POSES)
    poses.add([ahead(0.0), ahead(1.0)])
    poses.close()
    write_rest(tmp_path, Intrinsics(100.0, 100.0, 80.0, 48.0), width=160, height=96)
    np.testing.assert_allclose(np.load(tmp_path / INTRINSICS), [[520, 500, 416, 240]] * 2)
    found = json.loads((tmp_path / TRANSFORMS).read_text(encoding="utf-8"))
    assert (found["w"], found["h"], found["fl_x"], found["cx"]) == (160, 96, 100.0, 80.0)
    last = np.array(found["frames"][1]["transform_matrix"])
    np.testing.assert_allclose(last[:, 3], [0, 0, 1, 1])  # OpenGL: the camera looks along -z
    np.testing.assert_allclose(np.diag(last), [1, -1, -1, 1])

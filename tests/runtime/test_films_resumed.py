"""Films that were interrupted: the same film, nothing made twice, damage noticed, others kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests import film_worlds as worlds
from tests import tiny
from worldline.core.errors import ConfigError
from worldline.core.film import FilmRequest
from worldline.runtime.engine import World
from worldline.runtime.films import open_film

pytest.importorskip("diffusers")


def rewrite(index: Path, **changes: object) -> None:
    """Change an index so that it is whole in itself."""
    data = json.dumps(json.loads(index.read_bytes())["index"] | changes).encode()
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    index.write_bytes(b'{"digest":"%s","index":%s}' % (digest.encode(), data))


def case(kind: str) -> tuple[World, FilmRequest]:
    """A world and a film of several chunks; the causal ones roll over and turn their origin."""
    if kind == "base":
        return worlds.base(), worlds.request(5, chunks=2)
    if kind == "dpm++":
        return worlds.base(), worlds.request(3, solver="dpm++")
    if kind == "pretrain":
        return worlds.pretrain(), worlds.request(8, chunks=4)
    return tiny.world(reanchor_at=7), worlds.request(9, chunks=3)


@pytest.mark.parametrize(
    ("kind", "turns"),
    [
        ("base", [0, 3, 8, 12]),
        ("dpm++", [5]),
        ("pretrain", [5, 17]),
        ("live", [4, 10]),
    ],
)
def test_an_interrupted_film_is_the_same_film(kind: str, turns: list[int], tmp_path: Path) -> None:
    world, asked = case(kind)
    expected = worlds.made(world, asked)
    for count in turns:
        folder = tmp_path / str(count)
        worlds.interrupted(world, asked, folder, turns=count)
        with open_film(world, asked, tiny.picture(), folder=folder) as job:
            passes = 0
            frames = []
            while not job.done:
                shown = job.advance()
                passes += job.progress.stage == "denoise"
                if shown is not None:
                    frames.append(shown)
            made = passes + job.resumed
            assert made == asked.chunks * len(world.preset.sampler.steps)
            assert job.progress.done == job.progress.total
            job.forget()
        assert np.array_equal(np.concatenate(frames), expected), f"after {count} turns"
        assert not folder.exists()


def test_a_film_interrupted_again_before_its_first_new_pass_loses_nothing(tmp_path: Path) -> None:
    world, asked = case("base")
    worlds.interrupted(world, asked, tmp_path, turns=4)
    worlds.interrupted(world, asked, tmp_path, turns=1)
    with open_film(world, asked, tiny.picture(), folder=tmp_path) as job:
        assert job.resumed == 3


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("chunk-00000.safetensors", "flipped"),
        ("chunk-00000.safetensors", "gone"),
        ("pass.safetensors", "flipped"),
        ("pass.safetensors", "short"),
        ("pass.safetensors", "long"),
    ],
)
def test_what_was_damaged_is_made_again(name: str, damage: str, tmp_path: Path) -> None:
    world, asked = case("base")
    expected = worlds.made(world, asked)
    worlds.interrupted(world, asked, tmp_path, turns=13)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    changed = {"short": data[:-9], "long": data + bytes(10 << 20)}.get(damage, data)
    path.unlink() if damage == "gone" else path.write_bytes(changed)
    with open_film(world, asked, tiny.picture(), folder=tmp_path) as job:
        kept = 0 if name.startswith("chunk") else worlds.STEPS
        assert job.resumed == kept
        assert np.array_equal(worlds.whole(job), expected)


def test_another_film_finds_the_folder_taken(tmp_path: Path) -> None:
    world, asked = case("base")
    worlds.interrupted(world, asked, tmp_path, turns=3)
    for changes in ({"seed": 1}, {"prompt": "snow"}, {"steps": 4}, {"guidance": 2.0}):
        with pytest.raises(ConfigError, match="another film"):
            open_film(
                world, worlds.request(5, chunks=2, **changes), tiny.picture(), folder=tmp_path
            )
    with pytest.raises(ConfigError, match="another film"):
        open_film(world, asked, tiny.picture(1), folder=tmp_path)
    other = msgspec.structs.replace(world.info.options, kv="8bit")
    world.info = msgspec.structs.replace(world.info, options=other)
    with pytest.raises(ConfigError, match="another film"):
        open_film(world, asked, tiny.picture(), folder=tmp_path)
    assert world.counts().rings == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"{", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"digest": "", "index": {"version": 1, "film": "", "branches": ""}}', "cannot be read"),
        (b" " * (17 << 20), "no kept film"),
    ],
)
def test_an_index_that_is_none_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    world, asked = case("base")
    (tmp_path / "film.json").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        open_film(world, asked, tiny.picture(), folder=tmp_path)


def test_a_later_version_is_refused_and_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    world, asked = case("base")
    worlds.interrupted(world, asked, tmp_path / "film", turns=3)
    index = tmp_path / "film" / "film.json"
    half = json.loads(index.read_bytes())["index"]["under_way"]
    (tmp_path / "film" / "pass.safetensors").rename(tmp_path / "pass.safetensors")
    rewrite(index, under_way=half | {"name": "../pass.safetensors"})
    with open_film(world, asked, tiny.picture(), folder=tmp_path / "film") as job:
        assert job.resumed == 0
    rewrite(index, version=2)
    with pytest.raises(ConfigError, match="later version"):
        open_film(world, asked, tiny.picture(), folder=tmp_path / "film")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    world, asked = case("base")
    taken = tmp_path / "file"
    with open_film(world, asked, tiny.picture(), folder=taken / "film") as job:
        job.advance()
        taken.write_bytes(b"")
        with pytest.raises(ConfigError, match="cannot be written"):
            job.save()
    with (
        open_film(world, asked, tiny.picture()) as job,
        pytest.raises(ConfigError, match="no folder"),
    ):
        job.save()


def test_a_film_goes_on_in_the_way_it_began(tmp_path: Path) -> None:
    world = worlds.pretrain()
    asked = worlds.request(4, chunks=2)
    worlds.interrupted(world, asked, tmp_path, turns=3)
    index = tmp_path / "film.json"
    assert json.loads(index.read_bytes())["index"]["branches"] == "batched"
    rewrite(index, branches="sequence")
    with open_film(world, asked, tiny.picture(), folder=tmp_path) as job:
        assert job._setup.way == "sequence"
    rewrite(index, branches="nonsense")
    with open_film(world, asked, tiny.picture(), folder=tmp_path) as job:
        assert job._setup.way == "batched"

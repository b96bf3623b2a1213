"""The queue on the disk: what was written is there, whatever happened to the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from tests.media.test_scene import pictures, psnr
from worldline.core.errors import ConfigError, ShapeError
from worldline.server.films.film import Film, Wish
from worldline.server.films.reel import FILM, Reel
from worldline.server.films.store import MOST_BARREN, START, WORK, ChunkPlace, FilmStore

NOW = 1_800_000_000.0


def film(name: str, *, client: str = "a", model: str = "fake", chunks: int = 3) -> Film:
    wish = Wish(prompt="a red gate", seed=7, width=64, height=48, chunks=chunks, actions="w-4")
    return Film(
        id=name,
        number=0,
        client=client,
        model=model,
        status="queued",
        created=NOW,
        wish=wish,
        fps=16,
        seconds="2",
    )


def place(number: int, start: int = 0) -> ChunkPlace:
    return ChunkPlace(number, 12 * number, start, 100, 0, 0, bytes(16))


@pytest.fixture
def store(tmp_path: Path) -> Generator[FilmStore]:
    found = FilmStore(tmp_path / "films")
    yield found
    found.close()


def test_films_are_taken_in_order_and_each_once(store: FilmStore) -> None:
    for name in ("one", "two", "three"):
        store.add(film(name), b"picture")
    assert store.place(store.page(client=None, limit=1)[0]) == 2
    taken = [store.take("fake", "w", NOW + i) for i in range(4)]
    assert [one and one.id for one in taken] == ["one", "two", "three", None]
    assert taken[0] is not None
    assert (taken[0].status, taken[0].started, taken[0].wish.prompt) == (
        "in_progress",
        NOW,
        "a red gate",
    )
    assert (store.folder / "one" / START).read_bytes() == b"picture"


def test_films_of_another_model_wait_for_it(store: FilmStore) -> None:
    store.add(film("one", model="base"), b"")
    assert store.take("fake", "w", NOW) is None
    assert store.take("base", "w", NOW) is not None


def test_only_one_process_has_the_queue(store: FilmStore) -> None:
    with pytest.raises(ConfigError, match="no other server"):
        FilmStore(store.folder)
    code = (
        "import sys; from pathlib import Path\n"
        "from worldline.core.errors import ConfigError\n"
        "from worldline.server.films.store import FilmStore\n"
        "try: FilmStore(Path(sys.argv[1]))\n"
        "except ConfigError: sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, store.folder], check=False, timeout=60)
    assert done.returncode == 3


def test_a_killed_process_loses_nothing_and_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.server.films.test_store import NOW, film, place\n"
        "from worldline.server.films.store import FilmStore\n"
        "store = FilmStore(Path(sys.argv[1]))\n"
        "for name in 'abc': store.add(film(name), b'picture')\n"
        "store.take('fake', 'w', NOW)\n"
        "store.made('a', place(0), 9); store.made('a', place(1), 21)\n"
        "store.end('a', 'completed', NOW); store.take('fake', 'w', NOW)\n"
        "store.made('b', place(0), 9)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    store = FilmStore(tmp_path)
    try:
        found = {one.id: (one.status, one.chunks) for one in store.page(client=None, limit=9)}
        assert found == {"a": ("completed", 2), "b": ("in_progress", 1), "c": ("queued", 0)}
        assert store.recover(NOW) == []
        again = store.take("fake", "w", NOW)
        assert again is not None
        assert (again.id, again.chunks, again.frames) == ("b", 1, 9)
        assert [p.number for p in store.chunks("b")] == [0]
    finally:
        store.close()


def test_a_film_that_ends_the_server_every_time_fails(store: FilmStore) -> None:
    store.add(film("one"), b"")
    store.add(film("two"), b"")
    work = store.folder / "one" / WORK
    work.mkdir()
    for attempt in range(MOST_BARREN):
        assert work.exists()
        taken = store.take("fake", "w", NOW)
        assert taken is not None and taken.id == "one"
        failed = store.recover(NOW)
        assert len(failed) == (attempt == MOST_BARREN - 1)
    assert not work.exists() and (store.folder / "one" / START).exists()
    ended = store.find("one")
    assert ended is not None
    assert (ended.status, ended.code) == ("failed", "interrupted")
    assert "3 times" in (ended.message or "")
    taken = store.take("fake", "w", NOW)
    assert taken is not None and taken.id == "two"


def test_new_chunks_forgive_old_failures(store: FilmStore) -> None:
    store.add(film("one", chunks=99), b"")
    for i in range(3 * MOST_BARREN):
        assert store.take("fake", "w", NOW) is not None
        store.made("one", place(i), 12 * (i + 1))
        assert store.recover(NOW) == []


def test_other_weights_begin_again(store: FilmStore) -> None:
    store.add(film("one"), b"")
    store.take("fake", "old", NOW)
    store.made("one", place(0), 12)
    store.put_back("one", NOW)
    again = store.take("fake", "new", NOW)
    assert again is not None
    assert (again.chunks, again.frames, again.bytes, again.weights) == (0, 0, 0, "new")
    assert list(store.chunks("one")) == []


def test_an_ended_film_stays_ended(store: FilmStore) -> None:
    store.add(film("one"), b"")
    store.take("fake", "w", NOW)
    store.end("one", "cancelled", NOW)
    ended = store.end("one", "completed", NOW + 1)
    assert ended is not None and ended.status == "cancelled"
    assert store.put_back("one", NOW) == ended
    assert store.recover(NOW) == [] and store.take("fake", "w", NOW) is None


def test_pages_and_clients(store: FilmStore) -> None:
    for i in range(5):
        store.add(film(f"f{i}", client="ab"[i % 2]), b"")
    assert [f.id for f in store.page(client=None, limit=2)] == ["f4", "f3"]
    assert [f.id for f in store.page(client=None, limit=9, after="f3")] == ["f2", "f1", "f0"]
    assert [f.id for f in store.page(client="a", limit=9, newest=False)] == ["f0", "f2", "f4"]
    assert [f.id for f in store.page(client="a", limit=9, after="f2", newest=False)] == ["f4"]
    assert store.page(client=None, limit=9, after="nothing") == []
    assert (store.waiting("b"), store.waiting()) == (2, 5)
    assert store.counts() == {"queued": 5}


def test_removed_films_leave_nothing(store: FilmStore) -> None:
    store.add(film("one"), b"picture")
    (store.folder / "nobody").mkdir()
    store.remove("one")
    store.remove("one")
    assert store.find("one") is None
    store.recover(NOW)
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == []


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError):
        FilmStore(tmp_path / "file")
    (tmp_path / "films.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError):
        FilmStore(tmp_path)


def test_a_reel_goes_on_behind_what_counts(tmp_path: Path) -> None:
    reel = Reel(tmp_path, 16)
    reel.go_on()
    first, second = pictures(9), pictures(12, seed=1)
    places = [reel.append(first, b"left by 0"), reel.append(second, b"left by 1")]
    whole = (tmp_path / FILM).read_bytes()
    again = Reel(tmp_path, 16, places=places[:1], frames=9)  # the second one did not count
    again.go_on()
    assert again.kept(1) == [b"left by 0"] and again.kept(2) == []
    assert again.append(second, b"left by 1") == places[1]
    assert (tmp_path / FILM).read_bytes() == whole
    for number, picture in enumerate(np.concatenate([first, second])):
        assert psnr(again.picture(number), picture) > 36
    for number in (-1, 21):
        with pytest.raises(ShapeError):
            again.picture(number)
    os.truncate(tmp_path / FILM, 10)
    with pytest.raises(ShapeError):
        Reel(tmp_path, 16, places=places, frames=21).go_on()

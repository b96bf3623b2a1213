"""The queue on the disk: one SQLite file that one process owns, and a folder for each film.

Every change is one transaction, written through to the disk. The file is held locked for as long as
it is open: a second server on it is refused, so no film is ever made twice at the same time, and
the lock is the system's, so it is gone with the process however that ends. What was in progress
then is queued again, first in line. Not thread-safe; every method may wait for the disk.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from worldline.core.errors import CapacityError, ConfigError
from worldline.server.films.film import Film, Status, Wish

DATABASE: Final = "films.sqlite"
START: Final = "start"  # the picture, as it came
WORK: Final = "work"  # what the engine keeps there while it makes a film
MOST_BARREN: Final = 3  # attempts without a new chunk
INTERRUPTED: Final = "interrupted"
_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS films (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    wish BLOB NOT NULL,
    fps INTEGER NOT NULL,
    seconds TEXT NOT NULL,
    chunks INTEGER NOT NULL DEFAULT 0,
    frames INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    barren INTEGER NOT NULL DEFAULT 0,
    weights TEXT NOT NULL DEFAULT '',
    code TEXT,
    message TEXT
);
CREATE INDEX IF NOT EXISTS films_by_status ON films (status, number);
CREATE TABLE IF NOT EXISTS chunks (
    film TEXT NOT NULL,
    number INTEGER NOT NULL,
    first INTEGER NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    kept_start INTEGER NOT NULL,
    kept_size INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (film, number)
);
"""
_FIELDS: Final = Film.__struct_fields__


class ChunkPlace(msgspec.Struct, frozen=True):
    """Where one chunk of a film lies: its first picture, its bytes, and those of what it left.

    `digest` is that of its pictures as they were generated (`core.walk.frames_digest`).
    """

    number: int
    first: int
    start: int
    size: int
    kept_start: int
    kept_size: int
    digest: bytes = b""


class FilmStore:
    """All films of one folder."""

    def __init__(self, folder: Path) -> None:
        """Open or make the folder. Raises: ConfigError when it cannot be used, or is in use."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                folder / DATABASE, timeout=0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigError("films cannot be kept there", got=f"{folder}: {error}") from None
        try:
            self._begin()
        except sqlite3.Error as error:
            self._db.close()
            raise ConfigError(
                "films cannot be kept there",
                expected="a folder that no other server uses",
                got=f"{folder}: {error}",
            ) from None
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise ConfigError("films of a later version", expected=f"at most {_VERSION}")
        with self._transaction():  # takes the lock, for as long as the file is open
            for statement in _TABLES.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Give the folder up."""
        self._db.close()

    def recover(self, now: float) -> list[Film]:
        """After a start: what was in progress is queued again, or has failed too often.

        Returns the failed ones. Folders that belong to no film are removed, and what only making a
        film takes of those that have ended.
        """
        with self._transaction():
            rows = self._db.execute("SELECT id FROM films WHERE status = 'in_progress'").fetchall()
            failed = [film for (id,) in rows if (film := self._put_back(id, now)) is not None]
        ended = dict(self._db.execute("SELECT id, ended IS NOT NULL FROM films").fetchall())
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in ended:
                shutil.rmtree(path, ignore_errors=True)
            elif ended.get(path.name):
                self.tidy(path.name)
        return failed

    def add(self, film: Film, picture: bytes) -> Film:
        """A new film at the end of the line, on the disk when this returns; `number` is given."""
        folder = self.folder / film.id
        folder.mkdir()
        try:
            _write_through(folder / START, picture)
            _sync_folder(folder)
            _sync_folder(self.folder)
            names = [name for name in _FIELDS if name != "number"]
            values = [_to_column(getattr(film, name)) for name in names]
            marks = ", ".join("?" * len(names))
            with self._transaction():
                self._db.execute(f"INSERT INTO films ({', '.join(names)}) VALUES ({marks})", values)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise CapacityError("the film cannot be kept", got=error.strerror) from None
            raise
        return self._get(film.id)

    def find(self, id: str) -> Film | None:
        """A film, if there is one of that id."""
        row = self._select("WHERE id = ?", [id])
        return row[0] if row else None

    def page(
        self, *, client: str | None, limit: int, after: str | None = None, newest: bool = True
    ) -> list[Film]:
        """Up to `limit` films behind `after`, of one client or (None) of all."""
        wanted, values = ["1"], list[Any]()
        if client is not None:
            wanted.append("client = ?")
            values.append(client)
        if after is not None:
            sign = "<" if newest else ">"
            wanted.append(f"number {sign} (SELECT number FROM films WHERE id = ?)")
            values.append(after)
        order = "DESC" if newest else "ASC"
        where = f"WHERE {' AND '.join(wanted)} ORDER BY number {order} LIMIT ?"
        return self._select(where, [*values, limit])

    def counts(self) -> dict[Status, int]:
        """How many films there are by status."""
        rows = self._db.execute("SELECT status, COUNT(*) FROM films GROUP BY status")
        return dict(rows.fetchall())

    def waiting(self, client: str | None = None) -> int:
        """How many films are not made yet, of one client or of all."""
        mine, values = ("", []) if client is None else (" AND client = ?", [client])
        found = self._db.execute(
            f"SELECT COUNT(*) FROM films WHERE status IN ('queued', 'in_progress'){mine}", values
        )
        return int(found.fetchone()[0])

    def place(self, film: Film) -> int:
        """How many queued films come before this one."""
        found = self._db.execute(
            "SELECT COUNT(*) FROM films WHERE status = 'queued' AND model = ? AND number < ?",
            [film.model, film.number],
        )
        return int(found.fetchone()[0])

    def take(self, model: str, weights: str, now: float) -> Film | None:
        """Begin, or go on with, the first film in line for this model; None: there is none.

        Chunks that other weights made are forgotten: the film begins again.
        """
        with self._transaction():
            found = self._select(
                "WHERE status = 'queued' AND model = ? ORDER BY started IS NULL, number LIMIT 1",
                [model],
            )
            if not found:
                return None
            film = found[0]
            if film.chunks and film.weights != weights:
                self._forget_chunks(film.id)
            self._db.execute(
                "UPDATE films SET status = 'in_progress', started = COALESCE(started, ?),"
                " barren = barren + 1, weights = ? WHERE id = ?",
                [now, weights, film.id],
            )
        return self._get(film.id)

    def made(self, id: str, place: ChunkPlace, frames: int) -> Film:
        """One more chunk is on the disk, `frames` pictures in all."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [id, *msgspec.structs.astuple(place)],
            )
            self._db.execute(
                "UPDATE films SET chunks = ?, frames = ?, bytes = ?, barren = 0 WHERE id = ?",
                [place.number + 1, frames, place.start + place.size, id],
            )
        return self._get(id)

    def begin_again(self, id: str) -> Film:
        """Forget the chunks: they cannot be gone on from."""
        with self._transaction():
            self._forget_chunks(id)
        return self._get(id)

    def end(
        self, id: str, status: Status, now: float, *, code: str | None = None, message: str = ""
    ) -> Film | None:
        """The film has ended so, if it has not ended before; returns it, if it is still there."""
        with self._transaction():
            self._db.execute(
                "UPDATE films SET status = ?, ended = ?, code = ?, message = ?"
                " WHERE id = ? AND status IN ('queued', 'in_progress')",
                [status, now, code, message or None, id],
            )
        return self.find(id)

    def put_back(self, id: str, now: float, *, blameless: bool = False) -> Film | None:
        """It could not be gone on with now: first in line again, or failed after many attempts.

        A `blameless` attempt does not count.
        """
        with self._transaction():
            if blameless:
                self._db.execute("UPDATE films SET barren = MAX(barren - 1, 0) WHERE id = ?", [id])
            self._put_back(id, now)
        return self.find(id)

    def chunks(self, id: str) -> Sequence[ChunkPlace]:
        """Where the chunks of a film lie, in order."""
        rows = self._db.execute(
            "SELECT number, first, start, size, kept_start, kept_size, digest FROM chunks"
            " WHERE film = ? ORDER BY number",
            [id],
        )
        return [ChunkPlace(*row) for row in rows]

    def remove(self, id: str) -> None:
        """Forget a film and its files; one that is not there is no error."""
        with self._transaction():
            self._db.execute("DELETE FROM chunks WHERE film = ?", [id])
            self._db.execute("DELETE FROM films WHERE id = ?", [id])
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder / id)

    def tidy(self, id: str) -> None:
        """Nobody makes this film any more: what only that took is removed."""
        shutil.rmtree(self.folder / id / WORK, ignore_errors=True)

    def expire(self, *, before: float, most_bytes: int) -> None:
        """Forget films that ended before a moment, and the oldest ended ones beyond a size.

        The one that ended last is left: somebody is about to fetch it.
        """
        for (id,) in self._db.execute("SELECT id FROM films WHERE ended < ?", [before]).fetchall():
            self.remove(id)
        ended = "SELECT id FROM films WHERE ended IS NOT NULL ORDER BY ended"
        for (id,) in self._db.execute(ended).fetchall()[:-1]:
            if self.total_bytes() <= most_bytes:
                return
            self.remove(id)

    def total_bytes(self) -> int:
        """Bytes of all films."""
        return int(self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM films").fetchone()[0])

    def _put_back(self, id: str, now: float) -> Film | None:
        """Inside a transaction; returns the film if it has failed."""
        film = self._get(id)
        if film.status != "in_progress":
            return None
        if film.barren < MOST_BARREN:
            self._db.execute("UPDATE films SET status = 'queued' WHERE id = ?", [id])
            return None
        message = f"the server ended {film.barren} times before chunk {film.chunks} was made"
        self._db.execute(
            "UPDATE films SET status = 'failed', ended = ?, code = ?, message = ? WHERE id = ?",
            [now, INTERRUPTED, message, id],
        )
        return self._get(id)

    def _forget_chunks(self, id: str) -> None:
        self._db.execute("DELETE FROM chunks WHERE film = ?", [id])
        self._db.execute("UPDATE films SET chunks = 0, frames = 0, bytes = 0 WHERE id = ?", [id])

    def _get(self, id: str) -> Film:
        film = self.find(id)
        assert film is not None, f"film {id} is not in the queue"
        return film

    def _select(self, where: str, values: Sequence[Any]) -> list[Film]:
        rows = self._db.execute(f"SELECT {', '.join(_FIELDS)} FROM films {where}", values)
        return [_to_film(row) for row in rows]

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """All of it or nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.execute("COMMIT" if error is None else "ROLLBACK")


def _to_column(value: object) -> Any:
    return msgspec.msgpack.encode(value) if isinstance(value, Wish) else value


def _to_film(row: Sequence[Any]) -> Film:
    values = dict(zip(_FIELDS, row, strict=True))
    values["wish"] = msgspec.msgpack.decode(values["wish"], type=Wish)
    return Film(**values)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """New names in a folder reach the disk; nothing where the system cannot open folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

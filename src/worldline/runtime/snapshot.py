"""Snapshots of a session, and travelling along its timeline.

A `Snapshot` is exact: a moment of the session and what it knew of its walk. It can be restored into
the session it was taken of, into any other of the same kind, or written to disk. Light ones are
`core.snapshot.LightSnapshot`, see `snapshot_light`. Functions here take a session that is not
stepped meanwhile; those that may take long are generators, and what they give is known at the end.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from worldline.core.camera import Intrinsics
from worldline.core.errors import OtherWeightsError, SnapshotError
from worldline.core.motion import Rig
from worldline.core.snapshot import LightSnapshot
from worldline.models.preset import RuntimeParams
from worldline.runtime import levers, moment, parking, snapshot_light
from worldline.runtime.assembly import ring_params
from worldline.runtime.film import LatentFilm
from worldline.runtime.moment import Moment
from worldline.runtime.paged_ring import PagedRing, needed_frames
from worldline.runtime.parking import bytes_there
from worldline.runtime.protocol import Rebuilt
from worldline.runtime.replay import History
from worldline.runtime.shared import Engine
from worldline.runtime.state import Geometry, SessionState
from worldline.runtime.step_cache import StepCache
from worldline.runtime.timeline import Record, Timeline
from worldline.sampling.schedules import Schedule


class Kind(NamedTuple):
    """What two sessions must have in common, so that one can stand where the other stood."""

    weights: str
    geometry: Geometry
    settings: RuntimeParams
    intrinsics: Intrinsics
    rig: Rig
    ring: str
    dtype: str

    @classmethod
    def of(cls, engine: Engine, state: SessionState) -> Kind:
        """That of a session."""
        places = (state.geometry, state.settings, state.intrinsics, state.rig)
        return cls(engine.weights, *places, ring_name(engine), str(engine.dit.dtype))

    def check(self, other: Kind) -> None:
        """Raise `OtherWeightsError` or `SnapshotError` unless a snapshot of `other` fits."""
        if self.weights != other.weights:
            raise OtherWeightsError(
                "a snapshot made with other weights", expected=self.weights, got=other.weights
            )
        for name, mine, theirs in zip(self._fields, self, other, strict=True):
            if mine != theirs:
                raise SnapshotError(f"a snapshot of another {name}", expected=mine, got=theirs)


def ring_name(engine: Engine) -> str:
    """How keys and values are kept, and by how many."""
    return f"{engine.ring_kind.__name__} of {engine.shards.ranks}"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A session between two chunks, bit for bit, with all that it knew of its walk."""

    kind: Kind
    moment: Moment
    timeline: Timeline
    film: LatentFilm | None = None

    @property
    def next_chunk(self) -> int:
        """The chunk that comes next."""
        return self.moment.next_chunk

    @property
    def nbytes(self) -> int:
        """Bytes of the moment, shared or not; the timeline not counted."""
        return self.moment.nbytes


def snapshotting(engine: Engine, state: SessionState) -> Generator[None, None, Snapshot]:
    """Take a snapshot, page by page."""
    taken = yield from moment.taking(engine, state)
    film = None if state.film is None else state.film.copy()
    return Snapshot(Kind.of(engine, state), taken, timeline_of(state).copy(), film)


def restoring(engine: Engine, state: SessionState, snapshot: Snapshot) -> Iterator[None]:
    """Let a session stand where a snapshot was taken. Raises what `Kind.check` raises, first."""
    Kind.of(engine, state).check(snapshot.kind)
    yield from moment.standing(engine, state, snapshot.moment)
    state.timeline = snapshot.timeline.copy()
    if state.film is not None:
        state.film = LatentFilm() if snapshot.film is None else snapshot.film.copy()
    if state.parked:
        engine.ledger.park(state.session_id, bytes_there(state))


def note(engine: Engine, state: SessionState) -> None:
    """Keep the moment in which a session stands, if that is to be kept and is not yet.

    All sessions that are open share the room for moments evenly.
    """
    timeline = timeline_of(state)
    if not timeline.keeps_moments or state.next_chunk == 0 or timeline.knows(state.next_chunk):
        return
    room = engine.timeline_bytes // max(1, len(engine.sessions))
    if moment.bytes_to_take(state) <= room:
        timeline.keep(moment.take(engine, state), room)


def rewinding(engine: Engine, state: SessionState, chunk: int) -> Generator[None, None, Rebuilt]:
    """Go back to before `chunk`; returns how, see `protocol.Rebuilt`.

    Raises `SnapshotError` for a place that is not kept, before anything has changed.
    """
    check_place(state, chunk)
    if chunk == state.next_chunk:
        return ""
    return (yield from _going(engine, state, chunk, of=state))


def branching(
    engine: Engine, state: SessionState, other: SessionState, chunk: int | None
) -> Generator[None, None, Rebuilt]:
    """Let `other`, a `twin` of a session, stand where that does, or before an earlier `chunk`.

    Raises as `rewinding`.
    """
    if chunk is not None:
        check_place(state, chunk)
    if chunk is not None and chunk < state.next_chunk:
        return (yield from _going(engine, other, chunk, of=state))
    snapshot = yield from snapshotting(engine, state)
    yield from restoring(engine, other, snapshot)
    return ""


def twin(engine: Engine, state: SessionState, session_id: str) -> SessionState:
    """Another session of the same kind, away from the device, that holds nothing of its own yet."""
    values = moment.moved(moment.values_of(state), moment.HOST)
    made = replace(
        state,
        session_id=session_id,
        kv=PagedRing(state.kv.params, state.kv.dtype),
        image=values.image,
        origin=values.origin,
        past=None if state.past is None else History(),
        caches=StepCache(off=engine.without),
        film=None if state.film is None else LatentFilm(),
        timeline=None if state.timeline is None else state.timeline.copy(),
        parked=True,
    )
    made.begin_again(None)
    engine.ledger.enter(session_id, bytes_there(made), engine.ledger.planned(state.session_id))
    return made


def standing_at(
    engine: Engine, state: SessionState, light: LightSnapshot
) -> Generator[None, None, Rebuilt]:
    """Let a session that has just begun stand where a light snapshot was taken.

    Raises `OtherWeightsError`, `SnapshotError`, before anything has changed.
    """
    snapshot_light.check_fits(engine, state, light)
    records = [snapshot_light.record_of(one, state.geometry.latent) for one in light.chunks]
    said = snapshot_light.Said(engine, state.origin.prompt)
    for prompt in (light.prompt, *(record.prompt for record in records)):
        said.states(prompt)  # what cannot be said is found before anything has changed
    yield from parking.unparking(engine, state)
    state.begin_again(light.seed)
    if light.is_whole:
        yield from snapshot_light.walking(engine, state, records)
        return _walked(engine, records)
    yield from snapshot_light.rebuilding(engine, state, light, records)
    state.film = None  # its beginning is not there
    for record in records:
        timeline_of(state).append(record)
    return "window"


def resumed(
    engine: Engine, snapshot: Snapshot, *, schedule: Schedule, planned: int
) -> SessionState:
    """A session of the snapshot's kind, where it was taken, away from the device."""
    kind, there = snapshot.kind, snapshot.moment
    values = moment.moved(there.values, moment.HOST)
    state = SessionState(
        session_id=uuid.uuid4().hex,
        geometry=kind.geometry,
        settings=kind.settings,
        schedule=schedule,
        intrinsics=kind.intrinsics,
        rig=kind.rig,
        origin=values.origin,
        noise=there.noise,
        image=values.image,
        prompt=values.prompt,
        caches=StepCache(off=engine.without),
        past=History() if engine.recache else None,
        film=None if snapshot.film is None else LatentFilm(),
        timeline=snapshot.timeline.copy(),
        kv=PagedRing(ring_params(engine, kind.geometry, kind.settings), engine.dit.dtype),
        parked=True,
    )
    Kind.of(engine, state).check(kind)
    check_rows(engine, state, there)
    engine.ledger.enter(state.session_id, {}, planned)
    for _ in restoring(engine, state, snapshot):
        pass
    return state


def check_rows(engine: Engine, state: SessionState, there: Moment) -> None:
    """Raise `SnapshotError` unless frames are as a ring of the session has them."""
    one = state.kv.params._replace(window=1, sink=0)
    ring = engine.ring_kind(one, dtype=engine.dit.dtype, device="meta")
    wanted = [(row.shape, row.dtype) for row in ring.buffers()]
    frames = needed_frames(state.kv, there.end, state.settings.chunk)
    if [page.frame for page in there.pages] != frames:
        raise SnapshotError("a snapshot with other frames than it needs", expected=frames)
    for page in there.pages:
        if [(row.shape, row.dtype) for row in page.rows] != wanted:
            raise SnapshotError("a snapshot with frames of another shape", got=page.frame)


def count_moments(engine: Engine) -> tuple[int, int]:
    """How many places sessions can go back to at once, and the bytes of these, shared ones once."""
    number, held = 0, dict[int, int]()
    for session in engine.sessions:
        timeline = timeline_of(session.state)
        number += len(timeline.moments)
        held.update(timeline.held)
    return number, sum(held.values())


def timeline_of(state: SessionState) -> Timeline:
    """That of a session of a world."""
    assert state.timeline is not None, "every session of a world has one"
    return state.timeline


def check_place(state: SessionState, chunk: int) -> None:
    """Raise `SnapshotError` unless a session has stood before `chunk`."""
    if not 0 <= chunk <= state.next_chunk:
        expected = f"0 to {state.next_chunk}"
        raise SnapshotError("no such place in the walk", expected=expected, got=chunk)


def _going(
    engine: Engine, state: SessionState, chunk: int, *, of: SessionState
) -> Generator[None, None, Rebuilt]:
    """Let a session stand before `chunk` of the walk of `of`, which is itself or another."""
    timeline, film = timeline_of(of).copy(), None if of.film is None else of.film.copy()
    base = timeline.moment_before(chunk)
    first = 0 if base is None else base.next_chunk
    records = timeline.between(first, chunk)
    light = None
    if records is None:
        light = snapshot_light.light_at(engine, of, chunk)  # raises where too little is left
        first = chunk
    if records != []:
        yield from parking.unparking(engine, state)
    timeline.cut(first)
    if film is not None:
        film.cut(first)
    if light is not None:
        yield from snapshot_light.rebuilding(engine, state, light, timeline.needed(chunk))
    elif base is None:
        state.begin_again(None)
    else:
        yield from moment.standing(engine, state, base)
    state.timeline, state.film = timeline, film
    if records is None:
        return "window"
    yield from snapshot_light.walking(engine, state, records)
    if state.parked:
        engine.ledger.park(state.session_id, bytes_there(state))
    return _walked(engine, records)


def _walked(engine: Engine, records: Sequence[Record]) -> Rebuilt:
    """What walking a part again has given."""
    if not records:
        return ""
    return "window" if levers.LAST_STEP_KV in engine.levers else "exact"

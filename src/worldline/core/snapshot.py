"""Light snapshots: all of a world that its next chunk needs and nobody can compute again.

Latents, controls, texts and the seed of the chunks that window, sink and decoder still reach back
to: kilobytes for the pocket world. An engine with the same weights rebuilds the rest by context
passes. While no chunk has left it (`is_whole`) what it rebuilds is exact, bit for bit; later the
window is made from what it holds itself, which is near the old one and not the same.

Everything here is a value: a chunk that was made gives the next snapshot (`with_chunk`), and older
ones stay what they are. Knows nothing about torch. Sizes are checked before anything is made.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from worldline.core.errors import SnapshotError
from worldline.core.motion import START_POSE, Pose
from worldline.core.sealed import seal, unseal

MAGIC: Final = b"WLLIGHT\n"
VERSION: Final = 1
LATENT_CHANNELS: Final = 16
FLOAT: Final = 4  # bytes
GROWING: Final = -1  # a window that keeps everything
MAX_BYTES: Final = 2**30
MAX_SIDE: Final = 16384  # pixels
MAX_FRAMES: Final = 2**20  # latent frames in a chunk, a window, a sink
MAX_WORDS: Final = 64  # texts that blends were begun between, one inside the other


class Reach(NamedTuple):
    """How far back a world reaches, in latent frames; see `LightSnapshot`."""

    chunk: int
    window: int
    sink: int
    history: int

    def has(self, index: int, end: int) -> bool:
        """Whether a world that stands at latent frame `end` still needs chunk `index`."""
        if self.window == GROWING or index * self.chunk < self.sink:
            return True
        return (index + 1) * self.chunk > end - max(self.window - self.sink, self.history)


class LightPrompt(msgspec.Struct, frozen=True, array_like=True):
    """The text in force, as it was said.

    It heads for `heading`; of `blend_chunks` chunks so many are `blended`. The blend began at
    `source`: the first text, then each next one mixed in by its share. `rows` of the text's states
    are not zero; None where nobody knows.
    """

    heading: str
    source: tuple[tuple[str, float], ...] = ()
    blend_chunks: int = 0
    blended: int = 0
    rows: int | None = None

    @property
    def mix(self) -> tuple[tuple[str, float], ...]:
        """The texts in force now, as `source` names them."""
        if self.blended >= self.blend_chunks:
            return ((self.heading, 1.0),)
        if self.blended == 0:
            return self.source
        return (*self.source, (self.heading, self.blended / self.blend_chunks))

    def switched(self, heading: str, blend_chunks: int, rows: int | None) -> LightPrompt:
        """Another text from now on, or headed for over so many chunks."""
        if blend_chunks <= 0:
            return LightPrompt(heading, rows=rows)
        source = self.mix[-MAX_WORDS:]  # of more, the oldest have long been mixed away
        return LightPrompt(heading, source, blend_chunks, 0, rows)

    def check(self) -> None:
        """Raise `SnapshotError` unless it can be said."""
        counts = (self.blend_chunks, self.blended, self.rows or 0)
        blending = self.blended < self.blend_chunks
        shares = [share for _, share in self.source]
        fits = min(counts) >= 0 and len(self.source) <= MAX_WORDS and (self.source or not blending)
        if not fits or not all(math.isfinite(share) for share in shares):
            raise SnapshotError("a light snapshot holds a text that cannot be", got=self)


class LightChunk(msgspec.Struct, frozen=True, kw_only=True):
    """What one chunk adds. Numbers are float32, little-endian, in C order.

    `latents` `[16, T, h, w]` are clean; `relative` `[T, 4, 4]` and `keys` `[T, 4]` are the controls
    as the network saw them, `poses` where the camera was at each latent frame. `anchor` is the
    latent frame from which its passes counted time, `sink_shift` how far the sink was moved.
    """

    index: int
    frames: int
    latents: bytes
    relative: bytes
    keys: bytes
    poses: tuple[Pose, ...]
    prompt: LightPrompt
    anchor: int = 0
    sink_shift: int = 0

    @property
    def span(self) -> range:
        """Absolute latent frames."""
        return range(self.index * self.frames, (self.index + 1) * self.frames)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return len(self.latents) + len(self.relative) + len(self.keys)

    def encode(self) -> bytes:
        """As bytes, for `decode_chunk`."""
        return msgspec.msgpack.encode(self)


class LightSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A world before chunk `next_chunk`; see the module's contract.

    `width` and `height` are pixels; `chunk`, `window`, `sink` latent frames, window -1 keeps all;
    `history` are the latent frames that the decoder is run over again. `weights` name those it was
    made with. With `everything` no chunk ever leaves.
    """

    weights: str
    seed: int
    width: int
    height: int
    chunk: int
    window: int
    sink: int
    history: int
    prompt: LightPrompt
    next_chunk: int = 0
    anchor: int = 0
    sink_shift: int = 0
    camera: Pose = START_POSE
    chunks: tuple[LightChunk, ...] = ()
    everything: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every chunk since the start is there: what is rebuilt is then exact."""
        return len(self.chunks) == self.next_chunk

    @property
    def nbytes(self) -> int:
        """Bytes of the chunks' numbers."""
        return sum(chunk.nbytes for chunk in self.chunks)

    def with_chunk(self, chunk: LightChunk) -> LightSnapshot:
        """The world after one more chunk; what nothing reaches back to is left out.

        Raises `SnapshotError` for a chunk that is not the next one of this world.
        """
        self.check_chunk(chunk)
        if chunk.index != self.next_chunk:
            raise SnapshotError("not the next chunk", expected=self.next_chunk, got=chunk.index)
        following = chunk.index + 1
        return msgspec.structs.replace(
            self,
            next_chunk=following,
            anchor=chunk.anchor,
            sink_shift=chunk.sink_shift,
            camera=chunk.poses[-1],
            prompt=chunk.prompt,
            chunks=tuple(self._reached((*self.chunks, chunk), following * self.chunk)),
        )

    def trimmed(self) -> LightSnapshot:
        """The same place with no more than is reached back to: smaller, perhaps not whole."""
        light = msgspec.structs.replace(self, everything=False)
        reached = light._reached(light.chunks, light.next_chunk * light.chunk)
        return msgspec.structs.replace(light, chunks=tuple(reached))

    def before(self, chunk: int, start: LightSnapshot) -> LightSnapshot | None:
        """The same walk before an earlier chunk, if all it takes is there.

        `start` is this world's snapshot before chunk 0.
        """
        kept = [one for one in self.chunks if one.index < chunk]
        if not 0 <= chunk <= self.next_chunk or len(kept) != chunk:
            return None
        found = msgspec.structs.replace(start, everything=self.everything)
        for one in kept:
            found = found.with_chunk(one)
        return found

    def encode(self) -> bytes:
        """As bytes with a checksum, for `decode_snapshot`."""
        return seal(MAGIC, VERSION, msgspec.msgpack.encode(self))

    def check(self) -> None:
        """Raise `SnapshotError` unless it can have come from a world."""
        sides, frames = (self.width, self.height), (self.chunk, self.sink, self.history)
        fits = all(0 < side <= MAX_SIDE and side % 16 == 0 for side in sides)
        fits = fits and all(0 <= count <= MAX_FRAMES for count in frames) and self.chunk > 0
        if self.window != GROWING:
            fits = fits and self.sink + self.chunk <= self.window <= MAX_FRAMES
        if not fits or not 0 <= self.next_chunk <= 2**53 // self.chunk or abs(self.seed) > 2**63:
            raise SnapshotError("a light snapshot of a world that cannot be", got=_sizes(self))
        self.prompt.check()
        _check_pose(self.camera)
        for chunk in self.chunks:
            self.check_chunk(chunk)
        self._check_places()

    def _check_places(self) -> None:
        """Chunks in order, and all that are needed."""
        places = [chunk.index for chunk in self.chunks]
        inside = not places or (places[0] >= 0 and places[-1] < self.next_chunk)
        ordered = all(a < b for a, b in pairwise(places))
        there = sum(self._reaches(place, self.next_chunk * self.chunk) for place in places)
        if not inside or not ordered or there != self._needed():
            raise SnapshotError("chunks of a light snapshot are missing or out of order")

    def _needed(self) -> int:
        """How many chunks a world that stands here reaches back to."""
        if self.everything or self.window == GROWING:
            return self.next_chunk
        sink = -(-self.sink // self.chunk)
        back = max(self.window - self.sink, self.history)
        first = max(0, self.next_chunk * self.chunk - back) // self.chunk
        return min(sink, self.next_chunk) + max(0, self.next_chunk - max(first, sink))

    def check_chunk(self, chunk: LightChunk) -> None:
        """Raise `SnapshotError` unless a chunk has the sizes of this world."""
        cells = (self.width // 8) * (self.height // 8)
        sizes = [LATENT_CHANNELS * cells, 16, 4]
        wanted = [self.chunk * size * FLOAT for size in sizes]
        found = [len(part) for part in (chunk.latents, chunk.relative, chunk.keys)]
        if chunk.frames != self.chunk or found != wanted or len(chunk.poses) != self.chunk:
            raise SnapshotError("a chunk of another size", expected=wanted, got=found)
        chunk.prompt.check()
        for pose in chunk.poses:
            _check_pose(pose)
        controls = chunk.relative + chunk.keys
        if not all(
            math.isfinite(x) for x in struct.unpack(f"<{len(controls) // FLOAT}f", controls)
        ):
            raise SnapshotError("controls that are no finite numbers", got=f"chunk {chunk.index}")

    def _reached(self, chunks: tuple[LightChunk, ...], end: int) -> Iterator[LightChunk]:
        return (chunk for chunk in chunks if self._reaches(chunk.index, end))

    def _reaches(self, index: int, end: int) -> bool:
        reach = Reach(self.chunk, self.window, self.sink, self.history)
        return self.everything or reach.has(index, end)


def decode_snapshot(data: bytes | memoryview) -> LightSnapshot:
    """The snapshot in `data`, checked. Raises `SnapshotError`."""
    body = unseal(data, magic=MAGIC, version=VERSION, limit=MAX_BYTES, what="light snapshot")
    try:
        snapshot = msgspec.msgpack.decode(body, type=LightSnapshot)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotError("a light snapshot that cannot be read", got=error) from None
    snapshot.check()
    return snapshot


def decode_chunk(data: bytes) -> LightChunk:
    """The chunk in `data`; `with_chunk` checks it. Raises `SnapshotError`."""
    try:
        return msgspec.msgpack.decode(data, type=LightChunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SnapshotError("a chunk of a light snapshot that cannot be read", got=error) from None


def chunk_back(next_chunk: int, seconds: float, *, chunk: int, fps: float) -> int:
    """The chunk that a world before `next_chunk` stands at when `seconds` are taken back.

    The nearest place at least so far back; a chunk is `4 * chunk` pictures at `fps`. Raises
    `SnapshotError` for a time that is negative or no number.
    """
    if not 0 <= seconds < math.inf:
        raise SnapshotError("cannot go back so far", expected="seconds, 0 or more", got=seconds)
    return max(0, next_chunk - math.ceil(seconds * fps / (4 * chunk) - 1e-9))


def _check_pose(pose: Pose) -> None:
    numbers = (*pose.c2w, pose.yaw, pose.pitch)
    if len(pose.c2w) != 12 or not all(math.isfinite(number) for number in numbers):
        raise SnapshotError("a pose that is none", expected="3 x 4 finite numbers", got=pose)


def _sizes(one: LightSnapshot) -> str:
    return f"{one.width}x{one.height}, {one.chunk}/{one.window}/{one.sink}, {one.next_chunk}"

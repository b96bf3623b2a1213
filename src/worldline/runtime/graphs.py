"""Passes recorded once and replayed: Python launches one graph in place of thousands of kernels.

A graph reads and writes fixed addresses. Rings never move; everything else that a pass takes is
copied into static places, and only when it has changed: camera and positions once per chunk, text
once per prompt. There is one graph per kind of pass, ring, fill level and size, and, once the ring
is full, one for ever. The kernels are those that would have been launched, so no bit changes.

Knows no CUDA: what records is a `GraphBackend`.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from worldline.models.lingbot.blocks import CameraModulation
from worldline.models.lingbot.dit import TimeTables
from worldline.runtime.kv_cache import FrameRing
from worldline.runtime.passes import ChunkInputs, Passes
from worldline.runtime.tree import map_tensors, signature, tensors_of

T = TypeVar("T")
CAPACITY = 64  # graphs; a window of 18 with chunks of 3 needs 13 per ring
# Largest difference of a replay from the run it was recorded after, of the largest value: some
# kernels add up in another order every time, a graph with a wrong address is off by far more.
TOLERANCE = 1e-2


class Recorded(NamedTuple):
    """A graph: `replay` runs it, which writes `output` anew."""

    replay: Callable[[], None]
    output: Any


class GraphBackend(Protocol):
    """What makes graphs; a fake one in tests."""

    def record(self, run: Callable[[], Any]) -> Recorded:
        """Record `run`, which reads and writes the same addresses every time."""
        ...


class CudaGraphs:
    """CUDA graphs that share one pool of memory: they are never replayed at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], Any]) -> Recorded:
        """See `GraphBackend`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = run()
        return Recorded(graph.replay, output)


class _Place(NamedTuple):
    tensor: Tensor
    source: weakref.ref[Tensor]
    version: int

    def holds(self, tensor: Tensor) -> bool:
        return self.source() is tensor and self.version == tensor._version


class Places:
    """Static tensors by name and shape, written when what they are to hold has changed.

    `written` counts the tensors that were copied.
    """

    def __init__(self) -> None:
        self._places: dict[Hashable, _Place] = {}
        self.written = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """Bytes of all places."""
        return sum(place.tensor.nbytes for place in self._places.values())

    def hold(self, name: str, value: T, own: Callable[[Tensor], bool]) -> tuple[T, set[Hashable]]:
        """`value` with every tensor in its place, and the keys of those places.

        A tensor of which `own` says that it is static already stays where it is.
        """
        used: set[Hashable] = set()
        targets, sources = list[Tensor](), list[Tensor]()
        numbers = iter(range(1 << 30))

        def placed(tensor: Tensor) -> Tensor:
            number = next(numbers)
            if own(tensor):
                return tensor
            key = (name, number, tensor.shape, tensor.dtype, tensor.device)
            used.add(key)
            place = self._places.get(key)
            if place is not None and place.holds(tensor):
                return place.tensor
            target = torch.empty_like(tensor) if place is None else place.tensor
            targets.append(target)
            sources.append(tensor)
            self._places[key] = _Place(target, weakref.ref(tensor), tensor._version)
            return target

        held = map_tensors(value, placed)
        if targets:
            torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage]
            self.written += len(targets)
        return held, used

    def drop_all_but(self, used: set[Hashable]) -> None:
        """Forget the places that no graph uses any more."""
        self._places = {key: place for key, place in self._places.items() if key in used}


class _Graph(NamedTuple):
    recorded: Recorded
    places: set[Hashable]
    reads: tuple[Tensor, ...]  # outputs of other graphs whose addresses are in it
    ring: int | None  # id of the ring whose addresses are in it


class GraphedPasses:
    """`Passes` that record what they are asked for the first time. `built` counts the graphs."""

    def __init__(self, eager: Passes, backend: GraphBackend, *, capacity: int = CAPACITY) -> None:
        self.eager = eager
        self.places = Places()
        self.built = 0
        self._backend = backend
        self._capacity = capacity
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._outputs: dict[int, Tensor] = {}  # of all graphs, by id: static tensors

    def __len__(self) -> int:
        return len(self._graphs)

    def camera(self, embedding: Tensor) -> Sequence[CameraModulation]:
        """See `Passes`; valid until the next call."""
        return self._run("camera", self.eager.camera, embedding)

    def denoise(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> Tensor:
        """See `Passes`."""

        def run(given: tuple[Tensor, TimeTables, ChunkInputs]) -> Tensor:
            return self.eager.denoise(given[0], time=given[1], inputs=given[2], kv=kv)

        return self._run("denoise", run, (x, time, inputs), kv)

    def commit(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> None:
        """See `Passes`."""

        def run(given: tuple[Tensor, TimeTables, ChunkInputs]) -> None:
            self.eager.commit(given[0], time=given[1], inputs=given[2], kv=kv)

        self._run("commit", run, (x, time, inputs), kv)

    def forget(self, kv: FrameRing) -> None:
        """Drop all graphs that hold addresses of a ring: it is going to be freed."""
        self._forget(id(kv))

    def _forget(self, ring: int) -> None:
        for key in [key for key, graph in self._graphs.items() if graph.ring == ring]:
            del self._graphs[key]
        self._tidy()

    def _run(
        self, kind: str, run: Callable[[Any], T], given: Any, kv: FrameRing | None = None
    ) -> T:
        held, places = self.places.hold("inputs", given, self._is_static)
        reads = tuple(t for t in tensors_of(held) if self._is_static(t))
        ring = None if kv is None else (id(kv), kv.aim)
        key = (kind, ring, signature(held), *map(id, reads))
        if key not in self._graphs:
            recorded = self._record(lambda: run(held))
            self._add(key, _Graph(recorded, places, reads, None if kv is None else id(kv)), kv)
        self._graphs.move_to_end(key)
        graph = self._graphs[key]
        graph.recorded.replay()
        return graph.recorded.output

    def _record(self, run: Callable[[], Any]) -> Recorded:
        # Once for real: kernels are compiled, chosen and loaded now, which no graph may do.
        result = run()
        expected = result.clone() if isinstance(result, Tensor) else None
        del result
        recorded = self._backend.record(run)
        if expected is not None:
            recorded.replay()
            _check(expected, recorded.output)
        return recorded

    def _add(self, key: Hashable, graph: _Graph, kv: FrameRing | None) -> None:
        known = {other.ring for other in self._graphs.values()}
        if kv is not None and id(kv) not in known:
            # Also for sessions that nobody closes: another ring may get the same id.
            weakref.finalize(kv, self._forget, id(kv)).atexit = False
        self._graphs[key] = graph
        self.built += 1
        if len(self._graphs) > self._capacity:
            self._graphs.popitem(last=False)
        self._tidy()

    def _is_static(self, tensor: Tensor) -> bool:
        return self._outputs.get(id(tensor)) is tensor

    def _tidy(self) -> None:
        graphs = self._graphs.values()
        outputs = [tensor for graph in graphs for tensor in tensors_of(graph.recorded.output)]
        self._outputs = {id(tensor): tensor for tensor in outputs}
        self.places.drop_all_but({key for graph in graphs for key in graph.places})


def _check(expected: Tensor, output: Tensor) -> None:
    """A graph that computes something else is our own bug, found when it is recorded."""
    off = (expected.float() - output.float()).abs().max()
    assert float(off) <= TOLERANCE * float(expected.float().abs().max()), "a graph went wrong"

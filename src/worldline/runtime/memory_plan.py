"""What sessions will take of the device, before there are any: the numbers behind admission.

Keys, values and tables follow from the configuration. What the autoencoder remembers and what a
chunk takes for itself are found by running the loaded networks on two small pictures: all of it
grows with the area and nothing else, so two sizes give every other. `bench.plan` finds the same
without a model; tests compare both with what is measured.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from worldline.core.config import EngineOptions
from worldline.models.preset import RuntimeParams
from worldline.runtime.loader import Components
from worldline.runtime.memory import Kept, budget_bytes
from worldline.runtime.peak import taken
from worldline.runtime.probe import decoding, encoding, passing, settle
from worldline.runtime.shared import Engine
from worldline.runtime.state import Geometry
from worldline.runtime.weigh import tensors_in, weigh

SMALL, LARGER = Geometry(64, 64), Geometry(128, 64)  # 16 and 32 tokens a latent frame


class _Line(NamedTuple):
    """Bytes as a function of pixels: what it is at two sizes says what it is at every size."""

    small: int
    larger: int

    def at(self, geometry: Geometry) -> int:
        """Bytes for a picture of that size."""
        pixels = [g.width * g.height for g in (SMALL, LARGER, geometry)]
        share = (pixels[2] - pixels[0]) / (pixels[1] - pixels[0])
        return round(self.small + share * (self.larger - self.small))


class MemoryPlan:
    """For sessions of one chunk length on one loaded model. Bytes on the computing device."""

    def __init__(self, components: Components, engine: Engine, options: EngineOptions) -> None:
        """Runs the networks on small pictures; `components` are loaded."""
        self._components, self._engine, self._options = components, engine, options
        self._device = components.dit.device
        self._lines: dict[int, tuple[_Line, _Line, _Line, _Line]] = {}
        self.weights = self._held()
        self.budget = budget_bytes(self._device, self.weights)

    def session(self, settings: RuntimeParams, geometry: Geometry, *, sharded: bool = True) -> int:
        """What a session takes while it is open and not parked.

        In a group of ranks on one of them; not `sharded`, as if it were alone.
        """
        kept = self._kept(settings, geometry, sharded=sharded)
        ring = kept.ring_int8 if self._options.kv == "8bit" else kept.ring
        history = self._probed(settings.chunk)[0].at(geometry)
        picture = 3 * geometry.width * geometry.height * torch.float32.itemsize
        return ring + kept.prompt + kept.tables + history + picture

    def workspace(self, settings: RuntimeParams, geometry: Geometry) -> int:
        """The most that the one chunk in flight takes beyond that.

        Of many ranks as if alone: a session may ask not to be shared out.
        """
        kept, dit = self._kept(settings, geometry, sharded=False), self._components.dit
        _, decode, encode, run = (line.at(geometry) for line in self._probed(settings.chunk))
        if self._options.kv == "8bit":
            run += kept.ring // dit.params.num_layers
        camera = kept.camera if self._engine.camera_cache else 0  # until the context pass has ended
        together = run + decode if self._device.type == "cuda" else max(run, decode)
        return max(camera + together, encode, self._prompt())

    def _kept(self, settings: RuntimeParams, geometry: Geometry, *, sharded: bool) -> Kept:
        dit, ranks = self._components.dit, self._engine.shards.ranks if sharded else 1
        return Kept.of(dit.params, settings, geometry, dtype=dit.dtype, ranks=ranks)

    def _probed(self, chunk: int) -> tuple[_Line, _Line, _Line, _Line]:
        """Decoder history, and workspace of decoding, encoding and a pass."""
        if chunk not in self._lines:
            small, larger = (self._at(chunk, geometry) for geometry in (SMALL, LARGER))
            lines = [_Line(a, b) for a, b in zip(small, larger, strict=True)]
            self._lines[chunk] = (lines[0], lines[1], lines[2], lines[3])
        return self._lines[chunk]

    def _at(self, chunk: int, geometry: Geometry) -> tuple[int, int, int, int]:
        vae, size = self._engine.vae, (geometry.height, geometry.width)
        dit, device = self._components.dit, self._device
        decoded = decoding(vae, chunk, geometry.latent, device=device, measure=taken)
        encoded = encoding(vae, chunk, size, device=device, measure=taken)
        passed = passing(dit, chunk, geometry.tokens, measure=taken)
        return decoded.history, decoded.workspace, encoded, passed

    def _held(self) -> int:
        """Bytes of the loaded networks on the device, packed copies included."""
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        settle(self._components.dit)
        parts = self._components
        held = [parts.dit, parts.low_noise_dit, parts.vae, parts.preview, parts.text]
        return weigh(t for t in tensors_in(held) if t.device.type == self._device.type).nbytes

    def _prompt(self) -> int:
        """What a new prompt takes where its encoder comes to the device for it."""
        if self._options.text_encoder != "swap":
            return 0
        return weigh(tensors_in(self._components.text)).nbytes

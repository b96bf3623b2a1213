"""The two kinds of pass: denoise passes overwrite the chunk's slots, the context pass commits.

Both take what the chunk shares (RoPE, camera, text) as values; nothing is computed here twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from worldline.models.lingbot.blocks import CameraModulation, TextAttend
from worldline.models.lingbot.dit import Camera, LingBotDiT, TimeTables
from worldline.ops.attention import Attend
from worldline.ops.block_math import PLAIN, BlockMath
from worldline.ops.rope import RopeTable
from worldline.ops.shard import WHOLE, Shard
from worldline.runtime.kv_cache import FrameRing

LATENT_CHANNELS = 16


class ChunkInputs(NamedTuple):
    """What all passes of a chunk share; `grid` is `(T, h/2, w/2)` in tokens.

    `math` computes what lies between the matmuls. RoPE and camera have the rows of `shard`.
    """

    grid: tuple[int, int, int]
    rope: RopeTable
    camera: Camera
    cross: Sequence[TextAttend]
    math: BlockMath = PLAIN
    shard: Shard = WHOLE


class ModelInput:
    """The 36-channel input of a chunk: the condition half is written once, the latents per pass."""

    def __init__(self, condition: Tensor) -> None:
        """`condition [1, 20, T, h, w]`: 4 mask and 16 image-latent channels."""
        batch, channels, *grid = condition.shape
        self._buffer = torch.empty(
            (batch, LATENT_CHANNELS + channels, *grid),
            dtype=condition.dtype,
            device=condition.device,
        )
        self.write_condition(condition)

    def write_condition(self, condition: Tensor) -> None:
        """Exchange the condition half for another of the same shape."""
        self._buffer[:, LATENT_CHANNELS:] = condition

    def with_latents(self, latents: Tensor) -> Tensor:
        """The input for `latents [1, 16, T, h, w]`; valid until the next call."""
        self._buffer[:, :LATENT_CHANNELS] = latents
        return self._buffer


def denoise_pass(
    dit: LingBotDiT, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: Attend
) -> Tensor:
    """Predict the flow `[1, 16, T, h, w]` of `x [1, 36, T, h, w]`; overwrites the chunk's slots."""
    tokens = dit.run_blocks(
        dit.patchify(x, inputs.shard),
        time=time,
        rope=inputs.rope,
        camera=inputs.camera,
        cross=inputs.cross,
        attend=inputs.shard.attend(kv),
        math=inputs.math,
    )
    return dit.project(tokens, time, inputs.grid, shard=inputs.shard)


def context_pass(
    dit: LingBotDiT, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing
) -> None:
    """Commit the chunk's keys and values from the clean latent in `x [1, 36, T, h, w]`.

    The last block stops after its cache write and the head is skipped.
    """
    dit.write_cache(
        dit.patchify(x, inputs.shard),
        time=time,
        rope=inputs.rope,
        camera=inputs.camera,
        cross=inputs.cross,
        writer=inputs.shard.writer(kv),
        math=inputs.math,
    )


class Passes(Protocol):
    """How the passes of a transformer are run: at once, or as recorded graphs.

    `eager` runs them at once, for shapes that will not come again.
    """

    @property
    def eager(self) -> Passes:
        """See the class."""
        ...

    def camera(self, embedding: Tensor) -> Sequence[CameraModulation]:
        """Scale and shift of every block from the camera embedding `[1, L, C]`."""
        ...

    def denoise(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> Tensor:
        """See `denoise_pass`; the flow is valid until the next pass."""
        ...

    def commit(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> None:
        """See `context_pass`."""
        ...

    def forget(self, kv: FrameRing) -> None:
        """Drop whatever holds addresses of a ring that is going to be freed."""
        ...


class EagerPasses:
    """Passes run operation by operation."""

    def __init__(self, dit: LingBotDiT) -> None:
        self._dit = dit

    @property
    def eager(self) -> Passes:
        """Itself."""
        return self

    def forget(self, kv: FrameRing) -> None:
        """Nothing to forget."""

    def camera(self, embedding: Tensor) -> Sequence[CameraModulation]:
        """See `Passes`."""
        return self._dit.camera_modulation(embedding)

    def denoise(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> Tensor:
        """See `Passes`."""
        return denoise_pass(self._dit, x, time=time, inputs=inputs, kv=kv)

    def commit(self, x: Tensor, *, time: TimeTables, inputs: ChunkInputs, kv: FrameRing) -> None:
        """See `Passes`."""
        context_pass(self._dit, x, time=time, inputs=inputs, kv=kv)

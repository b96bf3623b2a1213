"""The LingBot-World diffusion transformer, causal and bidirectional in one class.

Weights and mathematics only: what makes it causal is the `attend` callable (see
`ops.attention.Attend`), what makes it cheap is that time, camera and text enter as values that the
caller computes once and passes in again. Nothing of a session is ever kept on the module.

Numerics: in a half-precision model the matmuls run in the weights' dtype while time embedding,
modulation, norms, residual stream and head stay in float32, as on the official GPU path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.models.lingbot.blocks import (
    Block,
    CameraModulation,
    Part,
    TextAttend,
    TextKV,
    cast_linear,
)
from worldline.models.lingbot.params import DiTParams
from worldline.ops.attention import Attend, CacheWriter, FullAttention
from worldline.ops.block_math import PLAIN, BlockMath
from worldline.ops.modulation import modulate, sinusoid
from worldline.ops.norm import plain_layer_norm
from worldline.ops.rope import RopeTable, rope_table
from worldline.ops.shard import WHOLE, Shard

# Kept in float32 whatever the model's dtype (facts: official GPU path, section 3).
FLOAT32_PARTS = ("time_embedding.", "time_projection.", "head.")


class TimeModulation(NamedTuple):
    """Embedded timestep: `e [B, M, C]` for the head, `e0 [B, M, 6, C]` for the blocks; float32."""

    e: Tensor
    e0: Tensor


class TimeTables(NamedTuple):
    """Shift, scale and gate of every block `[B, M, 6, C]` and of the head `[B, M, 2, C]`."""

    blocks: tuple[Tensor, ...]
    head: Tensor


Camera = Tensor | Sequence[CameraModulation] | None

# Multiplied in eight bits where that is asked for: the blocks' projections, which are nearly all of
# the arithmetic. What stays as it is: embeddings and head (first and last word on every pixel,
# little work), norms and modulation tables (no matmuls), and the camera layers (once per chunk;
# their result scales the stream itself, so its error is not damped by a residual).
_EIGHT_BIT = re.compile(r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.[qkvo]|ffn\.[02])")


class Residency(Protocol):
    """Sees to it that blocks have their weights on the device while they are looked at."""

    def __call__(self, part: Part, blocks: Sequence[Block]) -> Iterable[Block]:
        """The same blocks one after the other, each with the weights of `part` in place."""
        ...


def resident(part: Part, blocks: Sequence[Block]) -> Sequence[Block]:
    """The `Residency` of a network that is whole on its device."""
    del part
    return blocks


class Head(nn.Module):
    """Final modulated projection to `2 x 2 x out_dim` values per token."""

    def __init__(self, params: DiTParams) -> None:
        super().__init__()
        self.eps = params.eps
        self.head = nn.Linear(params.dim, 4 * params.out_dim)
        self.modulation = nn.Parameter(torch.empty(1, 2, params.dim))
        nn.init.normal_(self.modulation, std=params.dim**-0.5)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """`x [B, L, C]`, `table [B, M, 2, C]` -> `[B, L, 4 * out_dim]`, float32."""
        normed = modulate(plain_layer_norm(x, self.eps), table[:, :, 0], table[:, :, 1])
        return cast_linear(self.head, normed).float()


class LingBotDiT(nn.Module):
    """Wan 2.x image-to-video transformer with camera rays (or ray directions and keys)."""

    def __init__(self, params: DiTParams) -> None:
        super().__init__()
        self.params = params
        dim = params.dim
        self.patch_embedding = nn.Conv3d(params.in_dim, dim, (1, 2, 2), (1, 2, 2))
        self.patch_embedding_wancamctrl = nn.Linear(4 * params.control_channels, dim)
        self.c2ws_hidden_states_layer1 = nn.Linear(dim, dim)
        self.c2ws_hidden_states_layer2 = nn.Linear(dim, dim)
        self.text_embedding = nn.Sequential(
            nn.Linear(params.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(params.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList([Block(params) for _ in range(params.num_layers)])
        self.head = Head(params)
        self.residency: Residency = resident

    @staticmethod
    def takes_eight_bits(name: str) -> bool:
        """Whether the linear layer `name` may be quantised."""
        return _EIGHT_BIT.fullmatch(name) is not None

    @staticmethod
    def storage_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
        """Dtype in which tensor `name` of the state dict is kept when the model runs in `dtype`."""
        keep = name.startswith(FLOAT32_PARTS) or name.endswith(".modulation")
        return torch.float32 if keep else dtype

    @property
    def offloaded(self) -> bool:
        """Whether blocks come and go, so that nothing may be recorded over their weights."""
        return self.residency is not resident

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the matmuls."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.patch_embedding.weight.device

    def iter_blocks(self) -> Sequence[Block]:
        """The blocks, typed."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def join_projections(self) -> None:
        """Make queries, keys and values of every block one product; for inference, once loaded.

        Blocks that come and go keep their own tensors, which are what is fetched.
        """
        if self.offloaded:
            return
        for block in self.iter_blocks():
            block.self_attn.join()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # or the small tensors would stay beside the joined one

    def embed_text(self, states: Tensor) -> Tensor:
        """Embed text states: `[B, S, text_dim]`, zero rows after the true length, -> `[B, S, C]`.

        The zero rows become one constant non-zero vector and are attended like any other row;
        masking them out is wrong (facts, section 3.3).
        """
        return self.text_embedding(states.to(self.dtype))

    def embed_time(self, t: Tensor) -> TimeModulation:
        """Embed timesteps `t [B]` or `[B, M]` (integers or floats, 0..1000), in float32."""
        t = t.unsqueeze(-1) if t.ndim == 1 else t  # B M
        e = self.time_embedding(sinusoid(t, self.params.freq_dim))  # B M C
        return TimeModulation(e, self.time_projection(e).unflatten(-1, (6, -1)))

    def time_tables(self, time: TimeModulation) -> TimeTables:
        """Add the learned modulation of every block and of the head to an embedded timestep."""
        head = self.head.modulation.float().unsqueeze(0) + time.e.unsqueeze(2)  # B M 2 C
        return TimeTables(tuple(b.time_table(time.e0) for b in self.iter_blocks()), head)

    def embed_camera(self, control: Tensor, shard: Shard = WHOLE) -> Tensor:
        """Embed the folded control tensor `[B, 384|448, T, h, w]` -> `[B, L, C]`, rows of `shard`.

        Patch features are ordered channel slowest, then row and column inside the patch.
        """
        p = cast_linear(self.patch_embedding_wancamctrl, shard.cut(_patches(control)))
        hidden = F.silu(cast_linear(self.c2ws_hidden_states_layer1, p))
        return p + cast_linear(self.c2ws_hidden_states_layer2, hidden)

    def camera_modulation(self, camera: Tensor) -> list[CameraModulation]:
        """Scale and shift of every block from the camera embedding `[B, L, C]`."""
        blocks = self.residency("camera", self.iter_blocks())
        return [block.camera_modulation(camera) for block in blocks]

    def cross_kv(self, text: Tensor) -> list[TextKV]:
        """Keys and values of every block from the embedded text `[B, S, C]`."""
        return [block.text_kv(text) for block in self.residency("text", self.iter_blocks())]

    def patchify(self, x: Tensor, shard: Shard = WHOLE) -> Tensor:
        """Embed `[B, in_dim, T, h, w]` (noise and condition) into tokens `[B, L, C]`, float32.

        Of them only those of `shard`.
        """
        # As a matrix product: the convolution that it is falls off a cliff on CPUs, and its result
        # would lie by channel, so that every operation on the stream would read it across.
        layer = self.patch_embedding
        patches = shard.cut(_patches(x.to(self.dtype)))
        return F.linear(patches, layer.weight.flatten(1), layer.bias).float()

    def rope(
        self, frames: Sequence[int], rows: int, columns: int, *, tokens: range | None = None
    ) -> RopeTable:
        """RoPE table of latent frames at absolute positions `frames`; grid in tokens.

        With `tokens` only for those.
        """
        dim = self.params.head_dim
        return rope_table(frames, rows, columns, head_dim=dim, device=self.device, tokens=tokens)

    def run_blocks(
        self,
        x: Tensor,
        *,
        time: TimeModulation | TimeTables,
        rope: RopeTable,
        camera: Camera,
        cross: Sequence[TextAttend],
        attend: Attend,
        math: BlockMath = PLAIN,
    ) -> Tensor:
        """Run all blocks over the tokens `x [B, L, C]`.

        `camera` is the list from `camera_modulation`, or the embedding itself (then every block
        computes its own part: slower, less memory), or None for no camera at all. `math` computes
        what lies between the matmuls.
        """
        tables = time if isinstance(time, TimeTables) else self.time_tables(time)
        return self._advance(
            x,
            self.iter_blocks(),
            tables=tables,
            rope=rope,
            camera=camera,
            cross=cross,
            attend=attend,
            math=math,
        )

    def write_cache(
        self,
        x: Tensor,
        *,
        time: TimeModulation | TimeTables,
        rope: RopeTable,
        camera: Camera,
        cross: Sequence[TextAttend],
        writer: CacheWriter,
        math: BlockMath = PLAIN,
    ) -> None:
        """Context pass: like `run_blocks`, but the last block stops after its cache write."""
        tables = time if isinstance(time, TimeTables) else self.time_tables(time)
        blocks = self.iter_blocks()
        x = self._advance(
            x,
            blocks[:-1],
            tables=tables,
            rope=rope,
            camera=camera,
            cross=cross,
            attend=writer,
            math=math,
        )
        last = len(blocks) - 1
        for block in self.residency("body", blocks[last:]):
            block.write_cache(
                x, table=tables.blocks[last], rope=rope, writer=writer, layer=last, math=math
            )

    def _advance(
        self,
        x: Tensor,
        blocks: Sequence[Block],
        *,
        tables: TimeTables,
        rope: RopeTable,
        camera: Camera,
        cross: Sequence[TextAttend],
        attend: Attend,
        math: BlockMath,
    ) -> Tensor:
        for layer, block in enumerate(self.residency("body", blocks)):
            x = block(
                x,
                table=tables.blocks[layer],
                rope=rope,
                camera=self._camera_of(camera, block, layer),
                text=cross[layer],
                attend=attend,
                layer=layer,
                math=math,
            )
        return x

    def _camera_of(self, camera: Camera, block: Block, layer: int) -> CameraModulation | None:
        """What block `layer` gets of a camera given as embedding, as list, or not at all."""
        if not isinstance(camera, Tensor):
            return None if camera is None else camera[layer]
        (found,) = [b.camera_modulation(camera) for b in self.residency("camera", [block])]
        return found

    def project(
        self,
        x: Tensor,
        time: TimeModulation | TimeTables,
        grid: Sequence[int],
        *,
        shard: Shard = WHOLE,
    ) -> Tensor:
        """Head and unpatchify: `x [B, L, C]`, token grid `(T, h/2, w/2)` -> flow.

        The flow `[B, out, T, h, w]` is `noise - x0`, float32; also where `x` has the rows of a
        `shard`, it is whole.
        """
        tables = time if isinstance(time, TimeTables) else self.time_tables(time)
        out = shard.gather(self.head(x, tables.head))  # B L 4*out, channel fastest
        frames, rows, columns = grid
        out = out.view(out.shape[0], frames, rows, columns, 2, 2, self.params.out_dim)
        return out.permute(0, 6, 1, 2, 4, 3, 5).flatten(5).flatten(3, 4)  # B out T h w

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        text: Tensor,
        control: Tensor | None = None,
        shard: Shard = WHOLE,
    ) -> Tensor:
        """Bidirectional: `x [B, in_dim, T, h, w]`, `t [B]` or `[B, L]`, text states -> flow.

        All frames attend to all frames, RoPE from frame 0; the base models' form. `text` is
        `[B, S, text_dim]`. Every rank of a `shard` gives the same input and has the whole flow.
        """
        grid = (x.shape[2], x.shape[3] // 2, x.shape[4] // 2)
        time = self.time_tables(self.embed_time(t if t.ndim == 1 else shard.cut(t)))
        tokens = self.run_blocks(
            self.patchify(x, shard),
            time=time,
            rope=self.rope(range(grid[0]), grid[1], grid[2], tokens=shard.tokens),
            camera=None if control is None else self.embed_camera(control, shard),
            cross=self.cross_kv(self.embed_text(text)),
            attend=shard.attend(FullAttention()),
        )
        return self.project(tokens, time, grid, shard=shard)


def _patches(x: Tensor) -> Tensor:
    """Patches of 2x2 cells: `[B, c, T, h, w]` -> `[B, L, 4c]`, channel slowest."""
    cells = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # B c T h/2 2 w/2 2
    return cells.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)  # B L 4c

"""FLOPs and bytes of one chunk, computed from the configuration: what the device cannot avoid.

Counts matrix products only, a multiply and an add as two; norms, gates and rotations are left out,
as in every published figure. `keys` is the number of tokens that a query sees, its own included.
Formulas: facts, physical limits (peers, section E). Knows nothing about time or devices.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from worldline.models.lingbot.params import DiTParams

PATCH = 4  # latent cells per token, 2 x 2
RAY_FLOPS = 2 * 3 * 3  # turning one direction by a rotation matrix

Parts = dict[str, int]


class ChunkSize(NamedTuple):
    """What a chunk's work depends on besides the architecture.

    `tokens` of the chunk, `keys` tokens attended (the window's, where it is full), `steps` denoise
    passes, `pixels` of the rays (T x H x W).
    """

    tokens: int
    keys: float
    steps: int
    pixels: int


class ChunkFlops(NamedTuple):
    """FLOPs of the DiT per part, for each stage of a chunk."""

    conditions: Parts
    denoise: Parts
    context: Parts

    @property
    def total(self) -> int:
        """FLOPs of all stages."""
        return sum(sum(parts.values()) for parts in self)


def block_flops(dit: DiTParams, tokens: int, keys: float) -> Parts:
    """One block of a denoise pass, without camera and without the text's own projections."""
    width = dit.dim
    return {
        "projections": 2 * tokens * width * width * 6,  # q, k, v, o and, for the text, q, o
        "self_attention": round(4 * tokens * keys * width),  # scores and values
        "cross_attention": 4 * tokens * dit.text_len * width,
        "feed_forward": 4 * tokens * width * dit.ffn_dim,
    }


def pass_flops(dit: DiTParams, tokens: int, keys: float) -> Parts:
    """One denoise pass: patches, all blocks, head."""
    blocks = {name: dit.num_layers * n for name, n in block_flops(dit, tokens, keys).items()}
    return {"patches": _patches(dit, tokens), **blocks, "head": _head(dit, tokens)}


def context_flops(dit: DiTParams, tokens: int, keys: float) -> Parts:
    """The context pass: the last block stops after its keys and values, and there is no head."""
    full = dit.num_layers - 1
    parts = {name: full * n for name, n in block_flops(dit, tokens, keys).items()}
    parts["projections"] += 2 * tokens * dit.dim * dit.dim * 2
    return {"patches": _patches(dit, tokens), **parts}


def camera_embedding_flops(dit: DiTParams, tokens: int) -> int:
    """Rays to the embedding that all blocks share."""
    return 2 * tokens * dit.dim * (PATCH * dit.control_channels + 2 * dit.dim)


def camera_block_flops(dit: DiTParams, tokens: int) -> int:
    """Scale and shift of one block from that embedding."""
    return 2 * tokens * dit.dim * dit.dim * 4


def text_flops(dit: DiTParams) -> int:
    """A prompt's embedding, and its keys and values in every block."""
    embedding = 2 * dit.text_len * dit.dim * (dit.text_dim + dit.dim)
    return embedding + dit.num_layers * 2 * dit.text_len * dit.dim * dit.dim * 2


def time_flops(dit: DiTParams) -> int:
    """The embedding of one timestep."""
    return 2 * dit.dim * (dit.freq_dim + dit.dim + 6 * dit.dim)


def chunk_flops(
    dit: DiTParams,
    size: ChunkSize,
    *,
    without: Collection[str] = (),
    camera_cache: bool = True,
    prompt_chunk: bool = False,
) -> ChunkFlops:
    """The DiT's work for one chunk of a session whose prompt and step tables are known.

    `without` names savings that are off (see `runtime.savings`; those that save no matrix product
    change nothing here). Without the camera cache every pass makes its own scale and shift. With
    `prompt_chunk` the prompt is new: its projections count once.
    """
    tokens, keys, steps, pixels = size
    denoise = {n: steps * flops for n, flops in pass_flops(dit, tokens, keys).items()}
    whole = "update_cache_only" in without
    context = (pass_flops if whole else context_flops)(dit, tokens, keys)
    conditions = {"rays": RAY_FLOPS * pixels}
    camera = camera_block_flops(dit, tokens)
    if camera_cache and "camera" not in without:
        conditions["camera_modulation"] = dit.num_layers * camera
    else:
        denoise["camera_modulation"] = steps * dit.num_layers * camera
        context["camera_modulation"] = (dit.num_layers if whole else dit.num_layers - 1) * camera
    shared = {"camera_embedding": camera_embedding_flops(dit, tokens), "text": text_flops(dit)}
    saving = {"camera_embedding": "camera", "text": "cross_kv"}
    for name, flops in shared.items():
        if saving[name] in without:
            # The first pass's inputs are made before it, under conditions, saving or not.
            denoise[name], context[name] = (steps - 1) * flops, flops
        if saving[name] in without or name != "text" or prompt_chunk:
            conditions[name] = flops
    if "time" in without:
        denoise["time"], context["time"] = steps * time_flops(dit), time_flops(dit)
    return ChunkFlops(conditions, denoise, context)


def parameters(dit: DiTParams) -> int:
    """Numbers in the DiT: 18.5 billion for the 14B with its camera layers."""
    width = dit.dim
    attention = 4 * _linear(width, width) + 2 * width
    block = (
        6 * width
        + 2 * attention
        + 2 * width
        + _linear(width, dit.ffn_dim)
        + _linear(dit.ffn_dim, width)
        + 4 * _linear(width, width)
    )
    camera = _linear(PATCH * dit.control_channels, width) + 2 * _linear(width, width)
    text = _linear(dit.text_dim, width) + _linear(width, width)
    entry = _linear(PATCH * dit.in_dim, width)
    time_and_head = float32_parameters(dit) - dit.num_layers * 6 * width
    return dit.num_layers * block + camera + text + entry + time_and_head


def float32_parameters(dit: DiTParams) -> int:
    """Those of them that are kept in float32: time embedding, modulation tables, head."""
    width = dit.dim
    time = _linear(dit.freq_dim, width) + _linear(width, width) + _linear(width, 6 * width)
    head = _linear(width, PATCH * dit.out_dim) + 2 * width
    return time + head + dit.num_layers * 6 * width


def pass_traffic(dit: DiTParams, size: ChunkSize, *, width: int, camera_cache: bool = True) -> int:
    """Bytes that one pass must move at least: what is larger than any cache on the way.

    Weights, keys and values of the window, the camera's scale and shift, and the text's keys and
    values are read once, the chunk's own keys and values written once. Activations are left out:
    how often they go to memory depends on the kernels. Without the camera cache the weights that
    make scale and shift are read instead of those.
    """
    once = 0 if not camera_cache else camera_parameters(dit)
    weights = (parameters(dit) - once) * width
    camera = size.tokens if camera_cache else 0
    return weights + round(_row(dit, width) * (size.keys + size.tokens + camera + dit.text_len))


def camera_traffic(dit: DiTParams, size: ChunkSize, *, width: int) -> int:
    """Bytes moved at least to make every block's scale and shift once: read weights, write both."""
    return camera_parameters(dit) * width + _row(dit, width) * size.tokens


def camera_parameters(dit: DiTParams) -> int:
    """Numbers in the layers that turn the camera's embedding into scale and shift."""
    return dit.num_layers * 4 * _linear(dit.dim, dit.dim)


def _row(dit: DiTParams, width: int) -> int:
    """Bytes per token of two vectors in every block: keys and values, or scale and shift."""
    return 2 * dit.num_layers * dit.dim * width


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _patches(dit: DiTParams, tokens: int) -> int:
    return 2 * tokens * PATCH * dit.in_dim * dit.dim


def _head(dit: DiTParams, tokens: int) -> int:
    return 2 * tokens * dit.dim * PATCH * dit.out_dim

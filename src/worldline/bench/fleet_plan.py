"""What goes where when a model is served on several devices: `worldline doctor --devices`.

Computed from the configuration on networks without values, as the memory plan is; nothing is
loaded and no device is needed. Every rank holds all weights; what a chunk and a session take is
shared out, and the passes and the autoencoder exchange what they need of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import torch

from worldline.bench.column_work import LATENT_CHANNELS, decode_exchanges
from worldline.bench.plan import MemoryPlan, Wanted, plan_memory, wanted
from worldline.core.chunk import PICTURES
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.models.preset import Preset
from worldline.ops.collectives import Split
from worldline.runtime.device import autoencoder_dtype
from worldline.runtime.parallel.expected import Sharing, expected
from worldline.runtime.parallel.shards import check_degree
from worldline.runtime.parallel.vae import ColumnVae
from worldline.runtime.parts import build_networks
from worldline.runtime.state import Geometry


class RankPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its device, what it has of a chunk, and bytes there.

    `tokens`, `heads` and `columns` (of the latent picture) go up to the second number; `session` is
    what every open session takes, `workspace` the one chunk in flight.
    """

    rank: int
    device: str
    tokens: tuple[int, int]
    heads: tuple[int, int]
    columns: tuple[int, int]
    weights: int
    session: int
    workspace: int


class ExchangePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranks of a replica send each other for a chunk, for one purpose.

    `calls` every rank takes part in, 0 for messages between two; `nbytes` leave all ranks together
    (for the autoencoder: the busiest one, times the ranks).
    """

    purpose: str
    calls: int
    nbytes: int


class FleetPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas, and the exchanges of a chunk on each; sizes in pixels."""

    model: str
    mode: str
    width: int
    height: int
    tokens: int
    heads: int
    columns: int
    replicas: list[list[RankPlan]]
    exchanges: list[ExchangePlan]


def plan_fleet(
    preset: Preset,
    groups: Sequence[Sequence[str]],
    *,
    mode: str = "exact",
    options: EngineOptions = DEFAULT_OPTIONS,
    own_vae: bool = False,
) -> FleetPlan:
    """The plan for a preset at its own size; `groups` are the devices of every replica.

    With `own_vae` the last of each has the autoencoder and nothing else. Raises `ConfigError` for
    numbers of ranks that the model cannot be shared out over.
    """
    ranks, dit = len(groups[0]) - own_vae, preset.dit
    check_degree(dit.num_heads, ranks, uneven=preset.family == "pocket")
    want = wanted(preset, mode=mode, options=options)
    if groups[0][0].startswith("cpu"):
        want = want._replace(cuda=False, dtype=torch.float32)
    cut = _Cut.of(want, ranks)
    return FleetPlan(
        model=preset.name,
        mode=mode,
        width=want.width,
        height=want.height,
        tokens=cut.tokens.total,
        heads=cut.heads.total,
        columns=cut.columns.total,
        replicas=_replicas(plan_memory(want), groups, cut, own_vae=own_vae),
        exchanges=_of_passes(want, cut) + (_to_far_vae if own_vae else _of_columns)(want, ranks),
    )


class _Cut(NamedTuple):
    """How a chunk is cut."""

    tokens: Split
    heads: Split
    columns: Split

    @classmethod
    def of(cls, want: Wanted, ranks: int) -> _Cut:
        geometry = Geometry(want.width, want.height)
        return cls(
            Split.of(want.settings.chunk * geometry.tokens_per_frame, ranks),
            Split.of(want.preset.dit.num_heads, ranks),
            Split.of(geometry.latent[1], ranks),
        )


def _replicas(
    memory: MemoryPlan, groups: Sequence[Sequence[str]], cut: _Cut, *, own_vae: bool
) -> list[list[RankPlan]]:
    """Of every replica the ranks in order, the autoencoder's last."""
    ranks = len(cut.tokens.counts)
    passes = _part(memory, of_vae=False) if own_vae else memory
    replicas: list[list[RankPlan]] = []
    for group in groups:
        replica = [
            _rank(passes, device, rank=rank, cut=cut, own_vae=own_vae)
            for rank, device in enumerate(group[:ranks])
        ]
        if own_vae:
            replica.append(_vae_rank(memory, group[ranks], rank=ranks, columns=cut.columns.total))
        replicas.append(replica)
    return replicas


def _part(memory: MemoryPlan, *, of_vae: bool) -> MemoryPlan:
    """What only the autoencoder's rank takes, or only the others."""

    def kept(sizes: dict[str, int], names: tuple[str, ...]) -> dict[str, int]:
        return {name: size if (name in names) == of_vae else 0 for name, size in sizes.items()}

    return msgspec.structs.replace(
        memory,
        weights=kept(memory.weights, ("autoencoder", "tiny decoder")),
        session=kept(memory.session, ("decoder history",)),
        chunk=kept(memory.chunk, ("encode", "decode")),
        prompt=0 if of_vae else memory.prompt,
    )


def _vae_rank(memory: MemoryPlan, device: str, *, rank: int, columns: int) -> RankPlan:
    own = _part(memory, of_vae=True)
    return RankPlan(
        rank=rank,
        device=device,
        tokens=(0, 0),
        heads=(0, 0),
        columns=(0, columns),
        weights=sum(own.weights.values()),
        session=sum(own.session.values()),
        workspace=own.workspace(),
    )


def _rank(
    memory: MemoryPlan,
    device: str,
    *,
    rank: int,
    cut: _Cut,
    own_vae: bool,
) -> RankPlan:
    """Bytes go with what they are bytes of; prompts are on every rank whole."""
    tokens, heads, columns = cut
    of_tokens, of_heads, of_columns = (split.counts[rank] / split.total for split in cut)
    shares = {
        "keys and values": of_heads,
        "decoder history": of_columns,
        "tables": of_tokens,
        "passes": of_tokens,
        "decode": of_columns,
        "encode": of_columns,
    }
    session = sum(shares.get(name, 1.0) * size for name, size in memory.session.items())
    chunk = {name: round(shares[name] * size) for name, size in memory.chunk.items()}
    return RankPlan(
        rank=rank,
        device=device,
        tokens=_span(tokens, rank),
        heads=_span(heads, rank),
        columns=(0, 0) if own_vae else _span(columns, rank),
        weights=sum(memory.weights.values()),
        session=round(session),
        workspace=msgspec.structs.replace(memory, chunk=chunk).workspace(),
    )


def _span(split: Split, rank: int) -> tuple[int, int]:
    part = split.part(rank)
    return part.start, part.stop


def _of_passes(want: Wanted, cut: _Cut) -> list[ExchangePlan]:
    """Of the passes of one chunk; nothing for one rank."""
    dit = want.preset.dit
    sharing = Sharing(
        ranks=len(cut.tokens.counts),
        tokens=cut.tokens.total,
        width=dit.dim,
        heads=dit.num_heads,
        layers=dit.num_layers,
        steps=len(want.settings.steps),
        itemsize=want.dtype.itemsize,
        values=4 * dit.out_dim,
    )
    names = {
        "qkv": "queries, keys and values to the ranks of their heads",
        "heads": "results of attention back to their tokens",
        "flow": "the result of every pass to all ranks",
        "kv": "keys and values of the last block",
    }
    return [
        ExchangePlan(purpose=names[name], calls=sent.calls, nbytes=sent.nbytes)
        for name, sent in expected(sharing).items()
    ]


def _of_columns(want: Wanted, ranks: int) -> list[ExchangePlan]:
    """Of decoding one chunk by columns; nothing for one rank."""
    if ranks == 1:
        return []
    device = torch.device("cuda" if want.cuda else "cpu")
    kept_in = autoencoder_dtype(device, want.mode, want.dtype)
    vae: ColumnVae = build_networks(want.preset).vae.to(kept_in)
    grid = Geometry(want.width, want.height).latent
    sent = decode_exchanges(vae, want.settings.chunk, grid, ranks=ranks)
    purpose = "edges of columns, and pictures to the rank that encodes them"
    return [ExchangePlan(purpose=purpose, calls=sent.calls, nbytes=ranks * sent.nbytes)]


def _to_far_vae(want: Wanted, ranks: int) -> list[ExchangePlan]:
    """Of decoding one chunk elsewhere: messages, in which only that rank and rank 0 take part."""
    height, width = Geometry(want.width, want.height).latent
    chunk = want.settings.chunk
    latents = LATENT_CHANNELS * chunk * height * width * torch.float32.itemsize
    pictures = PICTURES * chunk * want.height * want.width * 3
    return [
        ExchangePlan(purpose=f"latents from rank 0 to rank {ranks}", calls=0, nbytes=latents),
        ExchangePlan(purpose=f"pictures from rank {ranks} to rank 0", calls=0, nbytes=pictures),
    ]


def as_text(plan: FleetPlan) -> str:
    """For people, a line for every rank and every kind of exchange."""
    ranks, count = len(plan.replicas[0]), len(plan.replicas)
    lines = [
        f"{plan.model} in {plan.mode} mode at {plan.width}x{plan.height}: "
        f"{_of(count, 'replica')} of {_of(ranks, 'rank')}"
    ]
    for i, replica in enumerate(plan.replicas):
        lines.append(f"replica {i}")
        lines += [f"  {_line(rank, plan, shared=ranks > 1)}" for rank in replica]
    if plan.exchanges:
        lines.append("between the ranks of a replica, for every chunk")
        lines += [
            f"  {_calls(one.calls):>17}, {_size(one.nbytes):>9} in all: {one.purpose}"
            for one in plan.exchanges
        ]
        if any(one.calls for one in plan.exchanges):
            lines.append("none for the text, whose keys and values every rank has")
    return "\n".join(lines)


def _line(rank: RankPlan, plan: FleetPlan, *, shared: bool) -> str:
    memory = (
        f"weights {_size(rank.weights)}, a session {_size(rank.session)}, "
        f"a chunk {_size(rank.workspace)}"
    )
    if not shared:
        return f"{rank.device:<8} {memory}"
    if rank.tokens == (0, 0):
        return f"rank {rank.rank}  {rank.device:<8} the autoencoder; {memory}"
    parts = (
        f"tokens {_range(rank.tokens)} of {plan.tokens}, heads {_range(rank.heads)} of {plan.heads}"
    )
    if rank.columns != (0, 0):
        parts += f", columns {_range(rank.columns)} of {plan.columns}"
    return f"rank {rank.rank}  {rank.device:<8} {parts}; {memory}"


def _size(nbytes: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.2f} {name}"
    return f"{nbytes / 1e3:.1f} kB"


def _range(span: tuple[int, int]) -> str:
    return f"{span[0]}-{span[1] - 1}"


def _calls(count: int) -> str:
    return f"{count} collectives" if count else "messages"


def _of(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")

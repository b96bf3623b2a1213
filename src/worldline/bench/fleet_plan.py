"""What goes where when a model is served on several devices: `worldline doctor --devices`.

Computed from the configuration on networks without values, as the memory plan is; nothing is
loaded and no device is needed. Every rank holds all weights; what a chunk and a session take is
shared out, and the passes and the autoencoder exchange what they need of each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch

from worldline.bench.column_work import decode_exchanges
from worldline.bench.plan import MemoryPlan, plan_memory, wanted
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.models.preset import Preset
from worldline.ops.collectives import Split
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

    `calls` every rank takes part in; `nbytes` leave all ranks together (for the autoencoder: the
    busiest one, times the ranks).
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
) -> FleetPlan:
    """The plan for a preset at its own size; `groups` are the devices of every replica.

    Raises `ConfigError` for numbers of ranks that the model cannot be shared out over.
    """
    ranks, dit = len(groups[0]), preset.dit
    check_degree(dit.num_heads, ranks, uneven=preset.family == "pocket")
    cuda = not groups[0][0].startswith("cpu")
    want = wanted(preset, mode=mode, options=options)
    if not cuda:
        want = want._replace(cuda=False, dtype=torch.float32)
    geometry = Geometry(want.width, want.height)
    total = want.settings.chunk * geometry.tokens_per_frame
    tokens, heads = Split.of(total, ranks), Split.of(dit.num_heads, ranks)
    columns = Split.of(geometry.latent[1], ranks)
    memory = plan_memory(want)
    sharing = Sharing(
        ranks=ranks,
        tokens=total,
        width=dit.dim,
        heads=dit.num_heads,
        layers=dit.num_layers,
        steps=len(want.settings.steps),
        itemsize=want.dtype.itemsize,
        values=4 * dit.out_dim,
    )
    return FleetPlan(
        model=preset.name,
        mode=mode,
        width=want.width,
        height=want.height,
        tokens=total,
        heads=dit.num_heads,
        columns=geometry.latent[1],
        replicas=[
            [
                _rank(memory, device, rank=rank, splits=(tokens, heads, columns))
                for rank, device in enumerate(group)
            ]
            for group in groups
        ],
        exchanges=_exchanges(preset, sharing, geometry, want.settings.chunk, want.dtype),
    )


def _rank(
    memory: MemoryPlan, device: str, *, rank: int, splits: tuple[Split, Split, Split]
) -> RankPlan:
    """Bytes go with what they are bytes of; prompts are on every rank whole."""
    tokens, heads, columns = splits
    of_tokens, of_heads, of_columns = (s.counts[rank] / s.total for s in splits)
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
        columns=_span(columns, rank),
        weights=sum(memory.weights.values()),
        session=round(session),
        workspace=msgspec.structs.replace(memory, chunk=chunk).workspace(),
    )


def _span(split: Split, rank: int) -> tuple[int, int]:
    part = split.part(rank)
    return part.start, part.stop


def _exchanges(
    preset: Preset, sharing: Sharing, geometry: Geometry, chunk: int, dtype: torch.dtype
) -> list[ExchangePlan]:
    """Of one chunk; nothing for one rank."""
    if sharing.ranks == 1:
        return []
    names = {
        "qkv": "queries, keys and values to the ranks of their heads",
        "heads": "results of attention back to their tokens",
        "flow": "the result of every pass to all ranks",
        "kv": "keys and values of the last block",
    }
    found = [
        ExchangePlan(purpose=names[name], calls=sent.calls, nbytes=sent.nbytes)
        for name, sent in expected(sharing).items()
    ]
    vae: ColumnVae = build_networks(preset).vae.to(dtype)
    sent = decode_exchanges(vae, chunk, geometry.latent, ranks=sharing.ranks)
    purpose = "edges of columns, and pictures to the rank that encodes them"
    return [
        *found,
        ExchangePlan(purpose=purpose, calls=sent.calls, nbytes=sharing.ranks * sent.nbytes),
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
            f"  {one.calls:>5} collectives, {_size(one.nbytes):>9} in all: {one.purpose}"
            for one in plan.exchanges
        ]
        lines.append("none for the text, whose keys and values every rank has")
    return "\n".join(lines)


def _line(rank: RankPlan, plan: FleetPlan, *, shared: bool) -> str:
    memory = (
        f"weights {_size(rank.weights)}, a session {_size(rank.session)}, "
        f"a chunk {_size(rank.workspace)}"
    )
    if not shared:
        return f"{rank.device:<8} {memory}"
    parts = (
        f"tokens {_range(rank.tokens)} of {plan.tokens}, heads {_range(rank.heads)} of "
        f"{plan.heads}, columns {_range(rank.columns)} of {plan.columns}"
    )
    return f"rank {rank.rank}  {rank.device:<8} {parts}; {memory}"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


def _range(span: tuple[int, int]) -> str:
    return f"{span[0]}-{span[1] - 1}"


def _of(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")

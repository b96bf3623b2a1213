"""Parity group `umt5*`: the text encoder, its masks, and the relative position buckets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from worldline.bench.parity_case import (
    EXACT,
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    report_unread,
)
from worldline.bench.parity_networks import load_umt5
from worldline.models.wan.text import UMT5Encoder, position_buckets


def cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """Rows for the masked states, the unmasked states, the DiT's text input and the buckets."""
    golden = GoldenFile(path)
    weights = directory / golden.meta.get("weights", f"{path.stem}_weights.safetensors")
    encoder = load_umt5(weights)
    yield judge(path.name, "states", lambda: _states(golden, encoder))
    if "out_no_mask" in golden:
        yield judge(path.name, "states without a mask", lambda: _unmasked(golden, encoder))
    yield judge(path.name, "text input of the DiT", lambda: _context(golden, encoder))
    if golden.names("rel_bucket"):
        yield judge(path.name, "position buckets", lambda: _buckets(golden, encoder))
    yield from report_unread(golden)


def _states(golden: GoldenFile, encoder: UMT5Encoder) -> Iterator[Difference]:
    ours = encoder(golden["ids"].long(), golden["mask"])
    for name in ("out_official", "out_transformers"):
        if name in golden:
            yield compare(name, ours, golden[name])


def _unmasked(golden: GoldenFile, encoder: UMT5Encoder) -> Iterator[Difference]:
    ids = golden["ids"].long()
    yield compare("out_no_mask", encoder(ids, torch.ones_like(ids)), golden["out_no_mask"])


def _context(golden: GoldenFile, encoder: UMT5Encoder) -> Iterator[Difference]:
    """Masked as the official code does it, and each prompt alone without padding, as ours does."""
    ids, mask = golden["ids"].long(), golden["mask"]
    want = golden["dit_context_zero_padded"]
    yield compare("masked", encoder(ids, mask) * mask[..., None], want)
    lengths = mask.sum(dim=1).tolist()
    if "lens" in golden.meta:
        yield compare("lengths", lengths, golden.config("lens"), EXACT)
    alone = torch.zeros_like(want)
    for row, tokens, length in zip(alone, ids, lengths, strict=True):
        row[:length] = encoder(tokens[None, :length], torch.ones_like(tokens[None, :length]))[0]
    yield compare("each alone", alone, want)


def _buckets(golden: GoldenFile, encoder: UMT5Encoder) -> Iterator[Difference]:
    tokens = golden["ids"].shape[1]
    params = encoder.params
    ours = position_buckets(
        tokens, tokens, buckets=params.num_buckets, max_distance=params.max_distance
    )
    for name, row in (("rel_bucket", ours[:1]), ("rel_bucket_last_row", ours[-1:])):
        if name in golden:
            yield compare(name, row, golden[name], EXACT)

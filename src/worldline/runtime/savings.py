"""The repeated operations that the engine leaves out, by name, so that each can be put back.

Class A changes no bit of the result; class B is exact in real arithmetic and rounds differently.
`bench chunk --ablate` switches them off one by one; sessions run with all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from worldline.core.errors import ConfigError


class Saving(NamedTuple):
    """One saving: its class, and what is done again and again without it."""

    kind: Literal["A", "B"]
    without: str


SAVINGS: dict[str, Saving] = {
    "rope": Saving("A", "the RoPE table is built anew in every pass"),
    "time": Saving("A", "the timestep is embedded and every block's table built in every pass"),
    "camera": Saving("A", "rays are embedded and every block's scale and shift made in every pass"),
    "cross_kv": Saving("A", "the prompt is embedded and projected to K and V in every pass"),
    "condition_half": Saving("A", "the picture's half of the input is written in every pass"),
    "update_cache_only": Saving("A", "the context pass runs the last block and the head in full"),
    "text_pads": Saving("B", "every padding row of the prompt is a key of its own"),
    "kernels": Saving("B", "torch's own operations between the matmuls, where there are kernels"),
    "ring_order": Saving("B", "keys and values are copied into the order of time in every pass"),
}


def check_savings(without: Collection[str]) -> frozenset[str]:
    """Names of savings as a set. Raises `ConfigError` for an unknown one."""
    unknown = sorted(set(without) - set(SAVINGS))
    if unknown:
        got = ", ".join(unknown)
        raise ConfigError("unknown saving", expected=", ".join(SAVINGS), got=got)
    return frozenset(without)

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
    "qkv": Saving("B", "queries, keys and values are a product each"),
    "kernels": Saving("B", "torch's own operations between the matmuls, where there are kernels"),
    "first_chunk": Saving("A", "the first chunk of an equal start is generated anew"),
    "graphs": Saving("A", "Python launches every kernel of a pass, where graphs are on"),
    "buffers": Saving("A", "the input's buffer is allocated for every chunk"),
    "decode_stream": Saving("A", "the decoder waits in the transformer's stream, on a GPU"),
    "device_bytes": Saving("B", "frames cross to the host in float32 and are rounded there"),
    "ring_order": Saving("B", "keys and values are copied into the order of time in every pass"),
}


class Lever(NamedTuple):
    """Something that makes chunks cheaper and their pictures different.

    `number` says what its number counts, None where it has none; `asked` is the option.
    """

    what: str
    asked: str
    number: str | None = None


LEVERS: dict[str, Lever] = {
    "last_step_kv": Lever(
        "no context pass: later chunks remember what the last denoise pass wrote",
        "--lossy last_step_kv",
    ),
    "still_window": Lever(
        "while nothing moves, a chunk attends to the sink and to the newest frames only",
        "--lossy still_window=N",
        "latent frames attended, sink and chunk included",
    ),
    "sink_distance": Lever(
        "the sink is moved along, so that it is never further in the past than that",
        "--lossy sink_distance=N",
        "latent frames",
    ),
    "steps": Lever("fewer denoise passes", "--steps N", "denoise passes"),
    "window": Lever("a shorter memory", "--window N", "latent frames"),
}


def check_savings(without: Collection[str]) -> frozenset[str]:
    """Names of savings as a set. Raises `ConfigError` for an unknown one."""
    unknown = sorted(set(without) - set(SAVINGS))
    if unknown:
        got = ", ".join(unknown)
        raise ConfigError("unknown saving", expected=", ".join(SAVINGS), got=got)
    return frozenset(without)


def check_levers(lossy: Collection[str]) -> dict[str, int]:
    """Levers asked for as `name` or `name=N`, with their numbers; 0 where there is none.

    Raises `ConfigError` for an unknown one, and for a number that is missing or none.
    """
    asked: dict[str, int] = {}
    known = {name: lever for name, lever in LEVERS.items() if "--lossy" in lever.asked}
    for text in lossy:
        name, _, number = text.partition("=")
        if name not in known:
            raise ConfigError("unknown lever", expected=", ".join(known), got=name)
        wants = known[name].number is not None
        if wants != number.isdecimal() or (number and not wants):
            raise ConfigError("unusable lever", expected=known[name].asked, got=text)
        asked[name] = int(number or 0)
    return asked

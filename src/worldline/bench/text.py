"""`worldline bench text`: what encoding the negative prompt costs, and what keeping it leaves.

Cold is the encoder itself, every time anew; cached is what each of a row of guided requests pays
for its negative prompt when the first of them has been. Equal requests must get equal bits.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Protocol

import msgspec
import torch

from worldline.bench.machine import Machine, describe_machine
from worldline.runtime.negative_cache import NegativeCache

if TYPE_CHECKING:
    from worldline.runtime.engine import World

GUIDANCE = 5.0
# Where the model brings none of its own; its length is what counts.
NEGATIVE = (
    "overexposed, static, blurred details, subtitles, painting, still picture, grey, worst "
    "quality, compression artefacts, ugly, extra fingers, deformed limbs, cluttered background, "
    "walking backwards"
)


class TextFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds per request. `encoded` counts the encoder's runs over all cached requests.

    `max_abs_diff` is between the states of the first request and any other one's, cold ones too.
    """

    model: str
    machine: Machine
    encoder: str
    words: int
    requests: int
    cold_ms: float
    cold_ms_least: float
    first_ms: float
    cached_ms: float
    encoded: int
    max_abs_diff: float
    kept_bytes: int
    unguided_encoded: int

    @property
    def kept(self) -> bool:
        """Whether one encode served all, with equal bits, and none was made without guidance."""
        return self.encoded == 1 and self.max_abs_diff == 0 and self.unguided_encoded == 0


class Encoder(Protocol):
    """A text encoder, as the engine asks it."""

    def encode(self, prompts: list[str]) -> torch.Tensor:
        """States `[B, S, C]`."""
        ...


@torch.no_grad()
def measure_text(world: World, *, requests: int = 10, prompt: str = NEGATIVE) -> TextFigures:
    """Encode `prompt` for so many requests, cold and then cached."""
    device = world.components.dit.device
    encoder: Encoder = world.components.text

    def encode(text: str) -> torch.Tensor:
        states = encoder.encode([text]).to(device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return states

    def cache() -> NegativeCache:
        return NegativeCache(encode, model=world.info.model)

    cache().get(prompt, guidance=GUIDANCE, warm_up=True)
    cold: list[float] = []
    found: list[torch.Tensor] = []
    for _ in range(requests):
        _ask(cache(), prompt, cold, found)
    kept, cached = cache(), list[float]()
    for _ in range(requests):
        _ask(kept, prompt, cached, found)
    unguided = cache()
    unguided.get(prompt, guidance=1.0)
    return TextFigures(
        model=world.info.model,
        machine=describe_machine(),
        encoder=type(encoder).__name__,
        words=len(prompt.split()),
        requests=requests,
        cold_ms=round(statistics.median(cold), 4),
        cold_ms_least=round(min(cold), 4),
        first_ms=round(cached[0], 4),
        cached_ms=round(statistics.median(cached[1:] or cached), 4),
        encoded=kept.encoded,
        max_abs_diff=max(float((one - found[0]).abs().max()) for one in found),
        kept_bytes=found[0].nbytes,
        unguided_encoded=unguided.encoded,
    )


def _ask(cache: NegativeCache, prompt: str, times: list[float], found: list[torch.Tensor]) -> None:
    start = time.perf_counter()
    text = cache.get(prompt, guidance=GUIDANCE)
    times.append((time.perf_counter() - start) * 1000)
    assert text is not None, "guided"
    found.append(text.states)


def as_table(figures: TextFigures) -> str:
    """The figures as lines of text."""
    where = figures.machine
    return "\n".join(
        [
            f"{figures.model}, {figures.encoder}: a negative prompt of {figures.words} words, "
            f"{figures.requests} requests",
            f"on {where.accelerator or where.processor}, {where.threads} threads, "
            f"torch {where.torch}, commit {where.commit}",
            f"cold    {figures.cold_ms:.3f} ms a request (least {figures.cold_ms_least:.3f})",
            f"cached  {figures.cached_ms:.3f} ms a request after the first, "
            f"which took {figures.first_ms:.3f}",
            f"encoded {figures.encoded} x for {figures.requests} guided requests, "
            f"{figures.unguided_encoded} x without guidance; "
            f"max_abs_diff {figures.max_abs_diff:g}; {figures.kept_bytes:,} bytes kept",
        ]
    )

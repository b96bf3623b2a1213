"""Attention backends for CUDA, and the choice among them by measurement.

Which is fastest depends on the GPU, on torch's version and on the shape, so they are timed once for
each and the winner is kept in a file (`kernels.choice_file`). A backend takes part only if its
result agrees with plain mathematics. Exact mode and CPUs keep the one that `runtime.device` allows.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from worldline.kernels.choice_file import AttentionChoice, AttentionKey, ChoiceFile
from worldline.ops.attention import AttentionFn, AttentionShape, attention

TORCH = "torch"  # whatever torch takes by itself
COMPARED_QUERIES = 64
# Of the largest value of the result; one that is wrong is off by about that value itself.
TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 5e-2, torch.float16: 5e-2}  # float32: TF32
WARM_UP, ROUNDS, CALLS = 3, 5, 4
# A film without a window has a new shape in every chunk: later ones go by the nearest.
MEASURED_SHAPES = 16

Timer = Callable[[Callable[[], object]], float]


class Backend:
    """Torch's attention with one of its kernels and no other."""

    def __init__(self, kernel: SDPBackend) -> None:
        self._kernel = kernel

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `ops.attention.attention`. Raises RuntimeError where the kernel does not apply."""
        with sdpa_kernel(self._kernel):
            return attention(q, k, v)


def backends() -> dict[str, AttentionFn]:
    """All backends this machine has, by name; whether they take a shape shows when they are run."""
    found: dict[str, AttentionFn] = {
        TORCH: attention,
        "cudnn": Backend(SDPBackend.CUDNN_ATTENTION),
        "flash": Backend(SDPBackend.FLASH_ATTENTION),
        "efficient": Backend(SDPBackend.EFFICIENT_ATTENTION),
        "math": Backend(SDPBackend.MATH),
    }
    for name, module in (("flash-attn-2", "flash_attn"), ("flash-attn-3", "flash_attn_interface")):
        if find_spec(module) is not None:
            found[name] = _imported(module)
    return found


def _imported(module: str) -> AttentionFn:
    """The function of the flash-attn packages; imported when it is first called."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        from importlib import import_module

        out: Any = import_module(module).flash_attn_func(q, k, v)
        return out[0] if isinstance(out, tuple) else out  # some versions return the sums as well

    return attend


def measure(
    key: AttentionKey,
    inputs: tuple[Tensor, Tensor, Tensor],
    candidates: Mapping[str, AttentionFn],
    timer: Timer,
) -> AttentionChoice:
    """Time all candidates on `q, k, v` and take the fastest that is right, or `torch`."""
    q, k, v = inputs
    few = q[:, :COMPARED_QUERIES].float()
    wanted = Backend(SDPBackend.MATH)(few, k.float(), v.float())
    ms: dict[str, float] = {}
    refused: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch explains what does not apply; we ask all the same
        for name, attend in candidates.items():
            try:
                off = _distance(attend(q, k, v)[:, :COMPARED_QUERIES], wanted)
                if off <= TOLERANCE[q.dtype]:
                    ms[name] = timer(partial(attend, q, k, v))
                else:  # NaN too
                    refused[name] = f"wrong by {off:.2g} of the largest value"
            except (RuntimeError, ImportError, AttributeError) as error:
                refused[name] = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    backend = min(ms, key=ms.__getitem__, default=TORCH)
    return AttentionChoice(key=key, backend=backend, ms=ms, refused=refused)


def _unlikeness(one: AttentionKey, other: AttentionKey) -> float:
    """How many times longer the one or the other is, in queries and keys together."""
    ratios = (one.queries / other.queries, one.keys / other.keys)
    return sum(abs(math.log(ratio)) for ratio in ratios)


def _distance(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted).abs().max() / wanted.abs().max())


def cuda_timer(call: Callable[[], object]) -> float:
    """Median milliseconds of a call on the current CUDA device."""
    for _ in range(WARM_UP):
        call()
    spent: list[float] = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            call()
        end.record()
        end.synchronize()
        spent.append(start.elapsed_time(end) / CALLS)
    return statistics.median(spent)


class AttentionChooser:
    """Finds the attention for the sessions of one device, measuring each shape at most once."""

    def __init__(
        self,
        device: torch.device,
        *,
        file: ChoiceFile | None = None,
        candidates: Mapping[str, AttentionFn] | None = None,
        timer: Timer = cuda_timer,
    ) -> None:
        self._device = device
        self._file = file or ChoiceFile()
        self._candidates = backends() if candidates is None else candidates
        self._timer = timer
        self._choices: dict[AttentionKey, AttentionChoice] = {}

    @property
    def choices(self) -> list[AttentionChoice]:
        """What has been chosen so far, for reports."""
        return list(self._choices.values())

    def pick(self, shape: AttentionShape) -> AttentionFn:
        """The attention to use for a shape."""
        key = self._key(shape)
        if key not in self._choices and len(self._choices) >= MEASURED_SHAPES:
            key = min(self._choices, key=lambda other: _unlikeness(other, key))
        if key not in self._choices:
            self._choices[key] = self._stored(key) or self.measure_again(shape)
        return self._candidates[self._choices[key].backend]

    def _stored(self, key: AttentionKey) -> AttentionChoice | None:
        """What the file says, unless other backends are here now than when it was written."""
        found = self._file.find(key)
        if found is None or {*found.ms, *found.refused} != {*self._candidates}:
            return None
        return msgspec.structs.replace(found, source="file")

    def measure_again(self, shape: AttentionShape) -> AttentionChoice:
        """Measure a shape whatever the file says, and store the result."""
        inputs = random_inputs(shape, self._device)
        choice = measure(self._key(shape), inputs, self._candidates, self._timer)
        self._file.store(choice)
        return choice

    def _key(self, shape: AttentionShape) -> AttentionKey:
        cuda = self._device.type == "cuda"
        return AttentionKey(
            device=torch.cuda.get_device_name(self._device) if cuda else self._device.type,
            torch=str(torch.__version__),
            dtype=str(shape.dtype).removeprefix("torch."),
            queries=shape.queries,
            keys=shape.keys,
            heads=shape.heads,
            head_dim=shape.head_dim,
        )


def random_inputs(shape: AttentionShape, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Seeded `q [1, L, N, D]`, `k, v [1, K, N, D]`, without touching torch's own generators."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(tokens: int) -> Tensor:
        size = (1, tokens, shape.heads, shape.head_dim)
        return torch.randn(size, generator=generator, device=device, dtype=shape.dtype)

    return draw(shape.queries), draw(shape.keys), draw(shape.keys)

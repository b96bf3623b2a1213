"""A process in which Triton interprets kernels on the CPU.

Triton reads `TRITON_INTERPRET` when it is imported, and what it decorates then stays interpreted:
so the interpreter gets a process of its own, and the rest of the suite may import Triton as it is.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

Result = TypeVar("Result")


class Interpreter:
    """Runs functions of importable modules in the interpreting process."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def call(self, function: Callable[..., Result], *args: object) -> Result:
        """`function(*args)` over there; everything is copied, nothing shared."""
        # Pickled here: the queue would send tensors through shared memory.
        request = pickle.dumps((function, args))
        return pickle.loads(self._pool.submit(_run, request).result(timeout=100))


@contextmanager
def interpreter() -> Generator[Interpreter]:
    """The process, for as long as the context lasts; it starts at the first call."""
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_round_to_nearest)
    try:
        pool.submit(int).result(timeout=100)
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before
    with pool:
        yield Interpreter(pool)


def _run(request: bytes) -> bytes:
    function, args = pickle.loads(request)
    return pickle.dumps(function(*args))


def _round_to_nearest() -> None:
    """Let the interpreter round as GPUs do; by itself it cuts the last bits of bfloat16 off."""
    import triton.language as tl
    from triton.runtime import interpreter as triton_interpreter

    as_it_comes = triton_interpreter._convert_float
    kinds = {tl.bfloat16: torch.bfloat16, tl.float8e4nv: torch.float8_e4m3fn}

    def convert(data: NDArray[Any], source: tl.dtype, target: tl.dtype, mode: object) -> Any:
        if source != tl.float32 or target not in kinds:
            return as_it_comes(data, source, target, mode)
        wide = torch.from_numpy(np.ascontiguousarray(data).view(np.float32))
        rounded = wide.to(kinds[target])
        bits = torch.uint16 if rounded.itemsize == 2 else torch.uint8
        return rounded.view(bits).numpy().reshape(data.shape)

    triton_interpreter._convert_float = convert

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
    """Let the interpreter round float32 to bfloat16 as GPUs do; by itself it cuts bits off."""
    import triton.language as tl
    from triton.runtime import interpreter as triton_interpreter

    as_it_comes = triton_interpreter._convert_float

    def convert(
        data: NDArray[Any], source: tl.dtype, target: tl.dtype, mode: object
    ) -> NDArray[Any]:
        if (source, target) == (tl.float32, tl.bfloat16):
            bits = np.ascontiguousarray(data).view(np.uint32)
            odd = (bits >> 16) & 1  # a tie goes to the even neighbour
            return ((bits + 0x7FFF + odd) >> 16).astype(np.uint16).reshape(data.shape)
        return as_it_comes(data, source, target, mode)

    triton_interpreter._convert_float = convert

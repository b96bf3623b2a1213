"""The interpreting process, started once for all tests of kernels."""

from __future__ import annotations

from collections.abc import Generator
from importlib.util import find_spec

import pytest

from tests.kernels.interpreter import Interpreter, interpreter


@pytest.fixture(scope="session")
def interpreted() -> Generator[Interpreter]:
    """Runs functions where Triton interprets its kernels; skips where there is no Triton."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed; it exists for Linux only")
    with interpreter() as running:
        yield running

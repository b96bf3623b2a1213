"""The kernels go through Triton's compiler for GPUs that are not here, and come out well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed; it exists for Linux only"
)
KERNELS = {
    "norm_modulate_kernel",
    "after_text_kernel",
    "add_gated_kernel",
    "after_attention_kernel",
    "heads_kernel",
    "mix_key_kernel",
}
EIGHT_BITS = {"e4m3_kernel"}  # which GPUs before capability 8.9 do not know


@pytest.mark.parametrize("capability", [80, 90])
def test_all_kernels_compile(capability: int, tmp_path: Path) -> None:
    """At the sizes of the 14B model: no register is spilled, memory is met 128 bits at a time."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compiled", str(capability)],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == (KERNELS | EIGHT_BITS if capability >= 89 else KERNELS)
    assert {name: one["spilled"] for name, one in found.items()} == dict.fromkeys(found, 0)
    assert {name: one["widest"] for name, one in found.items()} == dict.fromkeys(found, 128)

"""Loading stays light: what the pocket world does not need is not imported on its way."""

from __future__ import annotations

import subprocess
import sys


def test_loading_does_not_import_the_compiler() -> None:
    """It would take a second, half of a cold start, and 60 MB; only compiled graphs need it."""
    code = (
        "import sys, worldline\n"
        "worldline.load('pocket', device='cpu', mode='exact')\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'sympy', 'triton'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr

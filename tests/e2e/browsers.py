"""Which browser the tests and the long walk use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = f"no browser: install one of {', '.join(NAMES)} or set WORLDLINE_CHROMIUM"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_browser() -> Path | None:
    """The browser named by WORLDLINE_CHROMIUM, else the first one installed."""
    named = os.environ.get("WORLDLINE_CHROMIUM")
    if named is not None:
        return Path(named)
    found = (shutil.which(name) for name in NAMES)
    return next((Path(path) for path in found if path is not None), None)

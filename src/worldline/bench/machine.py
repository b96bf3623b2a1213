"""What a figure was measured on: processor, commit, torch, threads. Imports torch when called."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import msgspec

from worldline import __version__
from worldline.runtime.machine import UNKNOWN, processor_name

ROOT = Path(__file__).resolve().parents[3]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Hardware and software of a measurement; `commit` ends in + when files were changed since."""

    processor: str
    cores: int
    accelerator: str | None
    torch: str
    threads: int
    python: str
    system: str
    version: str
    commit: str


def describe_machine() -> Machine:
    """This process and machine as they are now."""
    import torch

    cuda = torch.cuda.is_available()
    return Machine(
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        accelerator=torch.cuda.get_device_name() if cuda else None,
        torch=str(torch.__version__),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        version=__version__,
        commit=current_commit(),
    )


def current_commit() -> str:
    """The short commit of the checkout this package runs from; `unknown` for an installed wheel."""
    if not (ROOT / ".git").exists():
        return UNKNOWN
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "src")
    return f"{commit}+" if changed else commit or UNKNOWN


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

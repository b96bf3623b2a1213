"""Make `.venv` ready: `python3 tools/setup.py [--dev]`, called by the Makefile.

Needs nothing but Python >= 3.11. Idempotent: a stamp in the environment holds the hash of what was
installed, so a second call does nothing. `--dev` adds the `models` extra and the `dev` group;
`--wheel FILE` installs a built wheel in place of this checkout (CI tries the wheel so).
The index packages come from is the machine's choice; the one host named here is PyTorch's own index
of CPU wheels, because the Linux wheels on the default index bring gigabytes of CUDA libraries.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 5.0
OLDEST = (3, 11)


def main() -> int:
    """Parse the command line, bring the environment up to date, return the exit status."""
    parser = argparse.ArgumentParser(description="make the virtual environment of this checkout")
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where it lies")
    parser.add_argument("--wheel", type=Path, help="install this wheel, not the checkout")
    args = parser.parse_args()
    if sys.version_info < OLDEST:
        print(f"setup: Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version}")
        return 1
    try:
        prepare(args.venv, dev=args.dev, wheel=args.wheel)
    except subprocess.CalledProcessError as error:
        print(f"setup: failed ({error.returncode}): {' '.join(map(str, error.cmd))}")
        return 1
    return 0


def prepare(home: Path, *, dev: bool, wheel: Path | None = None) -> None:
    """Create `home` if it is missing and install into it what its stamp does not show yet."""
    start = time.monotonic()
    python = interpreter(home)
    if not runs(python):
        if home.exists() and not (home / "pyvenv.cfg").exists():
            raise SystemExit(f"setup: {home} exists and is no virtual environment")
        say(1, f"virtual environment in {home.name} (Python {sys.version.split()[0]})")
        create(home)
    stamp = home / "worldline-setup.json"
    wanted = {"key": state_key(wheel), "dev": dev}
    if is_current(stamp, wanted):
        return
    stamp.unlink(missing_ok=True)
    say(2, "torch")
    install_torch(python)
    say(3, "worldline and its dependencies")
    subprocess.run(
        pip(python, "-c", "constraints.txt", *packages(dev=dev, wheel=wheel)), cwd=ROOT, check=True
    )
    stamp.write_text(json.dumps(wanted))
    print(f"setup: ready after {time.monotonic() - start:.0f} s", flush=True)


def create(home: Path) -> None:
    """Make a new environment at `home`; what was left half-made there goes."""
    try:
        venv.create(home, clear=home.exists(), with_pip=True)
    except subprocess.CalledProcessError:
        hint = "on Debian and Ubuntu: apt install python3-venv"
        raise SystemExit(f"setup: this Python cannot make environments with pip ({hint})") from None


def interpreter(home: Path) -> Path:
    """The Python of the environment at `home`, present or not."""
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def runs(python: Path) -> bool:
    """Whether `python` starts, is new enough and has pip (a half-made environment has not)."""
    test = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    return python.exists() and subprocess.run([python, "-c", test], check=False).returncode == 0


def state_key(wheel: Path | None) -> str:
    """Hash of the files that decide what gets installed, and of where this checkout lies."""
    digest = hashlib.sha256(str(ROOT).encode())
    files = [ROOT / name for name in ("pyproject.toml", "constraints.txt", "tools/setup.py")]
    for file in files if wheel is None else [*files, wheel]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def is_current(stamp: Path, wanted: dict[str, object]) -> bool:
    """Whether `stamp` shows `wanted`; an environment for development also serves for playing."""
    try:
        have = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return False
    return have.get("key") == wanted["key"] and bool(have.get("dev") or not wanted["dev"])


def install_torch(python: Path) -> None:
    """Install the pinned torch unless a build of it is there; CPU wheels first where they help."""
    pin = next(line for line in constraints() if line.startswith("torch=="))
    test = "from importlib.metadata import version; print('torch==' + version('torch'))"
    have = subprocess.run([python, "-c", test], capture_output=True, text=True, check=False)
    if have.stdout.strip().split("+")[0] == pin:
        return
    if sys.platform == "linux" and not has_nvidia():
        if answers(CPU_WHEELS + "/torch/", PROBE_SECONDS):
            command = pip(python, "--no-deps", "--index-url", CPU_WHEELS, pin)
            if subprocess.run(command, check=False).returncode == 0:
                return
        print("setup: PyTorch's index of CPU wheels cannot be used, taking the default index")
    subprocess.run(pip(python, "-c", "constraints.txt", pin), cwd=ROOT, check=True)


def packages(*, dev: bool, wheel: Path | None) -> list[str]:
    """What pip gets: this checkout in place or a wheel, with the extras and groups asked for."""
    if wheel is not None:
        return [f"{wheel.resolve()}[video]"]
    if not dev:
        return ["-e", ".[video]"]
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return ["-e", ".[video,rtc,models]", *expand(groups, "dev")]


def expand(groups: dict[str, list[str | dict[str, str]]], name: str) -> list[str]:
    """The requirements of a dependency group, its included groups unfolded (pip < 25.1 cannot)."""
    found: list[str] = []
    for item in groups[name]:
        found += [item] if isinstance(item, str) else expand(groups, item["include-group"])
    return found


def constraints() -> list[str]:
    """The lines of constraints.txt that pin something."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.strip() for line in lines if "==" in line and not line.startswith("#")]


def pip(python: Path, *arguments: str) -> list[str]:
    """The command line of `pip install` in the environment of `python`."""
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check", *arguments]


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is present."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def answers(url: str, seconds: float) -> bool:
    """Whether `url` answers within `seconds`, name look-up included."""
    done: list[bool] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds) as reply:
                done.append(reply.status == 200)
        except (OSError, ValueError):
            done.append(False)

    # A thread, because a look-up in an unreachable name service ignores the socket's time-out.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(done and done[0])


def say(step: int, what: str) -> None:
    """Print which of the three steps begins."""
    print(f"setup [{step}/3] {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

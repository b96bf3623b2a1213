"""`worldline doctor`: what Worldline finds on this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from worldline import __version__
from worldline.cli.options import Doctor
from worldline.core.env import (
    KNOBS,
    PREFIX,
    SECRETS,
    apply_openmp_policy,
    openmp_policy,
    read_env,
    read_secret,
)

if TYPE_CHECKING:
    from worldline.bench.fleet_plan import RankPlan
    from worldline.models.preset import Preset

PARTS = ("numpy", "msgspec", "starlette", "uvicorn", "websockets", "simplejpeg", "pillow")
# Distribution -> what is missing without it.
EXTRAS = {
    "av": 'no .mp4 films (pip install "worldline[video]"; its wheel bundles GPL x264)',
    "transformers": 'no LingBot checkpoints (pip install "worldline[models]")',
    "huggingface_hub": 'no download of checkpoints (pip install "worldline[models]")',
    "PyJWT": 'no signed tokens (pip install "worldline[auth]")',
    "cryptography": 'no --tls self-signed (pip install "worldline[tls]")',
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report; `note` says what a surprising value means."""

    topic: str
    name: str
    value: str
    note: str = ""


def doctor(options: Doctor) -> int:
    """Run the command; returns the exit code. Raises: ConfigError for an unreadable variable."""
    read_env()
    if options.memory:
        return memory(json=options.json)
    if options.devices or options.sp or options.replicas or options.vae == "own":
        return plan(options)
    openmp = dict(os.environ)  # before the policy is applied to this process
    apply_openmp_policy()
    findings = [*machine(), *torch_findings(), *packages(), *variables(openmp), *presets()]
    if options.json:
        print(msgspec.json.encode(findings).decode())
        return 0
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            print(topic)
        note = f"  ({finding.note})" if finding.note else ""
        print(f"  {finding.name:<28}{finding.value}{note}")
    return 0


def memory(*, json: bool) -> int:
    """Print the memory plan of every live preset, for one visitor; returns the exit code."""
    from worldline.bench.fits import MODES, as_markdown, need
    from worldline.models.registry import PRESETS

    needs = [
        need(preset, mode, size)
        for preset in PRESETS.values()
        if preset.live and preset.family == "lingbot"
        for mode in MODES
        for size in preset.sizes
        if size[0] > size[1]  # upright sizes take the same
    ]
    print(msgspec.json.encode(needs).decode() if json else as_markdown(needs))
    return 0


def plan(options: Doctor) -> int:
    """Print what goes where on several devices; returns the exit code. Loads nothing.

    Raises: ConfigError for devices that do not come out even, or a model that cannot be shared out.
    """
    import torch

    from worldline.bench.fleet_plan import as_text, plan_fleet
    from worldline.cli.fleet import Wish, fleet
    from worldline.models.registry import get_preset

    env = read_env()
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    wish = Wish(options.devices, options.sp, options.replicas, own_vae=options.vae == "own")
    groups = fleet(wish, device=auto if env.device == "auto" else env.device).groups
    made = plan_fleet(
        get_preset(options.model),
        groups,
        mode=options.mode or env.mode,
        own_vae=options.vae == "own",
    )
    print(msgspec.json.encode(made).decode() if options.json else as_text(made))
    if not options.json:
        for line in _doubts([rank for replica in made.replicas for rank in replica]):
            print(line)
    return 0


def _doubts(ranks: list[RankPlan]) -> list[str]:
    """What speaks against a plan on this machine: GPUs that are not here, or have too little."""
    import torch

    from worldline.runtime.memory import USABLE

    needed: Counter[int] = Counter()
    for rank in ranks:
        if rank.device != "cpu":
            index = int(rank.device.partition(":")[2] or 0)
            needed[index] += rank.weights + rank.session + rank.workspace
    here = range(torch.cuda.device_count())
    missing = [f"cuda:{index}" for index in needed if index not in here]
    doubts = [f"not on this machine: {', '.join(missing)}"] if missing else []
    for index in here:
        room = USABLE * torch.cuda.get_device_properties(index).total_memory
        if needed[index] > room:
            told = f"{needed[index] / 1e9:.1f} GB needed for one world, {room / 1e9:.1f} there"
            doubts.append(f"cuda:{index} is too small: {told}")
    return doubts


def machine() -> list[Finding]:
    """Processor, cores, memory, Python."""
    from worldline.bench.machine import current_commit
    from worldline.runtime.machine import processor_name

    rows = {
        "worldline": f"{__version__}, commit {current_commit()}",
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        rows["memory"] = f"{size / 2**30:.1f} GiB"
    if os.path.isdir("/dev/shm"):
        rows["shared memory"] = f"{shutil.disk_usage('/dev/shm').free / 2**30:.1f} GiB free"
    return [Finding(topic="machine", name=name, value=value) for name, value in rows.items()]


def torch_findings() -> list[Finding]:
    """Torch, its threads and its devices."""
    import torch

    rows = {
        "torch": str(torch.__version__),
        "threads by default": f"{torch.get_num_threads()}",
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        rows[f"cuda:{i}"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        rows["cuda"] = "none found: models run on the CPU"
    return [Finding(topic="torch", name=name, value=value) for name, value in rows.items()]


def packages() -> list[Finding]:
    """Versions of what is installed, and what is missing for want of an extra."""
    found = [Finding(topic="packages", name=n, value=_version(n)) for n in PARTS]
    for name, missing in EXTRAS.items():
        version = _version(name)
        note = missing if version == "missing" else ""
        found.append(Finding(topic="packages", name=name, value=version, note=note))
    return found


def variables(environ: dict[str, str]) -> list[Finding]:
    """Every variable we read, and OpenMP's with what the worker gets."""
    values = msgspec.to_builtins(read_env(environ))
    found: list[Finding] = []
    for name, meaning in KNOBS.items():
        variable = PREFIX + name.upper()
        value = "unset" if values[name] is None else f"{values[name]}"
        found.append(Finding(topic="environment", name=variable, value=value, note=meaning))
    for name, meaning in SECRETS.items():
        value = "unset" if read_secret(name, environ) is None else "set"
        variable = PREFIX + name.upper()
        found.append(Finding(topic="environment", name=variable, value=value, note=meaning))
    for name, wanted in openmp_policy(None).items():
        value = environ.get(name, "unset")
        note = f"the worker is started with {wanted}"
        found.append(Finding(topic="environment", name=name, value=value, note=note))
    return found


def presets() -> list[Finding]:
    """Presets by name, and where their weights come from."""
    from worldline.models.registry import PRESETS

    return [
        Finding(topic="presets", name=name, value=weights_of(preset), note=preset.licence)
        for name, preset in PRESETS.items()
    ]


def weights_of(preset: Preset) -> str:
    """The embedded weights as they lie on disk, or the hub repository."""
    from worldline.runtime.hub import packaged

    if preset.hub_id is not None:
        return f"{preset.hub_id}, {preset.download_bytes / 1e9:.0f} GB"
    files = sorted(packaged(preset.family).glob("*.safetensors"))
    return ", ".join(f"{f.name}, {f.stat().st_size / 1e6:.1f} MB" for f in files) or "missing"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"

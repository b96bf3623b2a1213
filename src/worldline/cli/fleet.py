"""Which devices serve, and how: replicas side by side, each one device or ranks that share a chunk.

--devices 0,1,2,3                 four replicas
--devices 0,1,2,3 --sp 4          one replica of four ranks
--devices 0,1,2,3 --sp 2          two replicas of two ranks each
--sp 2                            two ranks on the first two GPUs, or on the CPU where none is
--devices 0,1,2,3 --vae own       three ranks, and the autoencoder on the fourth device
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from worldline.core.errors import ConfigError
from worldline.runtime.protocol import WorkerSettings

MOST = 64  # processes on one machine
KNOWN = "numbers of GPUs, cuda:N or cpu, such as 0,1 or cpu,cpu"


class Wish(NamedTuple):
    """What the command line says; None leaves it open. `device` is that of `--device`.

    With `own_vae` every replica has a device for its autoencoder beside its ranks. There is no
    `ring` of more than 1.
    """

    devices: str | None = None
    sp: int | None = None
    replicas: int | None = None
    device: str | None = None
    own_vae: bool = False
    ring: int = 1


class Fleet(NamedTuple):
    """The devices of every replica, in order of their ranks; that of an `own_vae` is last."""

    groups: tuple[tuple[str, ...], ...]
    own_vae: bool = False

    @property
    def ranks(self) -> int:
        """How many share out every chunk."""
        return len(self.groups[0]) - self.own_vae

    @property
    def replicas(self) -> int:
        """How many work side by side."""
        return len(self.groups)

    def settings(self, base: WorkerSettings) -> list[WorkerSettings]:
        """What the worker of each replica loads."""
        if self.groups == ((base.device,),):
            return [base]
        return [
            msgspec.structs.replace(
                base,
                device=group[0],
                devices=group if len(group) > 1 else (),
                own_vae=self.own_vae,
            )
            for group in self.groups
        ]


def fleet(wish: Wish, *, device: str) -> Fleet:
    """The fleet that was asked for; `device` is where one worker would compute.

    Raises: ConfigError for devices that cannot be read or do not come out even.
    """
    for name, value in (("--sp", wish.sp), ("--replicas", wish.replicas)):
        if value is not None and value < 1:
            raise ConfigError(f"unusable {name}", expected="1 or more", got=value)
    if wish.ring != 1:
        raise ConfigError(
            "ring attention is not supported", expected="--ring 1, and --sp", got=wish.ring
        )
    if wish.devices is not None and wish.device is not None:
        raise ConfigError(
            "--device and --devices say different things", expected="one of them", got="both"
        )
    count = None if wish.devices is None else len(read_devices(wish.devices))
    sp, replicas = _shape(count, wish)
    if (processes := (sp + wish.own_vae) * replicas) > MOST:  # before any of them is started
        raise ConfigError("too many processes", expected=f"at most {MOST}", got=processes)
    names = (
        _several(device, (sp + wish.own_vae) * replicas)
        if wish.devices is None
        else read_devices(wish.devices)
    )
    size = sp + wish.own_vae
    groups = tuple(tuple(names[i * size : (i + 1) * size]) for i in range(replicas))
    for group in groups:
        _check_group(group)
    return Fleet(groups, wish.own_vae)


def read_devices(text: str) -> list[str]:
    """`0,1` as cuda:0 and cuda:1; names as they are. Raises: ConfigError."""
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if not re.fullmatch(r"\d{1,3}|cuda:\d{1,3}|cpu", name):
            raise ConfigError("unreadable --devices", expected=KNOWN, got=text)
    return [f"cuda:{int(name)}" if name.isdigit() else name for name in names]


def _shape(count: int | None, wish: Wish) -> tuple[int, int]:
    """Ranks a replica, and replicas."""
    if count is None:
        return wish.sp or 1, wish.replicas or 1
    own = wish.own_vae
    if wish.sp is None and wish.replicas is None and not own:
        return 1, count
    sp = wish.sp or count // (wish.replicas or 1) - own
    replicas = wish.replicas or count // (sp + own or 1)
    if (sp + own) * replicas != count or not sp * replicas:
        asked = [f"--sp {wish.sp}"] if wish.sp else []
        asked += [f"--replicas {wish.replicas}"] if wish.replicas else []
        asked += ["--vae own"] if own else []
        raise ConfigError(
            "the devices do not come out even",
            expected="as many devices as ranks times replicas"
            + (", and one more for each replica" if own else ""),
            got=f"{count} devices for {' '.join(asked)}",
        )
    return sp, replicas


def _several(device: str, count: int) -> list[str]:
    """So many devices of the kind of one."""
    if count == 1:
        return [device]
    if device.startswith("cuda:"):
        raise ConfigError("one device is not enough", expected="--devices", got=device)
    return [device if device == "cpu" else f"{device}:{i}" for i in range(count)]


def _check_group(group: tuple[str, ...]) -> None:
    """Ranks that share a chunk are all on the CPU, or on a GPU each."""
    on_cpu = [name == "cpu" for name in group]
    repeated = not any(on_cpu) and len(set(group)) < len(group)
    if repeated or (any(on_cpu) and not all(on_cpu)):
        raise ConfigError(
            "these devices cannot share a chunk",
            expected="a GPU for every rank, or the CPU for all of them",
            got=",".join(group),
        )

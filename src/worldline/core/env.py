"""Every environment variable Worldline reads, typed, in one place; `worldline doctor` prints them.

A command-line option always wins over its variable. The OpenMP variables at the end are not ours
but must be set before torch loads: with the default policy, idle OpenMP threads spin, and one busy
neighbour on a two-core machine slows a block of the model from 3 ms to 300 ms.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Literal

import msgspec

from worldline.core.errors import ConfigError
from worldline.core.secret import Secret

PREFIX = "WORLDLINE_"

KNOBS: dict[str, str] = {
    "device": "device of the model: auto, cpu, cuda, cuda:1, ...",
    "mode": "exact (same input, same bits), fast or 8bit",
    "threads": "CPU threads of the worker; unset: decided by the mode",
    "log_level": "debug, info, warning or error; unset: info for `serve`, warning for `play`",
    "browser": "false keeps `play` from opening a browser",
    "all_to_all": "of several GPUs: plain (NCCL), or measured (symmetric memory where faster)",
}


SECRETS: dict[str, str] = {
    "api_keys": "keys of a server that others can reach: name:secret[:admin],...",
    "jwt_secret": "what signed tokens (HS256) are checked with",
    "token": "the key of a server that `bench served` and `bench latency` visit",
}


class Env(msgspec.Struct, frozen=True, kw_only=True):
    """The variables, without prefix and in lower case; what each does stands in `KNOBS`."""

    device: str = "auto"
    mode: Literal["exact", "fast", "8bit"] = "exact"
    threads: int | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    browser: bool = True
    all_to_all: Literal["plain", "measured"] = "plain"


def read_env(environ: Mapping[str, str] = os.environ) -> Env:
    """The knobs as they are set now. Raises: ConfigError for a value of the wrong type."""
    env = Env()
    for name in KNOBS:
        variable = PREFIX + name.upper()
        if variable in environ:
            env = _with(env, name, variable, environ[variable])
    return env


def _with(env: Env, name: str, variable: str, text: str) -> Env:
    try:
        return msgspec.convert({**msgspec.structs.asdict(env), name: text}, Env, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at ")[0]
        raise ConfigError(f"the variable {variable} cannot be read: {reason}", got=text) from None


def read_secret(name: str, environ: Mapping[str, str] = os.environ) -> Secret | None:
    """One of `SECRETS`, if it is set and not empty."""
    assert name in SECRETS, name
    text = environ.get(PREFIX + name.upper(), "")
    return Secret(text) if text else None


def openmp_policy(threads: int | None) -> dict[str, str]:
    """OpenMP variables for a process that will load torch; `threads` None leaves the count alone.

    `KMP_BLOCKTIME` is for libomp (macOS, Windows), `OMP_WAIT_POLICY` for libgomp (Linux).
    """
    policy = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    if threads is not None:
        policy["OMP_NUM_THREADS"] = str(threads)
    return policy


def apply_openmp_policy(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the policy for this process where the user has not; torch must not be loaded yet."""
    for name, value in openmp_policy(None).items():
        environ.setdefault(name, value)

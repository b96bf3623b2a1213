"""Parity group `scheduler*`: step tables, DMD steps, warped tables, whole runs, recorded noise.

Whole runs are those of the Euler, UniPC and dpm++ samplers on a recorded pseudo model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldline.bench.parity_case import (
    EXACT,
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    not_yet,
    report_unread,
)
from worldline.sampling.dmd import euler_step, renoise, to_x0
from worldline.sampling.schedules import (
    TRAIN_STEPS,
    OfficialTable,
    official_schedule,
    official_table,
    shifted_twice_schedule,
    warped_schedule,
    warped_table,
)
from worldline.sampling.solvers import multistep

# Step indices of the two published releases, by the names the files use for them.
_RELEASES = {"v1": [0, 179, 358, 679], "v2": [0, 250, 500, 750]}
_NOISE = "_pseudo_noise"
_TABLE = "_dmd_table.json"
_SERIES = re.compile(r"(dmd|warp|euler|unipc|dpmpp)\.shift(\d+(?:\.\d+)?)\.(.+)")
_SEED = re.compile(r"manual_seed\((\d+)\s*\+\s*i\)")
_SOLVERS = {"unipc": "unipc", "dpmpp": "dpm++"}  # by the names the files use for them


class _Series(NamedTuple):
    """One run or table in a scheduler file: its tensors are named `<case>.<tensor>`."""

    golden: GoldenFile
    case: str
    shift: float
    item: str
    directory: Path

    def tensor(self, name: str) -> Tensor:
        return self.golden[f"{self.case}.{name}"]


def cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """One row per series of a scheduler file, of its step table, or of its recorded noise."""
    if path.suffix == ".json":
        yield from _table_cases(path)
    elif path.stem.endswith(_NOISE):
        yield from _noise_cases(path, directory)
    else:
        yield from _series_cases(path, directory)


def _series_cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    golden = GoldenFile(path)
    found = {_split(name) for name in golden.names()} - {("", "", "")}
    for kind, shift, item in sorted(found):
        case = ".".join(part for part in (kind, f"shift{shift}", item) if part)
        series = _Series(golden, case, float(shift), item, directory)
        yield judge(path.name, case, partial(_CHECKS[kind], series))
    yield from report_unread(golden)


def _split(name: str) -> tuple[str, str, str]:
    """Kind, shift and item of a tensor name; the item of a full table is empty."""
    found = _SERIES.fullmatch(name)
    if found is None:
        return "", "", ""
    kind, shift, rest = found[1], found[2], found[3]
    if kind == "dmd" and "." not in rest:
        return kind, shift, ""
    return kind, shift, rest.split(".")[0]


def _dmd(series: _Series) -> Iterator[Difference]:
    if not series.item:
        yield from _official_table(series)
        return
    indices = _step_indices(series)
    schedule = official_schedule(series.shift, indices)
    table = official_table(series.shift)
    again = table.sigmas[_second_matches(table, schedule.timesteps)]
    yield compare("timesteps", schedule.timesteps, series.tensor("timesteps"), EXACT)
    yield compare("sigma_x0", schedule.sigma_x0, series.tensor("sigma_x0"))
    yield compare("sigma_renoise", again, series.tensor("sigma_renoise"))
    yield compare("sigma_renoise used", schedule.sigma_renoise, series.tensor("sigma_renoise")[1:])
    for i, sigma in enumerate(schedule.sigma_x0):
        x0 = to_x0(series.tensor(f"step{i}.xt"), series.tensor(f"step{i}.flow"), sigma)
        yield compare(f"step{i}.x0", x0, series.tensor(f"step{i}.x0"))
        if i < len(schedule.sigma_renoise):
            eps = series.tensor(f"step{i}.eps")
            x = renoise(x0, eps, schedule.sigma_renoise[i])
            yield compare(f"step{i}.renoised", x, series.tensor(f"step{i}.renoised"))


def _official_table(series: _Series) -> Iterator[Difference]:
    timesteps, sigmas = series.tensor("timesteps"), series.tensor("sigmas")
    table = official_table(series.shift, len(timesteps))
    yield compare("timesteps", table.timesteps, timesteps, EXACT)
    yield compare("sigmas", table.sigmas, sigmas)


def _step_indices(series: _Series) -> list[int]:
    """From the readable table beside the file, else of the published release of that name, else
    from the timesteps themselves: all that matters is which entries of the table they name."""
    path = series.directory / f"{series.golden.path.stem}{_TABLE}"
    known = json.loads(path.read_text()) if path.is_file() else {}
    entry = known.get(series.case.removeprefix("dmd."))
    if entry is not None:
        return [int(i) for i in entry["index"]]
    if series.item in _RELEASES:
        return _RELEASES[series.item]
    table = official_table(series.shift).timesteps
    return [int(np.flatnonzero(table == t)[0]) for t in series.tensor("timesteps").tolist()]


def _second_matches(table: OfficialTable, timesteps: Sequence[float]) -> list[int]:
    """Where re-noising looks: the second entry of a timestep if there are several."""
    return [int(np.flatnonzero(table.timesteps == t)[:2][-1]) for t in timesteps]


def _warp(series: _Series) -> Iterator[Difference]:
    if series.item == "addnoise":
        yield from _warp_noise(series)
        return
    schedule = warped_schedule(series.shift, [int(step) for step in series.item.split("_")])
    yield compare("timesteps", schedule.timesteps, series.tensor("timesteps"))
    sigmas = [t / TRAIN_STEPS for t in series.tensor("timesteps").tolist()]
    yield compare("sigmas", schedule.sigma_x0, sigmas)


def _warp_noise(series: _Series) -> Iterator[Difference]:
    """Noise put on with the sigma of the nearest table entry, one timestep per sample."""
    table = warped_table(series.shift)
    x0, eps = series.tensor("x0"), series.tensor("eps")
    sigmas = [
        float(table.sigmas[abs(table.timesteps - t).argmin()]) for t in series.tensor("t").tolist()
    ]
    ours = [renoise(a, e, sigma) for a, e, sigma in zip(x0, eps, sigmas, strict=True)]
    yield compare("out", torch.stack(ours), series.tensor("out"))


def _euler(series: _Series) -> Iterator[Difference]:
    noise = GoldenFile(series.directory / f"{series.golden.path.stem}{_NOISE}.safetensors")
    schedule = shifted_twice_schedule(series.shift, int(series.item.removeprefix("n")))
    sigmas = (*schedule.sigma_x0, 0.0)
    yield compare("timesteps", schedule.timesteps, series.tensor("timesteps"))
    yield compare("sigmas", sigmas, series.tensor("sigmas"))
    x = series.tensor("x0_noise")
    steps: list[Tensor] = []
    for i, (sigma, after) in enumerate(pairwise(sigmas)):
        x = euler_step(x, _pseudo_flow(x, noise[f"n{i}"]), sigma, after)
        steps.append(x[0])
    yield compare("trajectory", torch.stack(steps), series.tensor("trajectory"))


def _multistep(series: _Series) -> Iterator[Difference]:
    """A run of a solver that has to take up its work again in the middle."""
    noise = GoldenFile(series.directory / f"{series.golden.path.stem}{_NOISE}.safetensors")
    kind = _SOLVERS[series.case.partition(".")[0]]
    steps = int(series.item.removeprefix("n"))
    solver = multistep(kind, series.shift, steps)
    yield compare("timesteps", list(solver.timesteps), series.tensor("timesteps"), EXACT)
    yield compare("sigmas", solver.sigmas, series.tensor("sigmas"))
    x = series.tensor("x0_noise")
    made: list[Tensor] = []
    for i in range(steps):
        if i == steps // 2:
            memory, solver = solver.memory, multistep(kind, series.shift, steps)
            solver.restore(memory)
        x = solver.step(_pseudo_flow(x, noise[f"n{i}"]), x)
        made.append(x[0])
    yield compare("trajectory", torch.stack(made), series.tensor("trajectory"))


def _pseudo_flow(x: Tensor, noise: Tensor) -> Tensor:
    """The recorded pseudo model."""
    return 0.6 * torch.roll(x, 1, -1) + 0.4 * noise


_CHECKS = {
    "dmd": _dmd,
    "warp": _warp,
    "euler": _euler,
    "unipc": _multistep,
    "dpmpp": _multistep,
}


def _noise_cases(path: Path, directory: Path) -> Iterator[CaseResult]:
    """Recorded noise is input; it can be checked where the scheduler file tells its seeds."""
    golden = GoldenFile(path)
    owner = GoldenFile(directory / f"{path.stem.removesuffix(_NOISE)}.safetensors")
    found = _SEED.search(owner.meta.get("pseudo_model", ""))
    if found is None:
        for name in golden.names():
            golden[name]
        yield not_yet(path.name, "noise", "input only; the scheduler file tells no seeds")
        return
    yield judge(path.name, "noise", lambda: _compare_noise(golden, int(found[1])))
    yield from report_unread(golden)


def _compare_noise(golden: GoldenFile, seed: int) -> Iterator[Difference]:
    for name in golden.names("n"):
        generator = torch.Generator().manual_seed(seed + int(name[1:]))
        want = golden[name]
        yield compare(name, torch.randn(want.shape, generator=generator), want)


def _table_cases(path: Path) -> Iterator[CaseResult]:
    for case, entry in json.loads(path.read_text()).items():
        yield judge(path.name, case, partial(_readable, case, entry))


def _readable(case: str, entry: dict[str, Any]) -> Iterator[Difference]:
    """The step table in readable form, with the table positions both look-ups end at."""
    shift = float(case.removeprefix("shift").rpartition(".")[0])
    table, schedule = official_table(shift), official_schedule(shift, entry["index"])
    first = [int(np.flatnonzero(table.timesteps == t)[0]) for t in schedule.timesteps]
    second = _second_matches(table, schedule.timesteps)
    yield compare("t", schedule.timesteps, entry["t"], EXACT)
    yield compare("idx_first", first, entry["idx_first"], EXACT)
    yield compare("idx_second", second, entry["idx_second"], EXACT)
    yield compare("sigma_at_index", table.sigmas[entry["index"]], entry["sigma_at_index"])
    yield compare("sigma_x0", schedule.sigma_x0, entry["sigma_x0"])
    yield compare("sigma_renoise", table.sigmas[second], entry["sigma_renoise"])
    yield compare("sigma_renoise used", schedule.sigma_renoise, entry["sigma_renoise"][1:])

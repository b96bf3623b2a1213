"""`worldline bench parallel`: several ranks against one, and against the formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from worldline.cli.bench_scaling import draw, estimates
from worldline.cli.loading import parse_size, progress_bar
from worldline.cli.options import BenchParallel
from worldline.core.env import apply_openmp_policy
from worldline.core.errors import ConfigError

if TYPE_CHECKING:
    from worldline.bench.parallel import ParallelFigures, Walk
    from worldline.bench.parallel_ranks import Job
    from worldline.bench.scaling import Scaling

BROKEN_PROMISE_EXIT = 1


def parallel(options: BenchParallel) -> int:
    """Run the command; returns 1 where ranks do not equal one, or send other than computed."""
    apply_openmp_policy()
    ranks = parse_ranks(options.ranks)
    if options.chunks < 1:
        raise ConfigError("nothing to measure", expected="--chunks 1 or more", got=options.chunks)
    if options.picture is not None and not options.picture.absolute().parent.is_dir():
        raise ConfigError("no folder for the picture", got=str(options.picture.parent))
    job = _job(options, ranks) if ranks else None
    found = estimates(options)
    if options.picture is not None and not found:
        raise ConfigError("nothing to draw", expected="--estimate PRESET")
    figures = None if job is None else _measured(job, ranks)
    _print(figures, found, json=options.json)
    if options.picture is not None:
        draw(options.picture, found, options.estimate)
    return 0 if figures is None or figures.kept else BROKEN_PROMISE_EXIT


def _job(options: BenchParallel, ranks: list[int]) -> Job:
    """What ranks are to do, checked as far as it can be here. Raises: ConfigError."""
    from worldline.bench.parallel_ranks import Job, check_devices

    job = Job(
        walks=_walks(options),
        chunks=options.chunks,
        device=_device(options, max(ranks)),
        model=options.model,
        random_weights=options.random_weights,
        dtype=options.dtype,
        mode=options.mode or "exact",
    )
    check_devices(job.device, max(ranks))
    return job


def _measured(job: Job, ranks: list[int]) -> ParallelFigures:
    from worldline.bench.parallel_ranks import measure_parallel

    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        return measure_parallel(
            job, ranks, lambda size: bar.update(task, description=f"{size} ranks")
        )


def _print(figures: ParallelFigures | None, found: list[Scaling], *, json: bool) -> None:
    from worldline.bench import parallel as measured
    from worldline.bench import scaling_report

    if json:
        told = {} if figures is None else msgspec.to_builtins(figures)
        print(msgspec.json.encode({**told, "estimates": found}).decode())
        return
    tables = [] if figures is None else [measured.as_table(figures)]
    tables += [scaling_report.as_table(found)] if found else []
    print("\n\n".join(tables))


def parse_ranks(text: str) -> list[int]:
    """`2,3,4` as numbers, `none` as no numbers. Raises: ConfigError."""
    if text.strip() == "none":
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) >= 2 for part in parts):
        raise ConfigError(
            "these are no numbers of ranks", expected="2 or more, such as 2,3,4", got=text
        )
    return list(dict.fromkeys(map(int, parts)))


def _walks(options: BenchParallel) -> tuple[Walk, ...]:
    """One that divides, and of the small world two that do not: 4k+1 and 4k+3 tokens a chunk."""
    from worldline.bench.parallel import Walk

    width, height = parse_size(options.size)
    if options.model is not None or width is not None:
        return (Walk(width=width, height=height, chunk=options.chunk),)
    sizes = ((64, 48, 3), (48, 48, 1), (80, 48, 1))
    return tuple(Walk(width=w, height=h, chunk=chunk) for w, h, chunk in sizes)


def _device(options: BenchParallel, ranks: int) -> str:
    """GPUs where a model is named and there are enough of them; the small world is for the CPU."""
    if options.device == "cuda" and options.model is None:
        raise ConfigError("the small world computes on the CPU", expected="--model", got="cuda")
    if options.device != "auto":
        return options.device
    if options.model is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.device_count() >= ranks else "cpu"

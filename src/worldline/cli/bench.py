"""`worldline bench chunk`, `worldline bench soak` and `worldline bench parity`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from worldline.cli.loading import load_world, parse_size, progress_bar, worker_settings
from worldline.cli.options import BenchChunk, BenchParity, BenchQuality, BenchSoak, SessionOptions
from worldline.core.config import EngineOptions
from worldline.core.env import apply_openmp_policy
from worldline.core.errors import ConfigError
from worldline.runtime.savings import check_savings

if TYPE_CHECKING:
    from worldline.bench.ablate import Variant
    from worldline.bench.chunk import ChunkFigures, ChunkRequest
    from worldline.runtime.engine import World

BROKEN_PROMISE_EXIT = 1


def chunk(options: BenchChunk) -> int:
    """Run the command; returns 1 when a saving did not keep the promise of its class."""
    _check(options.chunks, options.picture)
    if options.ablate not in (None, "all"):
        check_savings([options.ablate])
    size = parse_size(options.session.size)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler announces itself on stderr
    world = load_world(worker_settings(options.load), synchronise=True)
    from worldline.bench.chunk import measure_chunks

    request = _request(options.chunks, options.session, size)
    with progress_bar() as bar:
        task = bar.add_task("measuring chunks", total=None)
        figures = measure_chunks(
            world, request, lambda done, total: bar.update(task, completed=done, total=total)
        )
    ablation = None
    if options.ablate is not None:
        ablation = _ablation(world, request, options.ablate)
    _print_chunk(options, figures, ablation)
    if options.picture is not None:
        _draw_chunk(options.picture, figures, ablation)
    kept = ablation is None or all(variant.kept for variant in ablation.values())
    return 0 if kept else BROKEN_PROMISE_EXIT


def _ablation(world: World, request: ChunkRequest, name: str) -> dict[str, Variant]:
    from worldline.bench.ablate import chosen, measure_ablation

    variants = chosen(name)
    with progress_bar() as bar:
        task = bar.add_task("switching savings off", total=None)
        return measure_ablation(
            world,
            request,
            variants,
            on_chunk=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _print_chunk(
    options: BenchChunk, figures: ChunkFigures, ablation: dict[str, Variant] | None
) -> None:
    from worldline.bench import ablate
    from worldline.bench.chunk_report import as_markdown, as_table

    if options.json:
        found = msgspec.to_builtins(figures)
        if ablation is not None:
            found["ablation"] = msgspec.to_builtins(ablation)
        print(msgspec.json.encode(found).decode())
        return
    print(as_markdown(figures) if options.markdown else as_table(figures))
    if ablation is not None:
        table = ablate.as_markdown if options.markdown else ablate.as_table
        print(f"\n{table(ablation)}")


def _draw_chunk(path: Path, figures: ChunkFigures, ablation: dict[str, Variant] | None) -> None:
    from worldline.bench.ablate import as_panel
    from worldline.bench.chunk_report import as_panels, headline
    from worldline.bench.picture import draw

    panels = as_panels(figures)
    draw(path, headline(figures), panels if ablation is None else [*panels, as_panel(ablation)])


def soak(options: BenchSoak) -> int:
    """Run the command; returns the exit code."""
    _check(options.chunks, options.picture)
    size = parse_size(options.session.size)
    # What a session may go back to grows up to its budget, by design, and would hide a leak.
    world = load_world(worker_settings(dataclasses.replace(options.load, timeline_mb=0)))
    from worldline.bench.picture import draw
    from worldline.bench.soak import as_panels, as_table, headline, measure_soak

    with progress_bar() as bar:
        task = bar.add_task("generating", total=options.chunks)
        figures = measure_soak(
            world,
            _request(options.chunks, options.session, size),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(msgspec.json.encode(figures).decode() if options.json else as_table(figures))
    if options.picture is not None:
        draw(options.picture, headline(figures), as_panels(figures))
    return 0


def _check(chunks: int, picture: Path | None) -> None:
    """Refuse before a model is loaded what would fail after hours. Raises: ConfigError."""
    if chunks < 1:
        raise ConfigError("nothing to measure", expected="--chunks 1 or more", got=chunks)
    if picture is not None and not picture.absolute().parent.is_dir():
        raise ConfigError("no folder for the picture", got=str(picture.parent))


def _request(
    chunks: int, asked: SessionOptions, size: tuple[int, int] | tuple[None, None]
) -> ChunkRequest:
    from worldline.bench.chunk import ChunkRequest

    return ChunkRequest(
        chunks=chunks,
        width=size[0],
        height=size[1],
        chunk=asked.chunk,
        window=asked.window,
        sink=asked.sink,
        shift=asked.shift,
        steps=asked.steps,
    )


def quality(options: BenchQuality) -> int:
    """Run the command; returns 1 when the picture is worse than allowed."""
    settings = worker_settings(options.load)
    if settings.dtype is None:
        settings = msgspec.structs.replace(settings, dtype="bfloat16")
    plain = msgspec.structs.replace(
        settings, mode="exact", options=EngineOptions(camera_cache=settings.options.camera_cache)
    )
    if settings == plain:
        raise ConfigError("nothing to judge", expected="--mode 8bit, --kv 8bit or another change")
    from worldline.bench import quality as judge

    starts = judge.gallery_starts(options.walks)
    candidate = load_world(settings)
    reference = load_world(plain)  # last: the torch flags of its exact mode are for both
    with progress_bar() as bar:
        task = bar.add_task("walking", total=None)
        figures = judge.measure_quality(
            reference,
            candidate,
            starts,
            chunks=options.chunks,
            on_chunk=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if options.json:
        print(msgspec.json.encode(figures).decode())
    else:
        print(judge.as_markdown(figures) if options.markdown else judge.as_table(figures))
    return 0 if figures.kept else BROKEN_PROMISE_EXIT


def parity(options: BenchParity) -> int:
    """Run the command; returns 1 when a number misses its tolerance."""
    apply_openmp_policy()
    from worldline.bench.parity import main

    return main(options.folder, json=options.json, ranks=options.ranks)

"""From options to a loaded model, in this process or in a worker, with a progress display."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from worldline.cli.options import ModelOptions
from worldline.core.config import EngineOptions, WorldInfo
from worldline.core.env import apply_openmp_policy, read_env
from worldline.core.errors import ConfigError
from worldline.runtime.protocol import WorkerSettings
from worldline.runtime.savings import check_levers

if TYPE_CHECKING:
    from worldline.runtime.engine import World

ENGINE = "worldline.runtime.engine:load"
STILL = "worldline.bench.still:load"


def worker_settings(options: ModelOptions) -> WorkerSettings:
    """Options over environment variables over defaults. Raises: ConfigError."""
    env = read_env()
    check_levers(options.lossy)
    still = options.model.partition("-")[0] == "still"  # no model, for measurements
    return WorkerSettings(
        model=options.model,
        engine=STILL if still else ENGINE,
        device=options.device or env.device,
        dtype=options.dtype,
        mode=options.mode or env.mode,
        random_weights=options.random_weights,
        threads=env.threads if options.threads is None else options.threads,
        options=EngineOptions(
            camera_cache=options.camera_cache,
            kernels=options.kernels,
            kv=options.kv,
            decoder=options.decoder,
            offload=options.offload,
            resident_blocks=options.resident_blocks,
            text_encoder=options.text_encoder,
            compile=options.compile,
            graphs=options.graphs,
            recache=options.recache,
            lossy=options.lossy,
            first_chunks_mb=options.first_chunks_mb,
            timeline_mb=options.timeline_mb,
            loras=options.lora,
        ),
    )


def load_world(settings: WorkerSettings, *, synchronise: bool = False) -> World:
    """Load in this process: imports torch. Raises: ConfigError, CheckpointError."""
    apply_openmp_policy()
    with LoadingDisplay(settings.model) as display:
        from worldline.runtime.engine import load

        world = load(
            settings.model,
            device=settings.device,
            dtype=settings.dtype,
            mode=settings.mode,
            random_weights=settings.random_weights,
            threads=settings.threads,
            options=settings.options,
            synchronise=synchronise,
            progress=display.report,
        )
    show_notice(world.info)
    return world


def show_notice(info: WorldInfo) -> None:
    """Print what the licence of the weights asks users to be told, on stderr."""
    if info.notice is not None:
        print(info.notice, file=sys.stderr, flush=True)


def parse_size(text: str | None) -> tuple[int, int] | tuple[None, None]:
    """`832x480` as (width, height); None stays open. Raises: ConfigError."""
    if text is None:
        return None, None
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text.strip())
    if found is None:
        raise ConfigError("the size cannot be read", expected="WxH, such as 832x480", got=text)
    return int(found[1]), int(found[2])


class LoadingDisplay:
    """A line on the terminal (stderr) that says what is being loaded; gone when it is done."""

    def __init__(self, model: str) -> None:
        self._progress = progress_bar()
        self._model = model
        self._task: TaskID | None = None

    def report(self, done: int, total: int, stage: str) -> None:
        """Show `done` of `total` (0 = unknown) of a stage."""
        if self._task is not None:
            description = f"loading {self._model}: {stage}"
            self._progress.update(
                self._task, description=description, completed=done, total=total or None
            )

    def __enter__(self) -> LoadingDisplay:
        self._progress.start()
        self._task = self._progress.add_task(f"loading {self._model}", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()


def progress_bar(*columns: TextColumn) -> Progress:
    """A transient bar on stderr, with more columns at its end; silent without a terminal."""
    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )

"""`worldline bench latency` and `bench served`: live sessions, seen from the other end."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from worldline.cli.bench_start import arguments_of
from worldline.cli.loading import progress_bar
from worldline.cli.options import BenchLatency, BenchServed
from worldline.core.env import read_secret
from worldline.core.errors import ConfigError

MISSED_EXIT = 1
MOST_SECONDS = 86_400.0


def latency(options: BenchLatency) -> int:
    """Run the command; returns 1 when the 95th percentile is later than it may be."""
    _check(options.seconds, options.picture)
    from worldline.bench import latency as bench
    from worldline.bench.latency_report import show
    from worldline.bench.picture import draw
    from worldline.bench.walker import need_browser, walk

    need_browser()
    with _server(options.url, arguments_of(options.load)) as url, progress_bar() as bar:
        task = bar.add_task("walking", total=round(options.seconds))
        found = walk(
            url,
            options.seconds,
            token=read_secret("token"),
            on_time=lambda s: bar.update(task, completed=round(s)),
        )
    figures = bench.figures_of(found)
    if options.json:
        print(msgspec.json.encode(figures).decode())
    else:
        show(figures, Console())
    if options.picture is not None:
        draw(options.picture, bench.headline(figures), bench.as_panels(figures))
    return 0 if figures.kept else MISSED_EXIT


def served(options: BenchServed) -> int:
    """Run the command; returns the exit code."""
    _check(options.seconds, options.picture)
    if options.worlds < 1:
        raise ConfigError("nothing to measure", expected="--worlds 1 or more", got=options.worlds)
    from worldline.bench import served as bench
    from worldline.bench.picture import draw
    from worldline.bench.served_report import show
    from worldline.client import AsyncClient

    with _settings(options.worlds) as settings:
        arguments = ["--config", str(settings), *arguments_of(options.load)]
        with _server(options.url, arguments) as url, progress_bar() as bar:
            task = bar.add_task("walking", total=round(options.seconds))
            figures = bench.measure_served(
                AsyncClient(url, token=read_secret("token")),
                options.worlds,
                options.seconds,
                format=options.format,
                greedy=options.greedy,
                on_time=lambda s: bar.update(task, completed=round(s)),
            )
    if options.json:
        print(msgspec.json.encode(figures).decode())
    else:
        show(figures, Console())
    if options.picture is not None:
        draw(options.picture, bench.headline(figures), bench.as_panels(figures))
    return 0


def _check(seconds: float, picture: Path | None) -> None:
    """Refuse before a server is started what would fail at the end. Raises: ConfigError."""
    if not 1 <= seconds <= MOST_SECONDS:
        expected = f"--seconds 1 to {MOST_SECONDS:g}"
        raise ConfigError("nothing to measure", expected=expected, got=seconds)
    if picture is not None and not picture.absolute().parent.is_dir():
        raise ConfigError("no folder for the picture", got=str(picture.parent))


@contextmanager
def _server(url: str | None, arguments: list[str]) -> Generator[str]:
    """The server that was named, or one of our own."""
    if url is not None:
        yield url
        return
    from worldline.bench.serving import own_server

    with own_server(arguments) as own:
        yield own


@contextmanager
def _settings(worlds: int) -> Generator[Path]:
    """A settings file under which one client may have so many worlds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.toml"
        path.write_text(f"seats = {worlds}\nworlds_per_client = {worlds}\n", encoding="utf-8")
        yield path

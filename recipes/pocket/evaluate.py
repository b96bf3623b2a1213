"""Judge the pocket world: `python -m recipes.pocket.evaluate --out DIR [--weights FILE]`.

Held-out walks (seeds apart from training) in the known worlds against their true renders: a table
with pass or miss for each target, contact sheets, JSON, and `DIR/index.html`, one page that shows
all of it. Every group of measures is saved when it ends, so a killed run loses one group and
`--only GROUP` replaces one. Numbers do not see everything: look at the sheets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from recipes.pocket import checkpoint
from recipes.pocket.export import PACKAGED
from recipes.pocket.judge_camera import judge_camera
from recipes.pocket.judge_endurance import judge_endurance
from recipes.pocket.judge_memory import judge_memory
from recipes.pocket.judge_picture import judge_picture
from recipes.pocket.judge_prompt import judge_prompt
from recipes.pocket.judge_report import MISS, PASS, Finding, load_findings, save_finding
from recipes.pocket.judge_speed import judge_speed
from recipes.pocket.judge_subject import Told, load_subject
from recipes.pocket.judge_trial import QUICK, Plan, Trial
from recipes.pocket.judge_unseen import judge_unseen
from recipes.pocket.judge_walk import judge_walk
from recipes.pocket.page import make_page
from recipes.pocket.streaming import SHIPPED, euler_times
from worldline.models.tensor_files import read_header

GROUPS: dict[str, Callable[[Trial], Finding]] = {
    "picture": judge_picture,
    "walk": judge_walk,
    "camera": judge_camera,
    "memory": judge_memory,
    "prompt": judge_prompt,
    "endurance": judge_endurance,
    "unseen": judge_unseen,
    "speed": judge_speed,
}
STYLES = {PASS: "green", MISS: "bold red"}
LENGTHS = (240, 720)  # latent frames of the endurance targets: one and three minutes


def judge(
    trial: Trial,
    groups: list[str],
    settings: dict[str, str],
    *,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> list[Finding]:
    """Run groups of measures, save each, and write the page of all that are there."""
    for group in groups:
        start, busy = time.perf_counter(), time.process_time()
        finding = GROUPS[group](trial)
        finding.seconds = time.perf_counter() - start
        finding.processor_seconds = time.process_time() - busy
        finding.settings = settings
        save_finding(trial.folder, finding)
        findings = load_findings(trial.folder, tuple(GROUPS))
        (trial.folder / "index.html").write_text(make_page(trial.folder, findings), "utf-8")
        (trial.folder / "figures.json").write_bytes(summary(findings))
        on_finding(finding)
    return load_findings(trial.folder, tuple(GROUPS))


def summary(findings: list[Finding]) -> bytes:
    """All figures by group and name, with goals and verdicts, as JSON."""
    rows = {
        finding.group: {
            figure.name: {
                "value": figure.value,
                "unit": figure.unit,
                "target": figure.goal.words(figure.unit) if figure.goal else None,
                "verdict": figure.verdict,
            }
            for figure in finding.figures
        }
        for finding in findings
    }
    return msgspec.json.format(msgspec.json.encode(rows))


def table(findings: list[Finding]) -> Table:
    """The figures for a terminal."""
    found = Table("measure", "figure", "target", "verdict", "", title="The pocket world, judged")
    for finding in findings:
        found.add_section()
        for figure in finding.figures:
            goal = figure.goal.words(figure.unit) if figure.goal else ""
            style = STYLES.get(figure.verdict, "dim")
            words = f"[{style}]{figure.verdict}[/]"
            found.add_row(figure.name, figure.words, goal, words, figure.note)
    return found


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan that the command line asks for."""
    plan = QUICK if args.quick else Plan()
    if args.walks is not None:
        plan = plan._replace(walks=args.walks)
    if args.latents is not None:
        plan = plan._replace(latents=args.latents)
    if args.endurance is not None:
        shorter = [length for length in LENGTHS if length < args.endurance]
        lengths = [*shorter, args.endurance] if args.endurance else []
        plan = plan._replace(endurance=tuple(lengths))
    return plan._replace(speed=tuple(args.speed))


def describe(args: argparse.Namespace) -> dict[str, str]:
    """What was judged, for the page: names of files and numbers of steps, no paths."""
    if args.training:
        vae, dit = (checkpoint.load(path)["step"] for path in args.training)
        subject = f"training: autoencoder {vae} steps, transformer {dit}"
    else:
        path = args.weights or PACKAGED
        meta = read_header(path).metadata
        steps = f"autoencoder {meta.get('vae_steps')} steps, transformer {meta.get('dit_steps')}"
        subject = f"{path.name}: {steps}, recipe {meta.get('recipe_commit')}"
    sampler = f"{args.steps or len(SHIPPED) - 1} {'re-noising' if args.renoise else 'Euler'} steps"
    return {"judged": subject, "sampler": sampler, "scale": "quick" if args.quick else "full"}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for page, JSON and sheets")
    parser.add_argument("--weights", type=Path, help="a safetensors file; default: the package's")
    parser.add_argument(
        "--training", type=Path, nargs=2, help="vae.pt and dit.pt of a running training"
    )
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--quick", action="store_true", help="a look that takes a minute or two")
    parser.add_argument("--walks", type=int, help="held-out walks (64)")
    parser.add_argument("--latents", type=int, help="latent frames of each (17)")
    parser.add_argument(
        "--endurance", type=int, help="longest walk in latent frames (720); 0: none"
    )
    parser.add_argument("--speed", type=Path, nargs="+", default=[], help="JSON of measured speed")
    parser.add_argument("--steps", type=int, help="even Euler steps; default: the preset's own")
    parser.add_argument("--renoise", action="store_true", help="re-noise between steps (DMD)")
    parser.add_argument("--threads", type=int, default=1, help="beside other work one is faster")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line: progress while it runs, then the table."""
    args = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    times = euler_times(args.steps) if args.steps else SHIPPED
    subject = load_subject(args.weights, args.training, times=times, renoise=args.renoise)
    console = Console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:

        def told(what: str) -> Told:
            task = progress.add_task(what, total=None)

            def tell(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, visible=done < total)

            return tell

        trial = Trial(subject, plan_of(args), args.out, told=told)
        findings = judge(
            trial, args.only, describe(args),
            on_finding=lambda f: console.print(f"{f.title}: {f.seconds:.0f} s", table([f])),
        )  # fmt: skip
    console.print(table(findings), f"page: {args.out / 'index.html'}")


if __name__ == "__main__":
    main()

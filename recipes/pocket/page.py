"""One self-contained page of HTML from the findings: table, curves, matrices and sheets inline.

Written as well-formed XML too, so that a test can parse it; it asks no server for anything.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

from recipes.pocket.judge_report import (
    MISS,
    PASS,
    REPORTED,
    UNKNOWN,
    Figure,
    Finding,
    Matrix,
    Sheet,
)
from recipes.pocket.page_chart import draw_chart

QUALITY = 86  # of the inlined JPEG
MARKS = {PASS: "✓ pass", MISS: "✗ miss", UNKNOWN: "– not measured", REPORTED: ""}
STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --paper: #f6f5f1;
  --card: #ffffff; --line: #e2e0d8; --good: #1a7f4b; --bad: #c0392b; --accent: #3b6fd4;
  --band: #3b6fd41c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --soft: #9aa3b2; --paper: #14161b;
  --card: #1d2027; --line: #30343d; --good: #4cc38a; --bad: #ff7b6b; --accent: #7fa8ff;
  --band: #7fa8ff22; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 2rem; margin: 0 0 .3rem; } h2 { margin: 0 0 .4rem; font-size: 1.35rem; }
p { margin: .3rem 0 .9rem; max-width: 78ch; } .soft, caption, figcaption { color: var(--soft); }
.tally { display: flex; gap: .8rem; margin: 1.4rem 0; flex-wrap: wrap; }
.tally div { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .7rem 1.2rem; } .tally b { font-size: 1.7rem; display: block; line-height: 1.2; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 1.4rem 1.5rem; margin: 1.4rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; padding: .38rem 1.1rem .38rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--soft); font-weight: 500; }
th.n { text-align: right; } td.goal { white-space: nowrap; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.group th { padding-top: 1.1rem; color: var(--ink); font-weight: 650; }
.pass { color: var(--good); white-space: nowrap; } .miss { color: var(--bad); font-weight: 600;
  white-space: nowrap; } .unknown { color: var(--soft); white-space: nowrap; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1rem; }
.scroll { overflow-x: auto; } figure { margin: 1.2rem 0 0; }
figure img { width: 100%; min-width: 640px; border-radius: 8px; display: block; }
.matrix { width: auto; margin-top: 1.2rem; } .matrix td { text-align: center; min-width: 2.6rem;
  padding: .3rem .4rem; } .matrix th { padding: .3rem .5rem; font-size: .82rem; }
caption { text-align: left; padding-bottom: .3rem; } a { color: var(--accent); }
nav a { margin-right: 1rem; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
"""


def make_page(folder: Path, findings: list[Finding]) -> str:
    """The whole page; sheets are read from `folder`."""
    body = "".join(_section(folder, finding) for finding in findings)
    links = "".join(f'<a href="#{f.group}">{escape(f.title)}</a>' for f in findings)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>The pocket world, judged</title><style>{STYLE}</style></head><body><main>"
        "<h1>The pocket world, judged</h1>"
        "<p>Its training scenes are rendered, so every figure is taken against the true picture. "
        "Walks are held out: their seeds are apart from those of the training. Numbers do not see "
        "everything: look at the sheets.</p>"
        f"{_tally(findings)}<nav>{links}</nav>"
        f"<section><h2>Targets</h2>{_targets(findings)}</section>{body}</main></body></html>\n"
    )


def _tally(findings: list[Finding]) -> str:
    figures = [figure for finding in findings for figure in finding.figures]
    verdicts = [figure.verdict for figure in figures if figure.goal is not None]
    cards = (("pass", PASS, "met"), ("miss", MISS, "missed"), ("unknown", UNKNOWN, "not measured"))
    found = "".join(
        f'<div><b class="{style}">{verdicts.count(verdict)}</b>targets {word}</div>'
        for style, verdict, word in cards
    )
    return f'<div class="tally">{found}</div>'


def _targets(findings: list[Finding]) -> str:
    rows = []
    for finding in findings:
        judged = [figure for figure in finding.figures if figure.goal is not None]
        if judged:
            rows.append(f'<tr class="group"><th colspan="5">{escape(finding.title)}</th></tr>')
            rows += [_row(figure) for figure in judged]
    return _table(rows)


def _table(rows: list[str]) -> str:
    head = '<tr><th>measure</th><th class="n">figure</th><th>target</th><th></th><th></th></tr>'
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _row(figure: Figure) -> str:
    style = {PASS: "pass", MISS: "miss"}.get(figure.verdict, "unknown")
    goal = figure.goal.words(figure.unit) if figure.goal else ""
    return (
        f'<tr><td>{escape(figure.name)}</td><td class="n">{escape(figure.words)}</td>'
        f'<td class="goal">{escape(goal)}</td>'
        f'<td class="{style}">{MARKS[figure.verdict]}</td>'
        f'<td class="soft">{escape(figure.note)}</td></tr>'
    )


def _section(folder: Path, finding: Finding) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in finding.settings.items())
    charts = "".join(draw_chart(chart) for chart in finding.charts)
    return (
        f'<section id="{finding.group}"><h2>{escape(finding.title)}</h2>'
        f"<p>{escape(finding.text)}</p>{_table([_row(figure) for figure in finding.figures])}"
        + (f'<div class="charts">{charts}</div>' if charts else "")
        + "".join(_matrix(matrix) for matrix in finding.matrices)
        + "".join(_sheet(folder, sheet) for sheet in finding.sheets)
        + f'<p class="soft">{escape(settings)}; {finding.seconds:.0f} s, '
        f"{finding.processor_seconds:.0f} s of processor time</p></section>"
    )


def _matrix(matrix: Matrix) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in matrix.columns)
    rows = []
    for name, counts in zip(matrix.rows, matrix.counts, strict=True):
        total = max(1, sum(counts))
        cells = "".join(
            f'<td style="background: rgba(59, 111, 212, {0.6 * count / total:.2f})">'
            f"{count or '·'}</td>"
            for count in counts
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="matrix"><caption>{escape(matrix.title)}</caption>'
        f"<tr><th></th>{head}</tr>{''.join(rows)}</table></div>"
    )


def _sheet(folder: Path, sheet: Sheet) -> str:
    path, text = folder / sheet.file, escape(sheet.caption)
    if not path.exists():
        return f'<p class="soft">{text}: the picture is not there</p>'
    aside = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(aside, "JPEG", quality=QUALITY)
    data = base64.b64encode(aside.getvalue()).decode()
    return (
        f'<figure><figcaption>{text}</figcaption><div class="scroll">'
        f'<img alt="{text}" src="data:image/jpeg;base64,{data}"/></div></figure>'
    )

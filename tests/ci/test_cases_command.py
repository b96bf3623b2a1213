"""`tools/ci/cases.py` from outside: what it prints and writes, how it fails, and how CI uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract import tree

SCRIPT = tree.ROOT / "tools" / "ci" / "cases.py"
MODULE = """\
from somewhere import Case

CPU = [Case("long"), Case("short", test="tests/test_a.py::test_b"), Case("new")]
SUITES = {"cpu": CPU, "1-gpu": [Case("card")], "2-gpu": []}
"""
BASELINE = {"default_s": 30, "seconds": {"long": 50, "short": 10.5}}
NODES = [
    "tests/bench/test_cases.py::test_case[long]",
    "tests/test_a.py::test_b",
    "tests/bench/test_cases.py::test_case[new]",
]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cases(tmp_path: Path) -> Command:
    """Runs the script on a module and a baseline of its own, away from the checkout."""
    (tmp_path / "cases.py").write_text(MODULE)
    (tmp_path / "baseline.json").write_text(json.dumps(BASELINE))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        files = ["--module", "cases.py", "--baseline", "baseline.json"]
        command = [sys.executable, "-S", SCRIPT, *files, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_suites_with_their_times(cases: Command) -> None:
    done = cases()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "cpu: 3 cases, about 90 s",
        f"  long                       50.0 s  {NODES[0]}",
        f"  short                      10.5 s  {NODES[1]}",
        f"  new                        30.0 s  {NODES[2]}  (default: no baseline)",
        "1-gpu: 1 case, about 30 s",
        "  card                       30.0 s  tests/bench/test_cases.py::test_case[card]"
        "  (default: no baseline)",
        "2-gpu: 0 cases, about 0 s",
    ]


def test_shards_hold_everything_once_in_json(cases: Command) -> None:
    whole = json.loads(cases("cpu", "--json", "--shards", "2").stdout)
    assert list(whole) == ["cpu"]
    first, second = whole["cpu"]
    assert [case["id"] for case in first["cases"]] == ["long"]
    assert [case["id"] for case in second["cases"]] == ["short", "new"]
    assert (second["shard"], second["of"], second["seconds"]) == (2, 2, 40.5)
    assert second["cases"][0] == {
        "id": "short",
        "node": NODES[1],
        "seconds": 10.5,
        "known": True,
    }
    part = json.loads(cases("cpu", "--json", "--shards", "2", "--shard", "2").stdout)
    assert part == {"cpu": [second]}


def test_what_is_written_is_for_pytest(cases: Command, tmp_path: Path) -> None:
    assert cases("cpu", "--write", "list.txt").returncode == 0
    assert (tmp_path / "list.txt").read_text().splitlines() == NODES
    assert cases("cpu", "--shards", "2", "--shard", "1", "--write", "list.txt").returncode == 0
    assert (tmp_path / "list.txt").read_text().splitlines() == NODES[:1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gpu"], "no suite gpu; there are cpu, 1-gpu, 2-gpu"),
        (["cpu", "--shards", "0"], "expected 1 or more, got 0"),
        (["cpu", "--shards", "2", "--shard", "3"], "expected 1 to 2 (--shards), got 3"),
        (["cpu", "--shard", "0"], "expected 1 to 1 (--shards), got 0"),
        (["--write", "list.txt"], "name the suite"),
        (["2-gpu", "--write", "list.txt"], "nothing to write"),
        (["cpu", "--shards", "9", "--shard", "9", "--write", "list.txt"], "nothing to write"),
        (["cpu", "--shards", "many"], "invalid int value"),
    ],
)
def test_wrong_command_lines(
    cases: Command, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = cases(*arguments)
    assert done.returncode == 2 and words in done.stderr
    assert done.stdout == "" and not (tmp_path / "list.txt").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "baseline.json: "),
        ('{\n"default_s": 3,\n}', "baseline.json:3: "),
        ("[]", 'expected "default_s" and "seconds"'),
        ('{"default_s": 3}', 'expected "default_s" and "seconds"'),
        ('{"default_s": 0, "seconds": {}}', "default_s: expected seconds above 0, got 0"),
        ('{"default_s": 3, "seconds": {"long": "2"}}', "long: expected seconds above 0, got '2'"),
        ('{"default_s": 3, "seconds": {"long": NaN}}', "long: expected seconds above 0, got nan"),
    ],
)
def test_a_baseline_that_cannot_be_used(
    cases: Command, tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "baseline.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = cases()
    assert done.returncode == 1 and words in done.stderr and done.stdout == ""


def test_a_planted_case_fails_with_file_and_line(cases: Command, tmp_path: Path) -> None:
    (tmp_path / "cases.py").write_text(f"{MODULE}CPU.append(Case(f'planted-{{3}}'))\n")
    done = cases("cpu", "--write", "list.txt")
    assert done.returncode == 1 and done.stdout == ""
    assert "cases.py:5: the id must be a string literal" in done.stderr.splitlines()[0]
    assert not (tmp_path / "list.txt").exists()


REPORT = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite>
<testcase classname="tests.bench.test_cases" name="test_case[long]" time="12.34"/>
<testcase classname="tests.bench.test_cases" name="test_case[new]" time="9"><failure/></testcase>
<testcase classname="tests.bench.test_cases" name="test_case[card]" time="0"><skipped/></testcase>
<testcase classname="tests.test_a" name="test_b[1]" time="1.5"/>
<testcase classname="tests.test_a" name="test_b[2]" time="2.5"/>
<testcase classname="tests.test_a" name="test_bees" time="40"/>
<testcase classname="tests.test_aa" name="test_b" time="40"/>
</testsuite></testsuites>"""


def test_times_are_taken_from_a_report(cases: Command, tmp_path: Path) -> None:
    """Of cases that ran and passed; the others keep what they had, and cases that are gone go."""
    old = {"default_s": 30, "seconds": {"new": 7.0, "gone": 8.0, "long": 1.0}}
    (tmp_path / "baseline.json").write_text(json.dumps(old))
    (tmp_path / "report.xml").write_text(REPORT)
    assert cases("--record", "report.xml").returncode == 0
    found = json.loads((tmp_path / "baseline.json").read_text())
    assert found == {"default_s": 30, "seconds": {"long": 12.3, "new": 7.0, "short": 4.0}}
    (tmp_path / "report.xml").write_text("<testsuites>")
    assert cases("--record", "report.xml").returncode == 1


def test_help_says_how_it_ends(cases: Command) -> None:
    done = cases("--help")
    assert done.returncode == 0 and "exit codes: 0 done; 1 " in done.stdout


# Stands for every other program that .ci/run starts: says what it was asked, and is content.
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>"$LOG"
[ -z "$WORLDLINE_REQUIRE_CASES" ] || cp "$WORLDLINE_REQUIRE_CASES" "$LOG.cases"
"""
PYTHON = f"""#!/bin/sh
case "$1" in tools/ci/*) exec "{sys.executable}" "$@";; esac
echo "python $*" >>"$LOG"
for last; do :; done
case "$*" in
*--outdir*) touch "$last/worldline-0.whl" ;;
*--venv*) mkdir -p "$3/bin" && cp "$0" "$3/bin" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what reads the cases, among programs that do nothing."""
    top = tmp_path / "checkout"
    for name in (
        ".ci/run",
        "tests/cases.py",
        *(f"tools/ci/{p.name}" for p in SCRIPT.parent.glob("*.*")),
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree.ROOT / name, top / name)
    (top / "tools" / "__init__.py").touch()
    (top / "web").mkdir()
    stubs = {f"bin/{name}": STUB for name in ("make", "npm", "node", "chromium")}
    for name, text in {**stubs, ".venv/bin/python": PYTHON}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
        (top / name).chmod(0o755)
    return top


def run_ci(checkout: Path) -> subprocess.CompletedProcess[str]:
    """`.ci/run` of the copy; `log` holds what it started, `log.cases` the cases it required."""
    path = f"{checkout}/bin{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "LOG": f"{checkout}/log"}
    command = ["bash", checkout / ".ci" / "run"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_ci_requires_the_cases_of_the_cpu_suite(checkout: Path) -> None:
    done = run_ci(checkout)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (checkout / "log").read_text().splitlines()[-1] == "make test"
    required = (checkout / "log.cases").read_text().splitlines()
    assert required and required == written(checkout)


def written(checkout: Path) -> list[str]:
    out = checkout / "cpu"
    subprocess.run([sys.executable, SCRIPT, "cpu", "--write", out], capture_output=True, check=True)
    return out.read_text().splitlines()


def test_ci_fails_at_a_planted_case_before_any_test_runs(checkout: Path) -> None:
    path = checkout / "tests" / "cases.py"
    text = path.read_text()
    path.write_text(f'{text}CPU.extend([Case("planted", model="pocket", bench="chunk")])\n')
    done = run_ci(checkout)
    assert done.returncode == 1
    line = text.count("\n") + 1
    assert f"tests/cases.py:{line}: cannot read CPU.extend" in done.stderr
    assert "make test" not in (checkout / "log").read_text().splitlines()

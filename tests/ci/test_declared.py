"""The declared cases: the syntax tree says what the module says, and each of them can run."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cases import SUITES, Case
from tests.contract import tree
from tools.ci.baseline import load_baseline
from tools.ci.case_reader import read_cases
from tools.ci.shards import RUNNER
from worldline.cli import main as cli
from worldline.cli.options import BenchChunk, BenchSoak

MODULE = tree.ROOT / "tests" / "cases.py"
CASES = {case.id: case for suite in SUITES.values() for case in suite}
LATER = "Not yet measured on a GPU"


def test_the_answer_is_the_imported_modules() -> None:
    read = {
        name: [(case.id, case.test) for case in held] for name, held in read_cases(MODULE).items()
    }
    imported = {
        name: list(dict.fromkeys((case.id, case.test) for case in held))
        for name, held in SUITES.items()
    }
    assert read == imported
    assert len(read["cpu"]) > 5 and len(read["1-gpu"]) > 5


def test_reading_imports_neither_the_module_nor_the_package() -> None:
    script = "import sys; from tools.ci import cases; cases.main([]); print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tree.ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"tests", "worldline", "torch", "numpy", "msgspec"}


def test_importing_the_cases_needs_no_torch() -> None:
    script = "import sys, tests.cases; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tree.ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"worldline", "torch", "numpy"}


def test_an_id_is_one_case() -> None:
    for suite in SUITES.values():
        assert [case for case in suite if CASES[case.id] != case] == []


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_has_the_devices_of_its_name(suite: str) -> None:
    count = 0 if suite == "cpu" else int(suite.removesuffix("-gpu"))
    assert {case.devices for case in SUITES[suite]} <= {count}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_case_can_run(case: Case) -> None:
    """One way to run it, and both of them exist."""
    assert bool(case.bench) != bool(case.test)
    if case.bench:
        assert isinstance(cli.parse(case.arguments()), (BenchChunk, BenchSoak))
        assert case.bounds, "a measurement that holds nothing"
        return
    file, _, test = case.test.partition("::")
    found = tree.parse(tree.ROOT / file)
    names = {node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef)}
    assert not test or test.partition("[")[0] in names


def test_the_runner_is_where_the_tool_says() -> None:
    file, _, test = RUNNER.partition("::")
    assert f"def {test}(case: Case)" in (tree.ROOT / file).read_text()


def test_the_baseline_times_no_case_that_is_gone() -> None:
    baseline = load_baseline(tree.ROOT / "tools" / "ci" / "baseline.json")
    assert set(baseline.seconds) <= set(CASES)


def measured(arguments: list[str]) -> BenchChunk | BenchSoak:
    """What a command line of `bench` measures, however it prints it."""
    command = cli.parse(arguments)
    if isinstance(command, BenchChunk):
        return replace(command, json=False, markdown=False)
    assert isinstance(command, BenchSoak)
    return replace(command, json=False)


def documented() -> list[BenchChunk | BenchSoak]:
    """The commands of docs/benchmarks.md that wait for a GPU."""
    text = (tree.ROOT / "docs" / "benchmarks.md").read_text().replace("\\\n", " ")
    _, _, section = text.partition(f"## {LATER}\n")
    section = section.partition("\n## ")[0]
    lines = re.findall(r"^\s*worldline (bench (?:chunk|soak) .*)$", section, re.MULTILINE)
    return [measured(shlex.split(line, comments=True)) for line in lines]


def test_what_documents_promise_to_measure_on_a_gpu_is_a_case() -> None:
    declared = [measured(case.arguments()) for case in SUITES["1-gpu"] if case.bench]
    assert documented()
    assert [command for command in documented() if command not in declared] == []


def gpu_tests(path: Path) -> list[str]:
    """The tests of a file that are marked as needing a GPU, one by one or all of them."""

    def marked(*nodes: ast.expr) -> bool:
        return any("pytest.mark.gpu" in ast.unparse(node) for node in nodes)

    body = tree.parse(path).body
    tests = [n for n in body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    whole = any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and marked(node.value)
        for node in body
    )
    return [test.name for test in tests if whole or marked(*test.decorator_list)]


def test_every_test_that_needs_a_gpu_is_a_case() -> None:
    """Else no suite would ever run it: add it to tests/cases.py."""
    nodes = {case.test for name, held in SUITES.items() if name != "cpu" for case in held}
    missing: list[str] = []
    for path in sorted((tree.ROOT / "tests").rglob("test_*.py")):
        file = path.relative_to(tree.ROOT).as_posix()
        names = [] if file in nodes else gpu_tests(path)
        missing += [f"{file}::{name}" for name in names if f"{file}::{name}" not in nodes]
    assert missing == []


def test_json_of_the_baseline_is_what_the_tool_would_write() -> None:
    text = (tree.ROOT / "tools" / "ci" / "baseline.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"

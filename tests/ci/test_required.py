"""The rule of CI: a listed case that was not collected, or was skipped, is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import tree

TESTS = """
import pytest

@pytest.mark.parametrize("case", ["a", "b"])
def test_case(case):
    if case == "b":
        pytest.skip("no such thing here")

def test_other():
    pass
"""


@pytest.mark.parametrize(
    ("required", "status", "words"),
    [
        ("test_it.py::test_other\ntest_it.py::test_case[a]", 0, "2 passed, 1 skipped"),
        ("test_it.py::test_case", 1, "skipped, but this case is required"),
        ("test_it.py", 1, "skipped, but this case is required"),
        ("test_it.py::test_case[c]", 4, "test_it.py::test_case[c] was not collected"),
        ("test_it.py::test_oth", 4, "test_it.py::test_oth was not collected"),
    ],
)
def test_ci_fails_when_a_listed_case_did_not_run(
    tmp_path: Path, required: str, status: int, words: str
) -> None:
    shutil.copy(tree.ROOT / "tests" / "conftest.py", tmp_path)
    shutil.copy(tree.ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "cases").write_text(f"{required}\n")
    env = os.environ | {
        "WORLDLINE_REQUIRE_CASES": str(tmp_path / "cases"),
        "WORLDLINE_REQUIRE_BROWSER": "0",  # CI itself may be running this
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_timeout", "test_it.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stdout + done.stderr

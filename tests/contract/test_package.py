"""What is shipped: metadata, the wheel, the commands that documents name, the rule of CI."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import worldline
from tests.contract import tree

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "LICENSE", "NOTICE")
MAX_WEIGHTS = 15 * 1024 * 1024


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((tree.ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (tree.ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonical(r.name): Version(str(r.specifier).removeprefix("==")) for r in found}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run(command, cwd=tree.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(project: dict[str, Any]) -> list[Requirement]:
    """Everything that a developer installs: core, extras and groups."""
    texts = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        texts += extra
    for group in project["dependency-groups"].values():
        texts += [item for item in group if isinstance(item, str)]
    return [Requirement(text) for text in texts]


def test_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    stated = project["project"]["version"]
    assert stated == worldline.__version__
    assert f"## {stated}" in (tree.ROOT / "CHANGELOG.md").read_text()


def test_torch_is_open_in_the_metadata_and_pinned_in_the_constraints(
    project: dict[str, Any], pins: dict[str, Version]
) -> None:
    assert "torch>=2.9" in project["project"]["dependencies"]
    assert pins["torch"].local is None


def test_constraints_pin_every_direct_dependency_within_its_range(
    project: dict[str, Any], pins: dict[str, Version]
) -> None:
    for requirement in requirements(project):
        pin = pins[canonical(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} does not take {pin}"


def test_the_environment_is_the_one_that_the_constraints_name(pins: dict[str, Version]) -> None:
    if Path(sys.prefix).parent != tree.ROOT:
        pytest.skip("not the environment that `make setup` made")
    for name in ("torch", "numpy", "msgspec", "starlette", "uvicorn", "websockets", "pytest"):
        assert Version(Version(version(name)).public) == pins[name]


def test_wheel_carries_page_weights_and_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "worldline/py.typed" in names
    assert "worldline/server/static/index.html" in names
    assert any(re.fullmatch(r"worldline/server/static/.+\.js", name) for name in names)
    weights = [name for name in names if re.search(r"models/pocket/[^/]+\.safetensors$", name)]
    assert weights
    assert all(wheel.getinfo(name).file_size <= MAX_WEIGHTS for name in weights)
    assert {"LICENSE", "NOTICE"} <= {name.rsplit("/", 1)[-1] for name in names}


def test_wheel_carries_every_committed_file_of_the_package_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    held = {n for n in wheel.namelist() if not n.split("/")[0].endswith(".dist-info")}
    source = tree.PACKAGE.parent
    ours = {p.relative_to(source).as_posix() for p in tree.files() if p.is_relative_to(source)}
    assert held == ours


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_is_there(name: str) -> None:
    assert (tree.ROOT / name).stat().st_size > 0


def documents() -> list[Path]:
    return [path for path in tree.files() if path.suffix == ".md"]


def test_make_commands_that_documents_name_exist() -> None:
    makefile = (tree.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"play", "test", "setup", "check", "web"} <= targets
    for path in documents():
        named = set(re.findall(r"`make ([a-z]+)", path.read_text(encoding="utf-8")))
        named |= set(re.findall(r"^make ([a-z]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert named <= targets, path.name


def test_links_between_documents_lead_somewhere() -> None:
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target and not target.startswith("mailto:"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


BROWSER_TEST = """
import pytest

@pytest.mark.browser
@pytest.mark.skipif({absent}, reason="no browser here")
def test_page():
    pass

def test_other():
    pass
"""


@pytest.mark.parametrize(
    ("absent", "chosen", "required", "status"),
    [
        (True, "test_page", "0", 0),
        (True, "test_page", "1", 1),
        (False, "test_page", "1", 0),
        (False, "test_other", "1", 4),
        (False, "test_other", "0", 0),
    ],
)
def test_ci_fails_when_the_browser_test_did_not_run(
    tmp_path: Path, *, absent: bool, chosen: str, required: str, status: int
) -> None:
    shutil.copy(tree.ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_it.py").write_text(BROWSER_TEST.format(absent=absent))
    shutil.copy(tree.ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    command = [sys.executable, "-m", "pytest", "-q", f"test_it.py::{chosen}"]
    # CI itself may be running this, with its own list of cases
    env = os.environ | {"WORLDLINE_REQUIRE_BROWSER": required, "WORLDLINE_REQUIRE_CASES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == status, done.stdout.decode()

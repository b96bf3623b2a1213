"""The direction of imports: who may know whom, and that the server side never pulls torch in."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.contract import tree

# What each package may import of the others; `runtime.handle` and the messages it carries are the
# only door from the server to the engine.
DOOR = ("runtime.handle", "runtime.protocol", "runtime.film_calls", "runtime.world_start")
ENGINE = ("runtime", "models", "sampling", "quant", "kernels", "ops", "core")
ALLOWED: dict[str, tuple[str, ...]] = {
    "core": ("core",),
    "ops": ("ops", "core"),
    "sampling": ("sampling", "ops", "core"),
    "kernels": ("kernels", "ops", "core"),
    "quant": ("quant", "kernels", "ops", "core"),
    "models": ("models", "quant", "ops", "core"),
    "runtime": ENGINE,
    "media": ("media", "core"),
    "client": ("client", "core"),
    "server": ("server", "media", "core", *DOOR),
    "bench": ("bench", "client", "media", *ENGINE),
    "envs": ("envs", "media", *ENGINE),
    "cli": ("cli", "bench", "client", "server", "media", *ENGINE),
}
TORCH_FREE = ("core", "media", "server", "client")
LOOP_FREE = ("core", "ops", "kernels", "quant", "sampling", "models", "runtime")
HEAVY = {"torch", "triton", "transformers", "diffusers", "huggingface_hub", "numba"}
LOOPS = {"asyncio", "anyio", "starlette", "uvicorn", "websockets", "av", "aiortc"}


def package_of(path: str) -> str:
    return path.split(".")[1] if path.count(".") else ""


@pytest.mark.parametrize("path", tree.modules(), ids=tree.module_name)
def test_module_imports_only_what_its_package_may(path: tree.Path) -> None:
    package = package_of(tree.module_name(path))
    if not package:
        return
    allowed = tuple(f"worldline.{name}" for name in ALLOWED[package])
    wrong = [
        f"line {line}: {name}"
        for line, name in tree.imports(path)
        if name.startswith("worldline.")
        and name != "worldline.__version__"
        and not any(name == ok or name.startswith(f"{ok}.") for ok in allowed)
    ]
    assert not wrong, f"{package} may import {ALLOWED[package]}"


@pytest.mark.parametrize("path", tree.modules(), ids=tree.module_name)
def test_module_keeps_to_its_side_of_the_process_boundary(path: tree.Path) -> None:
    package = package_of(tree.module_name(path))
    banned: set[str] = set()
    banned |= HEAVY if package in TORCH_FREE else set()
    banned |= LOOPS if package in LOOP_FREE else set()
    wrong = [(line, name) for line, name in tree.imports(path) if name.split(".")[0] in banned]
    assert not wrong


@pytest.mark.parametrize("family", ["wan", "lingbot", "pocket"])
def test_model_families_do_not_know_each_other(family: str) -> None:
    others = {f"worldline.models.{name}" for name in ("wan", "lingbot", "pocket")}
    others.remove(f"worldline.models.{family}")
    for path in (tree.PACKAGE / "models" / family).rglob("*.py"):
        wrong = [
            (line, name)
            for line, name in tree.imports(path)
            if any(name == other or name.startswith(f"{other}.") for other in others)
        ]
        assert not wrong, path.name


def test_import_linter_agrees() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache"]
    done = subprocess.run(command, cwd=tree.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "worldline",
        "worldline.server.app",
        "worldline.runtime.handle",
        "worldline.cli.main",
        "worldline.client",
    ],
)
def test_importing_the_server_side_leaves_torch_out(module: str) -> None:
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & HEAVY

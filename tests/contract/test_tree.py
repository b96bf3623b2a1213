"""The state of the source tree: lengths, names, docstrings, and no trace of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import tree

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_POSITIONAL = 5
# Written in two halves so that this file does not contain what it looks for.
HOSTS = tuple(
    "".join(halves)
    for halves in (
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("registry.npm", "js.org"),
        ("deb.deb", "ian.org"),
        ("download.py", "torch.org"),
    )
)
# PyTorch's public index of CPU wheels is part of the set-up; nothing else names an index.
MAY_NAME_A_HOST = {"tools/setup.py"}
INDEX_SETTING = re.compile(r"""(index-url|registry)["']?\s*[=:]\s*["']?https?:""")
TEXT = {".py", ".ts", ".tsx", ".md", ".toml", ".txt", ".json", ".html", ".css", ".mjs", ".cfg", ""}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def relative(path: Path) -> str:
    return path.relative_to(tree.ROOT).as_posix()


@pytest.mark.parametrize("path", tree.sources(".py", ".ts", ".tsx"), ids=relative)
def test_files_have_one_subject(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}


def test_nothing_of_this_machine_is_in_the_tree() -> None:
    homes = {f"{tree.ROOT.parent}/", f"{Path.home()}/"} - {"/", "//", "/tmp/", "/home/"}
    found = [
        f"{relative(path)}: {home}"
        for path in tree.files()
        if path.suffix in TEXT
        for home in homes
        if home in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert not found


def test_the_choice_of_package_index_is_left_to_the_machine() -> None:
    found: list[str] = []
    for path in tree.files():
        if path.suffix not in TEXT or relative(path) in MAY_NAME_A_HOST:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{relative(path)}: {host}" for host in HOSTS if host in text]
        if INDEX_SETTING.search(text):
            found.append(f"{relative(path)}: {INDEX_SETTING.pattern}")
    assert not found


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Every function and method of a module, nested ones too, with its dotted name."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    return walk(tree.parse(path), "")


@pytest.mark.parametrize("path", tree.modules(), ids=tree.module_name)
def test_functions_are_short_and_take_few_positional_arguments(path: Path) -> None:
    wrong: list[str] = []
    for name, function in functions(path):
        assert function.end_lineno is not None
        lines = function.end_lineno - function.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            wrong.append(f"{name}: {lines} lines")
        positional = [*function.args.posonlyargs, *function.args.args]
        count = sum(argument.arg not in {"self", "cls"} for argument in positional)
        if count > MAX_POSITIONAL and not is_kernel(function):
            wrong.append(f"{name}: {count} positional arguments")
        if hands_through(function):
            wrong.append(f"{name}: hands keywords through")
    assert not wrong


def is_kernel(function: Function) -> bool:
    """Whether Triton compiles a function; it knows positional arguments only."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list)


def hands_through(function: Function) -> bool:
    """Whether a function takes unnamed keywords only to pass them on."""
    taken = function.args.kwarg
    if taken is None:
        return False
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    unpacked = (word.value for call in calls for word in call.keywords if word.arg is None)
    return any(isinstance(value, ast.Name) and value.id == taken.arg for value in unpacked)


@pytest.mark.parametrize("path", tree.modules(), ids=tree.module_name)
def test_public_things_say_what_they_are(path: Path) -> None:
    module = tree.parse(path)
    silent = [] if ast.get_docstring(module) else ["the module"]
    silent += undocumented(module, "")
    assert not silent


def undocumented(node: ast.Module | ast.ClassDef, prefix: str) -> list[str]:
    """Public classes, functions and methods without a docstring; what overrides needs none."""
    found: list[str] = []
    for child in node.body:
        if not isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if child.name.startswith("_") or is_variant(child):
            continue
        if ast.get_docstring(child) is None:
            found.append(prefix + child.name)
        if isinstance(child, ast.ClassDef):
            found += undocumented(child, f"{prefix}{child.name}.")
    return found


def is_variant(node: ast.ClassDef | Function) -> bool:
    """Whether a decorator says that another definition carries the docstring."""
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"overload", "override", "setter"})

"""What the contract tests read: the files of this checkout and their syntax trees."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "worldline"


@cache
def files() -> tuple[Path, ...]:
    """Every file that is or would be committed."""
    listing = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    command = ["git", "-c", "safe.directory=*", *listing]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = (ROOT / name for name in names.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def sources(*suffixes: str) -> list[Path]:
    """The committed files with one of these suffixes, the built page left out."""
    built = PACKAGE / "server" / "static"
    return [p for p in files() if p.suffix in suffixes and not p.is_relative_to(built)]


def modules() -> list[Path]:
    """The Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`src/worldline/core/camera.py` -> `worldline.core.camera`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> list[tuple[int, str]]:
    """Line and full name of everything a module imports anywhere, inside functions too."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = resolve(path, node)
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def resolve(path: Path, node: ast.ImportFrom) -> str:
    """The absolute name of the module that a `from ... import` names."""
    if node.level == 0:
        return node.module or ""
    parts = module_name(path).split(".")
    parts = parts if path.name == "__init__.py" else parts[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)

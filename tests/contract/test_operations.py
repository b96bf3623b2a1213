"""docs/operations.md against the code: what an operator can set or meet is there, and exists."""

from __future__ import annotations

import re
from functools import cache
from typing import get_args

import msgspec
import pytest

from tests.cli.surface import flag, options_of
from tests.contract import tree
from tests.fakes import FakeClock, FakeHandle
from worldline.cli.options import Play
from worldline.core.config import ServerConfig
from worldline.core.env import KNOBS, PREFIX, SECRETS
from worldline.core.errors import error_classes
from worldline.core.live.codes import ByeCode, Close, NoticeCode
from worldline.server.app import create_app
from worldline.server.http import ADMIN_ROUTES, OPEN_ROUTES
from worldline.server.tracing import MAX_EVENTS, MAX_TRACES


@cache
def page() -> str:
    return (tree.ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def named(name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", page()) is not None


@cache
def rows() -> dict[str, tuple[str, str]]:
    """Setting -> default and option, as the table has them."""
    cells = [line.split("|")[1:-1] for line in page().splitlines() if line.startswith("| `")]
    found = [[cell.strip() for cell in row] for row in cells if len(row) == 4]
    return {row[0].strip("`"): (row[1], row[2].strip("`")) for row in found}


@pytest.mark.parametrize("field", msgspec.structs.fields(ServerConfig), ids=lambda f: f.name)
def test_every_setting_with_its_default(field: msgspec.structs.FieldInfo) -> None:
    written, _ = rows()[field.name]
    if field.default is None or field.default == ():
        assert written == "none"
    elif isinstance(field.default, str):
        assert written == field.default
    elif isinstance(field.default, tuple):
        assert written == ", ".join(field.default)
    else:
        assert float(written) == float(field.default)


def test_no_setting_that_there_is_not() -> None:
    assert set(rows()) == set(ServerConfig.__struct_fields__)


def test_every_option() -> None:
    flags = {flag(name) for name, _ in options_of(Play)}
    assert {name for name in flags if not named(name)} == set()
    assert {option for _, option in rows().values() if option} <= flags


def test_every_variable() -> None:
    variables = {PREFIX + name.upper() for name in (*KNOBS, *SECRETS)}
    assert {name for name in variables if not named(name)} == set()


@pytest.mark.anyio
async def test_every_metric_and_no_other() -> None:
    app = create_app(ServerConfig(), FakeHandle(), clock=FakeClock())
    async with app.router.lifespan_context(app):
        families = list(app.state.services.metrics.collected.collect())
    exposed = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if not family.name.startswith(("process_", "python_"))
    }
    written = set(re.findall(r"\bworldline_[a-z_]+", page()))
    assert written == exposed


@pytest.mark.anyio
async def test_every_value_of_a_label_that_we_choose() -> None:
    app = create_app(ServerConfig(), FakeHandle(), clock=FakeClock())
    async with app.router.lifespan_context(app):
        samples = [s for f in app.state.services.metrics.collected.collect() for s in f.samples]
    for name in ("worldline_worlds", "worldline_engine", "worldline_leaked"):
        values = {v for s in samples if s.name == name for v in s.labels.values()}
        assert values
        assert {value for value in values if not named(value)} == set()


def test_every_failure() -> None:
    section = page().partition("## Failures")[2]
    for code in error_classes():
        assert f"`{code}`" in section, code
    for close in Close:
        assert str(int(close)) in section, close
    for word in (*get_args(NoticeCode), *get_args(ByeCode)):
        assert f"`{word}`" in section, word


def test_every_route_for_operators() -> None:
    for route in (*OPEN_ROUTES, *ADMIN_ROUTES):
        methods = route.methods or set()
        names = {f"`{route.path}`", *(f"`{method} {route.path}`" for method in methods)}
        assert any(name in page() for name in names), route.path


def test_numbers_that_are_written_out() -> None:
    assert f"{MAX_EVENTS:,} events" in page()
    assert f"at most {MAX_TRACES}" in page()

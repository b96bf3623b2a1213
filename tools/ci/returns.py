"""What a function can return, judged from its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tools.ci.mentions import Function

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def own(function: Function) -> Iterator[ast.AST]:
    """Every node of a function's body that belongs to no function or class inside it."""
    waiting = list[ast.AST](function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, SCOPES):
            waiting += ast.iter_child_nodes(node)


def outside(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Every simple part of a body but its own return statements."""
    for node in body:
        if isinstance(node, ast.Return):
            continue
        if isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)) and not isinstance(
            node, SCOPES
        ):
            parts = list(ast.iter_child_nodes(node))
            yield from outside(parts)
        else:
            yield node


def choices(value: ast.expr) -> Iterator[ast.expr]:
    """The expressions that a returned value can be: both sides of `a if x else b`."""
    if isinstance(value, ast.IfExp):
        yield from choices(value.body)
        yield from choices(value.orelse)
    else:
        yield value


def ends(body: Sequence[ast.stmt]) -> bool:
    """Whether every way through a body returns or raises, as far as can be seen."""
    match body[-1] if body else None:
        case ast.Return() | ast.Raise():
            return True
        case ast.If(body=one, orelse=other):
            return ends(one) and ends(other)
        case ast.With(body=inner):
            return ends(inner)
        case _:
            return False

"""Which names of a module have to do with its cases, judged from the syntax tree.

Errs on the strict side: a name counts when anything that mentions cases binds it, and a function
or class counts when its body mentions such a name. What runs code that cannot be seen (`exec`,
`globals` and their kind) counts as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

CASE, SUITES = "Case", "SUITES"
EVERYTHING = "*"  # of a star import
UNSEEN = {"exec", "eval", "globals", "locals", "vars", "getattr", "setattr", "delattr"}
UNSEEN |= {"__dict__", "__import__", "modules", "f_globals", "f_locals"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def related(tree: ast.Module) -> set[str]:
    """Every name of the module that may hold, make or change cases."""
    names = {CASE, SUITES, EVERYTHING, *UNSEEN}
    leaves = list(_leaves(tree.body))
    while True:
        found = {
            name
            for leaf in leaves
            if mentions(leaf) & names
            for name in _bound(leaf) | _operands(leaf)
        }
        if found <= names:
            return names
        names |= found


def mentions(node: ast.AST) -> set[str]:
    """Every name, attribute, import and definition inside a node."""
    return {name for inner in ast.walk(node) for name in _names(inner)}


def executed(node: Function | ast.ClassDef) -> Iterator[ast.AST]:
    """What runs when a definition is read: decorators, defaults, bases, a class's own statements.

    Annotations do not count: they are names, unless they call something.
    """
    yield from node.decorator_list
    if isinstance(node, ast.ClassDef):
        yield from node.bases
        yield from node.keywords
        for inner in node.body:
            if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield from executed(inner)
            elif isinstance(inner, ast.AnnAssign):
                yield from _called_in(inner.annotation)
                yield from [inner.value] if inner.value else []
            else:
                yield inner
        return
    arguments = node.args
    yield from arguments.defaults
    yield from (default for default in arguments.kw_defaults if default is not None)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            yield from _called_in(argument.annotation)
    yield from _called_in(node.returns)


def _leaves(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _leaves(statement.body)
            yield from _leaves(statement.orelse)
        else:
            yield statement


def _bound(leaf: ast.stmt) -> set[str]:
    """The names that a statement binds or deletes."""
    match leaf:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case _:
            found = (node for node in ast.walk(leaf) if isinstance(node, ast.Name))
            return {node.id for node in found if not isinstance(node.ctx, ast.Load)}


def _operands(leaf: ast.stmt) -> set[str]:
    """The names whose content goes into what an assignment makes; arguments of calls do not."""
    if not isinstance(leaf, (ast.Assign, ast.AnnAssign, ast.AugAssign)) or leaf.value is None:
        return set()
    found, waiting = set[str](), list[ast.AST]([leaf.value])
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif not isinstance(node, ast.Call):
            waiting += ast.iter_child_nodes(node)
    return found


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.alias(name=name, asname=other):
            return [(other or name).split(".")[0]]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.Global(names=names):
            return names
        case _:
            return []


def _called_in(annotation: ast.expr | None) -> Iterator[ast.AST]:
    if annotation is not None and any(isinstance(n, ast.Call) for n in ast.walk(annotation)):
        yield annotation

"""Which cases a module declares, read from its syntax tree; the module is never imported.

What can be read, at the top level and in the order of the lines:

    A: list[Case] = [Case("one", ...), factory(), *B]      list literals, starred items
    A = B + [Case("two", ...)]                             earlier lists and +; A = B is one list
    A += B
    A.append(Case("three", ...))                           both of these also inside `if`, where
    A.append(factory())                                    every branch counts; the factory's
                                                           return statement gives the id
    SUITES = {"cpu": A, "1-gpu": B}                        what is asked for, by name

An id is a string literal, and so is `test=`, the pytest node that is the case. A statement that has
nothing to do with cases may be anything. Any other statement is a problem with its line, and so is
a case that no suite takes: nothing is lost unseen. What cannot be seen from here is an imported
module that changes the lists of this one; a test compares the answer with the imported module's.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

from tools.ci.mentions import CASE, SUITES, Function, executed, mentions, related
from tools.ci.returns import choices, ends, outside, own

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NODE = re.compile(r"[\w./-]+\.py(::[\w.-]+)*(\[[\w.-]+\])?")
TAME = {"dataclass", "cache"}  # decorators that do not call what they decorate
SHOWN = 60
MEANT = f'expected {CASE}("id", ...) or the call of a function above'


class Listed(NamedTuple):
    """A case as the tree shows it: its id, its pytest node if it names one, and its line."""

    id: str
    test: str
    line: int


class Problem(NamedTuple):
    """Something that cannot be read."""

    line: int
    text: str


class UnreadableError(Exception):
    """The module holds cases that cannot be read; says every place."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}:{line}: {text}" for line, text in problems))


def read_cases(path: Path) -> dict[str, tuple[Listed, ...]]:
    """The cases of each suite in their order, each once. Raises: UnreadableError."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise UnreadableError(path, [Problem(error.lineno or 1, error.msg)]) from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(path, [Problem(1, str(error) or "nested too deeply")]) from None
    reader = _Reader(tree)
    for statement in tree.body:
        try:
            reader.take(statement)
        except RecursionError:
            reader.problems.add(Problem(statement.lineno, "nested too deeply to be read"))
    suites = reader.finish()
    if reader.problems:
        raise UnreadableError(path, sorted(reader.problems))
    return suites


class _Reader:
    """Follows the statements of one module; lists are lists, so that two names can share one."""

    def __init__(self, tree: ast.Module) -> None:
        self.problems: set[Problem] = set()
        self._related = related(tree)
        self._lists: dict[str, list[Listed]] = {}
        self._functions: dict[str, Function] = {}
        self._classes: list[ast.ClassDef] = []
        self._suites: dict[str, list[Listed]] | None = None
        self._first: dict[str, Listed] = {}

    def take(self, node: ast.stmt, *, branch: bool = False) -> None:
        """Read one statement; `branch` says that it stands inside an `if`."""
        match node:
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._define(node, branch=branch)
            case ast.If(test=test, body=body, orelse=other):
                self._unrelated(test)
                for inner in (*body, *other):
                    self.take(inner, branch=True)
            case _ if not mentions(node) & self._related:
                pass
            case ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(value=ast.Name(id=name), attr="append"),
                    args=[item],
                    keywords=[],
                )
            ):
                self._list(node, name).extend(self._case(item))
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value):
                self._list(node, name).extend(self._cases(value))
            case ast.AnnAssign(target=ast.Name(), annotation=annotation, value=None):
                self._unrelated(*(n for n in ast.walk(annotation) if isinstance(n, ast.Call)))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self._assign(node, name, value, branch=branch)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self._assign(node, name, value, branch=branch)
            case _:
                self._refuse(node, f"cannot read {shown(node)}")

    def finish(self) -> dict[str, tuple[Listed, ...]]:
        """The suites, after the last statement."""
        for node in (node for node in self._classes if node.name == CASE):
            for name in sorted(mentions(node) & self._related - {CASE}):
                self._refuse(node, f"{CASE} mentions {name}: making a case could change the lists")
        suites = {name: tuple(dict.fromkeys(held)) for name, held in (self._suites or {}).items()}
        taken = {case for held in suites.values() for case in held}
        if not self.problems and self._suites is None:
            self._report(1, f'no {SUITES} = {{"cpu": ..., ...}} was read')
        elif not self.problems:
            for case in self._first.values():
                if case not in taken:
                    self._report(case.line, f"{case.id} is in no suite of {SUITES}")
        return suites

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name in sorted(mentions(node) & self._related - {CASE}):
            if name == "*":
                self._refuse(node, "a star import may bring cases that cannot be read")
            else:
                self._refuse(node, f"{name} is imported: its cases cannot be read")

    def _define(self, node: Function | ast.ClassDef, *, branch: bool) -> None:
        self._unrelated(*executed(node))
        if isinstance(node, ast.ClassDef):
            self._classes.append(node)
        else:
            self._functions[node.name] = node
        if node.name not in self._related:
            return
        if node.name in self._lists or (node.name == CASE and not isinstance(node, ast.ClassDef)):
            self._refuse(node, f"{node.name} is defined a second time, as something else")
        if branch:
            self._functions.pop(node.name, None)  # which definition a call takes is not known
        for decorator in node.decorator_list:
            if called(decorator) not in TAME:
                self._refuse(decorator, f"@{shown(decorator)} may call {node.name}")

    def _assign(self, node: ast.stmt, name: str, value: ast.expr, *, branch: bool) -> None:
        if branch:
            self._refuse(node, "inside an if only append and += can be read")
        elif name == CASE or name in self._functions:
            self._refuse(node, f"{name} is given a second meaning")
        elif name != SUITES:
            self._lists[name] = self._cases(value)
        elif self._suites is not None:
            self._refuse(node, f"{SUITES} is assigned a second time")
        else:
            self._suites = self._read_suites(node, value)

    def _read_suites(self, node: ast.stmt, value: ast.expr) -> dict[str, list[Listed]]:
        if not isinstance(value, ast.Dict):
            self._refuse(node, f'{SUITES} must be written out: {{"cpu": A, ...}}')
            return {}
        suites: dict[str, list[Listed]] = {}
        for key, held in zip(value.keys, value.values, strict=True):
            name = literal(key)
            if not PLAIN.fullmatch(name):
                self._refuse(held, "a suite's name must be a string literal of letters and digits")
            elif name in suites:
                self._refuse(held, f"the suite {name} is named twice")
            suites[name] = self._cases(held)
        return suites

    def _list(self, node: ast.AST, name: str) -> list[Listed]:
        if name not in self._lists:
            self._refuse(node, f"{name} is no list that was read above")
        return self._lists.get(name, [])

    def _cases(self, node: ast.expr) -> list[Listed]:
        """The value of a list expression; a name gives the very list that it names."""
        match node:
            case ast.List(elts=items):
                return [case for item in items for case in self._item(item)]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._cases(left) + self._cases(right)
            case ast.Name(id=name):
                return self._list(node, name)
            case _:
                self._refuse(node, f"cannot read {shown(node)} as a list of cases")
                return []

    def _item(self, node: ast.expr) -> list[Listed]:
        if isinstance(node, ast.Starred):
            return list(self._cases(node.value))
        return self._case(node)

    def _case(self, node: ast.expr, inside: tuple[str, ...] = ()) -> list[Listed]:
        """One case, or nothing and a problem; `inside` are the factories that led here."""
        match node:
            case ast.Call(func=ast.Name(id=name)) if name == CASE:
                return self._declared(node)
            case ast.Call(func=ast.Name(id=name)) if name in self._functions:
                self._unrelated(*node.args, *node.keywords)
                if name in inside:
                    self._refuse(node, f"{name} calls itself")
                    return []
                return self._made(self._functions[name], (*inside, name))
            case _:
                self._refuse(node, f"cannot read {shown(node)}: {MEANT}")
                return []

    def _declared(self, node: ast.Call) -> list[Listed]:
        """The case of one `Case(...)`."""
        self._unrelated(*node.args, *node.keywords)
        words = {word.arg: word.value for word in node.keywords}
        if None in words or any(isinstance(item, ast.Starred) for item in node.args):
            self._refuse(node, "unpacked arguments may hold an id or a test")
        elif len(node.args) > 1:
            self._refuse(node, "only the id stands without a keyword")
        name = literal(node.args[0] if node.args else words.get("id"))
        test = literal(words["test"]) if "test" in words else ""
        if not PLAIN.fullmatch(name):
            self._refuse(node, "the id must be a string literal of letters, digits, '.', '_', '-'")
            return []
        if "test" in words and not NODE.fullmatch(test):
            self._refuse(node, f"the test of {name} must be a literal like tests/test_a.py::test_b")
        case = Listed(name, test, node.lineno)
        first = self._first.setdefault(name, case)
        if first.test != test:
            self._refuse(node, f"{name} is another case than in line {first.line}")
        return [first]

    def _made(self, function: Function, inside: tuple[str, ...]) -> list[Listed]:
        """The case that a factory returns."""
        found = [case for value in self._returned(function) for case in self._case(value, inside)]
        ids = list(dict.fromkeys(case.id for case in found))
        if len(ids) > 1:
            self._refuse(function, f"{function.name} can return several ids: {', '.join(ids)}")
        return found[:1]

    def _returned(self, function: Function) -> list[ast.expr]:
        """What a factory can return; all else in it must have nothing to do with cases."""
        inner = list(own(function))
        returns = [node for node in inner if isinstance(node, ast.Return)]
        returns.sort(key=lambda node: node.lineno)
        values = [value for node in returns if node.value for value in choices(node.value)]
        kinds = (ast.Yield, ast.YieldFrom)
        if isinstance(function, ast.AsyncFunctionDef) or any(isinstance(n, kinds) for n in inner):
            self._refuse(function, f"{function.name} is no plain function")
        elif len(values) < len(returns) or not ends(function.body):
            self._refuse(function, f"{function.name} can end without returning a case")
        parameters = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
        for name in sorted(parameters & self._related):
            self._refuse(function, f"the parameter {name} hides what it is called after")
        self._unrelated(*outside(function.body))
        return values

    def _unrelated(self, *nodes: ast.AST) -> None:
        """Refuse what must have nothing to do with cases and has."""
        for node in nodes:
            for name in sorted(mentions(node) & self._related):
                self._refuse(node, f"cannot follow {name} in {shown(node)}")

    def _refuse(self, node: ast.AST, text: str) -> None:
        lines = (line for inner in ast.walk(node) if (line := getattr(inner, "lineno", None)))
        self._report(next(lines, 1), text)

    def _report(self, line: int, text: str) -> None:
        self.problems.add(Problem(line, text))


def literal(node: ast.expr | None) -> str:
    """The text of a string literal; empty for everything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def called(decorator: ast.expr) -> str:
    """The last name of what a decorator calls."""
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(function).rpartition(".")[2]


def shown(node: ast.AST) -> str:
    """The source of a node, cut to fit into a line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

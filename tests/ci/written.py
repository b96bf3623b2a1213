"""Modules that declare cases, written by Hypothesis in the grammar of `tools/ci/case_reader.py`."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

HEAD = """\
class Case:
    def __init__(self, id, test="", size=0):
        self.id, self.test = id, test
"""
IDS = ("one", "two", "three", "a.b", "c_d", "14b-fast")
NOISE = (
    '"""A text."""',
    "import os",
    "LIMITS = [1, 2, 3]",
    "LIMITS_TOO: list[int] = []",
    "TABLE = {'one': [word.upper() for word in 'a b'.split()]}",
    "def helper(x):\n    return [x, *x]",
    "class Plain:\n    size = 3\n    def all(self): return [self.size]",
    "for number in range(3):\n    print(end='')",
    "assert True",
    "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None",
    "unused: list[Case]",
    "def by_id(suite):\n    return {case.id: case for case in SUITES[suite]}",
)
FACTORIES = (
    "    return {0}",
    '    """A text."""\n    size = 3\n    return {0}',
    "    if size > 2:\n        return {0}\n    return {1}",
    "    if size:\n        return {0}\n    else:\n        raise ValueError(size)",
    "    return {0} if size else {1}",
    "    def inner():\n        return 3\n    return {1}",
    "    with open(__file__):\n        return {0}",
)
TRUE, FALSE = ("True", "1 < 2", "not LIMIT"), ("False", "LIMIT", "2 < 1 and True")


def call(name: str, size: int | None = None) -> str:
    """`Case(...)` of an id; whether it names a test follows from the id."""
    words = [f'test="tests/test_{len(name)}.py::test_it"'] if len(name) == 3 else []
    words += [] if size is None else [f"size={size}"]
    return f"Case({', '.join([repr(name), *words])})"


class Writer:
    """Draws one module, statement by statement."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.lists: list[str] = []
        self.factories: list[tuple[str, str]] = []  # name, id

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def module(self) -> str:
        """The whole source; every list is in a suite of its own, so no case is lost."""
        parts = [HEAD, "LIMIT = 0"]
        for _ in range(self.draw(st.integers(1, 8))):
            kinds = [self.noise, self.new_list, self.new_list, self.factory]
            kinds += [self.change, self.change, self.branch] if self.lists else []
            parts.append(self.one_of(*kinds)())
        parts += [] if self.lists else [self.new_list()]
        suites = [f'"suite-{name}": {name}' for name in self.lists]
        suites += [f'"more": {self.cases()}'] if self.draw(st.booleans()) else []
        parts.append(f"SUITES = {{{', '.join(suites)}}}")
        parts += [self.change() for _ in range(self.draw(st.integers(0, 2)))]
        return "\n".join(parts) + "\n"

    def noise(self) -> str:
        return self.one_of(*NOISE)

    def new_list(self) -> str:
        annotation = self.one_of("", ": list[Case]", ": 'list[Case]'")
        value, name = self.cases(), f"LIST_{len(self.lists)}"
        self.lists.append(name)
        return f"{name}{annotation} = {value}"

    def factory(self) -> str:
        name, made = f"make_{len(self.factories)}", self.one_of(*IDS)
        direct = call(made)
        others = [f"{other}(size=size)" for other, of in self.factories if of == made]
        body = self.one_of(*FACTORIES).format(self.one_of(direct, *others), call(made, 3))
        self.factories.append((name, made))
        return f"def {name}(size=1):\n{body}"

    def change(self) -> str:
        name = self.one_of(*self.lists)
        if self.draw(st.booleans()):
            return f"{name} += {self.cases()}"
        return f"{name}.append({self.case()})"

    def branch(self) -> str:
        """An `if` whose live side changes lists; the other side must not, or exec would differ."""
        inner = [
            self.one_of(self.change, self.noise)() for _ in range(self.draw(st.integers(1, 2)))
        ]
        inner += [self.branch()] if self.draw(st.integers(0, 3)) == 0 else []
        block = indent("\n".join(inner))
        kind = self.draw(st.integers(0, 2))
        if kind == 0:
            return f"if {self.one_of(*TRUE)}:\n{block}"
        if kind == 1:
            return f"if {self.one_of(*TRUE)}:\n{block}\nelse:\n    pass"
        condition = self.one_of(*FALSE)
        return f"if {condition}:\n    pass\nelif {self.one_of(*TRUE)}:\n{block}"

    def cases(self) -> str:
        """A list expression."""
        kinds = [self.literal, self.literal]
        kinds += [self.name, self.sum] if self.lists else []
        return self.one_of(*kinds)()

    def name(self) -> str:
        return self.one_of(*self.lists)

    def sum(self) -> str:
        left, right = self.one_of(self.name, self.literal)(), self.literal()
        return f"{left} + {right}" if self.draw(st.booleans()) else f"({right} + {left})"

    def literal(self) -> str:
        items = [self.case() for _ in range(self.draw(st.integers(0, 3)))]
        if self.lists and self.draw(st.booleans()):
            items.append(f"*{self.name()}")
        return f"[{', '.join(items)}]"

    def case(self) -> str:
        if self.factories and self.draw(st.booleans()):
            name, _ = self.one_of(*self.factories)
            return f"{name}({self.one_of('', '7', 'size=len(str(LIMIT)) + 3')})"
        return call(self.one_of(*IDS), self.one_of(None, 3))


def indent(text: str) -> str:
    """Every line four spaces to the right."""
    return "\n".join(f"    {line}" for line in text.splitlines())


@st.composite
def modules(draw: Any) -> str:
    """Modules in which every case can be read."""
    return Writer(draw).module()

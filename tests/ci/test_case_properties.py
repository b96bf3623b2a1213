"""For any module the reader says what running it gives, or where it stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ci.written import HEAD, modules
from tools.ci.case_reader import UnreadableError, read_cases

Answer = dict[str, tuple[tuple[str, str], ...]]

# Each changes, hides or could change cases in a way that is not of the grammar.
UNREADABLE = [
    "A.extend([Case('x')])",
    "A.insert(0, Case('x'))",
    "A[:0] = [Case('x')]",
    "A[0] = Case('x')",
    "del A[0]",
    "A.clear()",
    "A *= 2",
    "A = A * 2",
    "A = list(A)",
    "A = A[:1]",
    "A = sorted(A, key=id)",
    "A = [case for case in A]",
    "A = (Case('x'),)",
    "B = C = [Case('x')]",
    "B, C = [Case('x')], []",
    "(B := [Case('x')])",
    "A += [Case('x')] if A else []",
    "A += (Case('x'),)",
    "A.append(Case('x') if A else Case('y'))",
    "A.append(Case(f'{1}'))",
    "A.append(Case('a' + 'b'))",
    "A.append(Case(str(3)))",
    "A.append(Case(*['x']))",
    "A.append(Case(**{'id': 'x'}))",
    "A.append(Case('x', 'tests/test_x.py'))",
    "A.append(Case('x', test='tests/' + 'test_x.py'))",
    "A.append(Case('x', size=len(A)))",
    "A.append(Case('x y'))",
    "A.append(Case(''))",
    "A.append((lambda: Case('x'))())",
    "A.append(B[0] if (B := [Case('x')]) else 0)",
    "add = A.append",
    "print(A.append(Case('x')))",
    "for name in ('x', 'y'):\n    A.append(Case(name))",
    "while len(A) < 3:\n    A.append(Case('x'))",
    "with open(__file__):\n    A.append(Case('x'))",
    "try:\n    A.append(Case('x'))\nfinally:\n    pass",
    "match 3:\n    case 3:\n        A.append(Case('x'))",
    "if len(A) > 0:\n    pass",
    "if True:\n    B = [Case('x')]",
    "if True:\n    def made():\n        return Case('x')\nA.append(made())",
    "def add():\n    A.append(Case('x'))\nadd()",
    "def add():\n    A.append(Case('x'))\ndef twice():\n    add()\ntwice()",
    "def now(f):\n    f()\n@now\ndef add():\n    A.append(Case('x'))",
    "def add(value=A.append(Case('x'))):\n    pass",
    "class Add:\n    A.append(Case('x'))",
    "class Add:\n    def __init__(self):\n        A.append(Case('x'))\nAdd()",
    "class C:\n    def __init_subclass__(cls):\n        A.append(Case('x'))\nclass D(C):\n    pass",
    "exec(\"A.append(Case('x'))\")",
    "globals()['A'].append(Case('x'))",
    "globals()['A'].clear()",
    "vars()['A'].clear()",
    "Case = list",
    "from os import *",
    "from os import path as A",
    "import os as A",
    "def A():\n    pass",
    "if True:\n    SUITES = {'other': A}",
    "async def made():\n    return Case('x')\nA.append(made())",
    "def made():\n    yield Case('x')\nA.append(made())",
    "def made():\n    if A:\n        return Case('x')\nA.append(made())",
    "def made():\n    if 3:\n        return Case('x')\n    return Case('y')\nA.append(made())",
    "def made():\n    return Case('x') if 3 else Case('y')\nA.append(made())",
    "def made(name='x'):\n    return Case(name)\nA.append(made())",
    "def made():\n    case = Case('x')\n    return case\nA.append(made())",
    "def made():\n    A.append(Case('y'))\n    return Case('x')\nA.append(made())",
    "def made():\n    with A:\n        return Case('x')\nA.append(made())",
    "def made():\n    if A.clear():\n        pass\n    return Case('x')\nA.append(made())",
    "def made():\n    return [Case('x')][0]\nA.append(made())",
    "def made(Case=lambda text: [text]):\n    return Case('x')\nA.append(made())",
    "def made(case=Case('x')):\n    return case\nA.append(made())",
]


def answer(path: Path) -> Answer:
    """What the reader says."""
    suites = read_cases(path)
    return {name: tuple((case.id, case.test) for case in held) for name, held in suites.items()}


def executed(source: str) -> Answer:
    """What running the module gives, every case once."""
    namespace = {"__file__": __file__}
    exec(source, namespace)
    suites: dict[str, list[object]] = namespace["SUITES"]  # pyright: ignore
    return {
        name: tuple(dict.fromkeys((case.id, case.test) for case in held))  # pyright: ignore
        for name, held in suites.items()
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("module") / "cases.py"


many = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@many
@given(source=modules())
def test_the_answer_is_that_of_the_module(path: Path, source: str) -> None:
    path.write_text(source)
    assert answer(path) == executed(source)


@many
@given(source=modules(), planted=st.sampled_from(UNREADABLE), data=st.data())
def test_what_cannot_be_read_is_found_wherever_it_stands(
    path: Path, source: str, planted: str, data: st.DataObject
) -> None:
    """Between any two statements; the lists of the planted line are made before it."""
    parts = source.split("\n")
    starts = [i for i, line in enumerate(parts) if line.startswith(("LIST_", "LIMIT", "SUITES"))]
    place = data.draw(st.sampled_from(starts))
    made = "A = [Case('first')]"
    path.write_text("\n".join([*parts[:place], made, planted, *parts[place:]]))
    with pytest.raises(UnreadableError) as caught:
        read_cases(path)
    planted_lines = range(place + 2, place + 3 + planted.count("\n"))
    assert any(problem.line in planted_lines for problem in caught.value.problems)
    assert f"{path}:{caught.value.problems[0].line}: " in str(caught.value)


@pytest.mark.parametrize("planted", UNREADABLE)
def test_no_way_around_the_grammar_is_silent(path: Path, planted: str) -> None:
    source = f"{HEAD}A = [Case('first')]\n{planted}\nSUITES = {{'cpu': A}}\n"
    path.write_text(source)
    with pytest.raises(UnreadableError) as caught:
        read_cases(path)
    first = HEAD.count("\n") + 2
    assert first <= caught.value.problems[0].line <= first + planted.count("\n")

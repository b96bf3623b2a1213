"""What the case reader reads and what it says of the rest: small modules with known answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.ci.case_reader import Problem, UnreadableError, read_cases

Read = Callable[[str], dict[str, list[str]]]
HEAD = "from somewhere import Case\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The ids of each suite of a source; `Case` is imported in its first line."""

    def read(source: str) -> dict[str, list[str]]:
        path = tmp_path / "cases.py"
        path.write_text(HEAD + source)
        return {name: [case.id for case in held] for name, held in read_cases(path).items()}

    return read


def problems(read: Read, source: str) -> list[Problem]:
    with pytest.raises(UnreadableError) as caught:
        read(source)
    return caught.value.problems


def test_every_form_of_the_grammar(read: Read) -> None:
    source = """
FIRST = [Case("a", size=(8, 8)), Case(id="b")]
SECOND: list[Case] = [*FIRST, Case("c")] + FIRST
def heavy(size=3):
    return Case("d", size=size)
SECOND.append(heavy())
SECOND.append(Case("e"))
if FIRST_IS_HERE:
    SECOND.append(Case("f"))
elif True:
    SECOND.append(heavy(size=9))
    SECOND += [Case("g")]
else:
    SECOND.append(Case("h"))
SECOND += FIRST
NONE: list[Case] = []
SUITES = {"cpu": FIRST, "1-gpu": SECOND, "2-gpu": NONE, "all": FIRST + SECOND}
"""
    second = ["a", "b", "c", "d", "e", "f", "g", "h"]
    assert read(source) == {"cpu": ["a", "b"], "1-gpu": second, "2-gpu": [], "all": second}


def test_two_names_of_one_list_stay_one_list(read: Read) -> None:
    source = """
A = [Case("a")]
SAME, = 3,
B = A
C = A + []
SUITES = {"a": A, "b": B, "c": C}
B.append(Case("b"))
A += [Case("c")]
C.append(Case("d"))
"""
    assert read(source) == {"a": ["a", "b", "c"], "b": ["a", "b", "c"], "c": ["a", "d"]}


def test_a_factory_is_the_one_defined_last(read: Read) -> None:
    source = """
def made():
    return Case("a")
A = [made()]
def made():
    return Case("b")
A.append(made())
SUITES = {"cpu": A}
"""
    assert read(source) == {"cpu": ["a", "b"]}


def test_a_case_keeps_its_test_and_its_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.py"
    path.write_text('A = [\n    Case("a", test="tests/x.py::test_y[z]"),\n]\nSUITES = {"cpu": A}\n')
    (case,) = read_cases(path)["cpu"]
    assert case == ("a", "tests/x.py::test_y[z]", 2)


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("A = [Case('a')]\n", 1, "no SUITES"),
        ("A = [Case('a')]\nSUITES = {'cpu': []}\n", 2, "a is in no suite"),
        ("A = [Case('a')]\nA = [Case('b')]\nSUITES = {'cpu': A}\n", 2, "a is in no suite"),
        ("SUITES = {'cpu': A}\n", 2, "A is no list that was read above"),
        ("SUITES = {'cpu': []}\nSUITES = {'gpu': []}\n", 3, "a second time"),
        ("SUITES = {'cpu': [], 'cpu': []}\n", 2, "named twice"),
        ("SUITES = {'c p u': []}\n", 2, "a suite's name"),
        ("SUITES = {name(): []}\n", 2, "a suite's name"),
        ("SUITES = {**OTHERS}\n", 2, "a suite's name"),
        ("SUITES = dict(cpu=[])\n", 2, "written out"),
        ("SUITES = {'cpu': [made()]}\n", 2, "cannot read made()"),
        ("SUITES = {'cpu': [Case('a') , Case(", 2, "'(' was never closed"),
        ("A = [Case('a'), Case('a', test='x.py')]\nSUITES = {'cpu': A}", 2, "another case"),
        ("from elsewhere import A\nSUITES = {'cpu': A}\n", 2, "A is imported"),
        ("from elsewhere import *\n", 2, "star import"),
        (
            "class Case:\n    def __init__(self, i):\n        SUITES['x'] = 3\n",
            2,
            "mentions SUITES",
        ),
        (
            "def one():\n    return two()\ndef two():\n    return one()\nSUITES = {'a': [one()]}\n",
            5,
            "itself",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    read: Read, source: str, line: int, words: str
) -> None:
    found = problems(read, source)
    assert any(at == line and words in text for at, text in found), found


FACTORIES = [
    ("    if size:\n        return Case('a')\n    return Case('b')", "several ids: a, b"),
    ("    return Case('a') if size else Case('b')", "several ids: a, b"),
    ("    if size:\n        return Case('a')", "without returning"),
    ("    if size:\n        return\n    return Case('a')", "without returning"),
    ("    for _ in range(2):\n        return Case('a')", "without returning"),
    ("    yield Case('a')", "no plain function"),
    ("    pass", "without returning"),
]


@pytest.mark.parametrize(("body", "words"), FACTORIES)
def test_a_factory_gives_one_id(read: Read, body: str, words: str) -> None:
    source = f"def made(size=1):\n{body}\nSUITES = {{'cpu': [made()]}}\n"
    found = problems(read, source)
    assert any(at == 2 and words in text for at, text in found), found


def test_a_factory_that_is_not_called_may_be_anything(read: Read) -> None:
    assert read(f"def made(size=1):\n{FACTORIES[0][0]}\nSUITES = {{'cpu': []}}\n") == {"cpu": []}


def test_every_problem_is_said_at_once(read: Read, tmp_path: Path) -> None:
    source = "A = [Case(name), Case('a')]\nA.extend(B)\nSUITES = {'cpu': A}\n"
    with pytest.raises(UnreadableError) as caught:
        read(source)
    path = tmp_path / "cases.py"
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}:2: the id must be a string literal")
    assert second == f"{path}:3: cannot read A.extend(B)"


def test_a_sum_without_end(read: Read) -> None:
    (problem,) = problems(read, f"SUITES = {{'cpu': {' + '.join(['[]'] * 2000)}}}\n")
    assert problem.line in (1, 2) and "SUITES" not in problem.text


def test_a_file_that_is_no_module(tmp_path: Path) -> None:
    for content in (None, b"\xff\xfe\x00", b"A = [\x00]"):
        path = tmp_path / "cases.py"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UnreadableError, match=r"cases\.py:1: "):
            read_cases(path)

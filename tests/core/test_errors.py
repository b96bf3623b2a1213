"""Every error has a code of its own, by which it is raised again on the other side of a process."""

from __future__ import annotations

from collections.abc import Iterator

from worldline.client.errors import ConnectionLostError, RefusedError
from worldline.core import errors
from worldline.core.errors import InputError, WorldlineError, error_classes


class WornOutError(InputError):
    """Of a caller: with its base's code."""


def tree(root: type[WorldlineError]) -> Iterator[type[WorldlineError]]:
    yield root
    for cls in root.__subclasses__():
        yield from tree(cls)


def test_no_two_classes_share_a_code() -> None:
    ours = {cls for cls in tree(WorldlineError) if cls.__module__ == errors.__name__}
    assert len(ours) > 20
    assert set(error_classes().values()) == ours
    assert all(error_classes()[cls.code] is cls for cls in ours)


def test_classes_of_others_are_not_raised_for_what_a_process_said() -> None:
    assert not {RefusedError.code, ConnectionLostError.code} & set(error_classes())
    assert error_classes()[WornOutError.code] is InputError

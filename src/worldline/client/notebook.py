"""A live picture in a notebook cell without widgets: one display that is updated in place."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from worldline.client.picture import Picture
from worldline.core.errors import ConfigError


class Handle(Protocol):
    """What a notebook gives for something displayed."""

    def update(self, item: Any, /) -> None:
        """Show this in its place."""
        ...


class Display(Protocol):
    """`IPython.display.display`, as far as it is used."""

    def __call__(self, item: Any, /, *, display_id: bool) -> Handle | None:
        """Show `item`; the handle shows others in its place."""
        ...


def show(
    pictures: Iterable[Picture], count: int | None = None, *, display: Display | None = None
) -> None:
    """Show pictures one after the other in one place; all of them, or the first `count`.

    Raises: ConfigError outside a notebook.
    """
    shown = display or _notebook()
    handle: Handle | None = None
    for picture in islice(pictures, count):
        if handle is None:
            handle = shown(picture, display_id=True)
        else:
            handle.update(picture)


def _notebook() -> Display:
    try:
        found: Display = importlib.import_module("IPython.display").display
    except ImportError as error:
        raise ConfigError("no notebook", expected="IPython, or display=") from error
    return found

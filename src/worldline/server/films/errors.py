"""What only the films' routes answer: no code of the wire, and none that crosses a process."""

from __future__ import annotations

from worldline.core.errors import ConfigError, InputError, SessionError


class UnknownFilmError(SessionError):
    """There is no film of that id for this client, or not any more."""

    code = "unknown_film"
    http_status = 404


class FilmNotReadyError(InputError):
    """There is no file of this film, or not yet."""

    code = "film_not_ready"
    http_status = 409


class NoFilmsError(ConfigError):
    """This server makes no films."""

    code = "no_films"
    http_status = 404

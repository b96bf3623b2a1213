"""What the SDK raises besides the errors of `worldline.core.errors`.

WorldlineError
├── RefusedError          the server said no, or ended the world; `failure` has all it said
└── ConnectionLostError   no connection, and no hope of one in the time that was allowed
"""

from __future__ import annotations

from worldline.core.errors import WorldlineError
from worldline.core.live.server import Failure


class RefusedError(WorldlineError):
    """The server refused a request or ended the world."""

    code = "refused"

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        expected = failure.expected if isinstance(failure.expected, str) else None
        got = failure.got if isinstance(failure.got, str) else None
        super().__init__(f"{failure.message} [{failure.code}]", expected=expected, got=got)

    @property
    def retry_after_s(self) -> float | None:
        """When to try again, in seconds; None where the server did not say."""
        after = self.failure.retry_after_ms
        return after / 1000 if isinstance(after, int) else None


class ConnectionLostError(WorldlineError):
    """The server cannot be reached, or was not reached again within the world's grace time."""

    code = "connection_lost"
    retryable = True

"""Structured logs: stdlib logging, one JSON object per line.

Code logs a short event name and puts the facts into `extra={"fields": {...}}`; the formatter writes
them beside time, level and logger. Nothing is configured on import.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from worldline.core.secret import HIDDEN

_TOKENS: Final = re.compile(
    r"""(bearer[.\s]+|[?&](?:token|access_token|api_key|key)=|\btoken=\\?["'])[^\s"'\\&,)]+"""
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*",
    re.IGNORECASE,
)


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with the `fields` it carries."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return scrub(json.dumps(line, default=str))


def scrub(text: str) -> str:
    """`text` without tokens: those that stand where tokens stand, whoever wrote them there.

    Our own code never logs one; this is for libraries, tracebacks, and what peers make us quote.
    """
    return _TOKENS.sub(lambda found: f"{found[1] or ''}{HIDDEN}", text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The structured part of a record."""
    return getattr(record, "fields", {})


def log(logger: logging.Logger, level: int, event: str, **fields: object) -> None:
    """Log one event with its facts."""
    logger.log(level, event, extra={"fields": fields})


def configure_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send the package's and the web server's logs to `stream` (stderr) as JSON lines.

    Called once by the command that serves; replaces handlers set by an earlier call.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("worldline", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False

"""The walk so far in thumbnails, as its server tells it."""

from __future__ import annotations

from worldline.core.live.server import Moment, Rewound


class Timeline:
    """Of one world; who takes the controls is told all of it again."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.rewound: Rewound | None = None

    def take(self, message: Moment | Rewound) -> None:
        """One more moment; or the walk went back, and those behind that place are void."""
        if isinstance(message, Moment):
            self.moments.append(message)
            return
        self.rewound = message
        self.moments = [moment for moment in self.moments if moment.chunk < message.chunk]

    def begin(self) -> None:
        """Another connection: all that there are come again."""
        self.moments = []

"""What became of every input: received, applied, shown, refused or lost with the connection."""

from __future__ import annotations

from typing import Final

from worldline.core.live.server import Applied, Branched, Failure, Received, Saved

KEPT: Final = 4096


class Receipt:
    """The life of one input. `at_ms` is our clock when it was sent.

    `received` and `applied` are the server's two receipts, `shown` the number of the first frame
    that shows it, `answer` what a branch or a save came to, `refused` why it was not taken; `lost`
    says that the connection broke before it was received: send it again where it still matters.
    """

    def __init__(self, number: int, at_ms: float) -> None:
        self.id = number
        self.at_ms = at_ms
        self.received: Received | None = None
        self.applied: Applied | None = None
        self.refused: Failure | None = None
        self.shown: int | None = None
        self.answer: Branched | Saved | None = None
        self.lost = False

    def __repr__(self) -> str:
        return f"Receipt(id={self.id}, {self.stage})"

    @property
    def stage(self) -> str:
        """The furthest it has come, as one word."""
        if self.refused is not None:
            return "refused"
        if self.shown is not None:
            return "shown"
        if self.applied is not None:
            return "applied"
        if self.received is not None:
            return "received"
        return "lost" if self.lost else "sent"

    @property
    def over(self) -> bool:
        """Whether it will never be applied."""
        return self.lost or self.refused is not None


class Receipts:
    """The inputs whose story is not over, oldest first; bounded."""

    def __init__(self) -> None:
        self._open: dict[int, Receipt] = {}
        self.newest = 0

    def begin(self, at_ms: float) -> Receipt:
        """The receipt of the next input, with the next id."""
        self.newest += 1
        receipt = Receipt(self.newest, at_ms)
        self._open[receipt.id] = receipt
        while len(self._open) > KEPT:
            del self._open[next(iter(self._open))]
        return receipt

    def received(self, message: Received) -> None:
        """The first receipt."""
        if receipt := self._open.get(message.id):
            receipt.received = message

    def applied(self, message: Applied) -> None:
        """The second receipt."""
        if receipt := self._open.get(message.id):
            receipt.applied = message
            self._close(receipt)

    def refused(self, message: Failure) -> bool:
        """A refusal; False when it names no input of ours."""
        receipt = self._open.pop(message.id, None) if isinstance(message.id, int) else None
        if receipt is None:
            return False
        receipt.refused = message
        return True

    def answered(self, message: Branched | Saved) -> None:
        """What an input came to, which comes before its second receipt."""
        if receipt := self._open.get(message.id):
            receipt.answer = message

    def shown(self, newest: int, frame: int) -> Receipt | None:
        """Frame `frame` shows all inputs up to `newest`; the newest of ours that is new in it."""
        found: Receipt | None = None
        for receipt in [r for r in self._open.values() if r.id <= newest and r.shown is None]:
            receipt.shown = frame
            self._close(receipt)
            found = receipt
        return found

    def _close(self, receipt: Receipt) -> None:
        """Forget it once nothing more will be said of it."""
        if receipt.applied is not None and receipt.shown is not None:
            del self._open[receipt.id]

    def lose(self) -> None:
        """The connection broke: what was not received will not be."""
        for number, receipt in list(self._open.items()):
            if receipt.received is None:
                receipt.lost = True
                del self._open[number]

"""The wire of `worldline.v1`: every message of our own dialect, in both directions; the one source.

One binary WebSocket message is one MessagePack map with a `type`. AsyncAPI, JSON Schema and the
client's TypeScript types are generated from these structs (`tools/schema.py`) and checked in CI.
Unknown fields are ignored by both sides, unknown types are refused with `error`. Times that end in
`_ms` are milliseconds; `at_ms` is the sender's own monotonic clock, `server_ms` the server's.

    C hello            -> S ready                      the limits, the model, what it can send
    C enter            -> S seat | queued | error      within 100 ms; then `opened`, then frames
    C rejoin / watch   -> S seat, opened | error       the same world again, or somebody else's
    C input (any `id`) -> S received, later applied    or `error` with that id, and nothing changed
    S frame ...        -> C playhead, shown            how far ahead it plays, and what was seen
"""

from __future__ import annotations

from worldline.core.live.client import ClientMessage as ClientMessage
from worldline.core.live.server import ServerMessage as ServerMessage
from worldline.core.live.shared import SUBPROTOCOL as SUBPROTOCOL
from worldline.core.live.shared import VERSION as VERSION

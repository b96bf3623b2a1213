"""The Python SDK: walk a served world from a program, a script or a notebook.

    with Client("http://127.0.0.1:30000").world("start.png", "a quiet lake") as w:
        for frame in w.frames():
            w.press("w")

`Client` and `World` block, `AsyncClient` and `AsyncWorld` are awaited; both do the same. A lost
connection is opened again by itself and the world goes on where it was, with every key released.
Imports nothing of the engine or the server, only `worldline.core`.
"""

from __future__ import annotations

from worldline.client.aio import AsyncClient as AsyncClient
from worldline.client.aio import AsyncWorld as AsyncWorld
from worldline.client.clock_sync import ClockSync as ClockSync
from worldline.client.errors import ConnectionLostError as ConnectionLostError
from worldline.client.errors import RefusedError as RefusedError
from worldline.client.options import Patience as Patience
from worldline.client.options import WorldOptions as WorldOptions
from worldline.client.picture import Picture as Picture
from worldline.client.receipts import Receipt as Receipt
from worldline.client.sync import Client as Client
from worldline.client.sync import World as World

"""The requests of one turn of the event loop, written together at its end.

To wake a server that sleeps costs more than a request. So the requests that one turn makes, on
whatever connections, go out one right after the other, and it is woken once.
"""

from __future__ import annotations

import asyncio


class Outbox:
    """Shared by the connections to one endpoint. For one event loop."""

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def put(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, request: bytes
    ) -> None:
        """Write a request at the end of this turn of `loop`, unless its transport closes."""
        if not self._waiting:
            loop.call_soon(self._write)
        self._waiting.append((transport, request))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, request in waiting:
            if not transport.is_closing():
                transport.write(request)

"""A gate that is open or closed. A task that comes to a closed gate waits until it opens.

It is an asyncio.Event whose state is a plain attribute, because the hot path reads it with every
request.
"""

from __future__ import annotations

import asyncio


class Gate:
    """Open at first. For the tasks of one event loop."""

    def __init__(self) -> None:
        self.is_open = True
        """Read only; `open` and `close` set it."""
        self._opened = asyncio.Event()
        self._opened.set()

    def open(self) -> None:
        """Open the gate and wake the tasks that wait."""
        self.is_open = True
        self._opened.set()

    def close(self) -> None:
        """Close the gate."""
        self.is_open = False
        self._opened.clear()

    async def wait(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait()

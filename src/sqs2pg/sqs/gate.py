"""A gate: open or closed, and who comes while it is closed waits.

An asyncio.Event whose state is a plain attribute: the hot path asks for it with every request.
"""

from __future__ import annotations

import asyncio


class Gate:
    """Open at first. For the tasks of one event loop."""

    def __init__(self) -> None:
        self.is_open = True
        """Whether one may pass; to read only."""
        self._opened = asyncio.Event()
        self._opened.set()

    def open(self) -> None:
        """Let everybody pass, who waits too."""
        self.is_open = True
        self._opened.set()

    def close(self) -> None:
        """Let nobody pass until it is opened."""
        self.is_open = False
        self._opened.clear()

    async def passed(self) -> None:
        """Wait until it is open."""
        await self._opened.wait()

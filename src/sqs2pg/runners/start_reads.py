"""What pipelines of one process that start at the same time read once for all of them.

Each start checks the record of the database, the keys and the books' tables. For fifty pipelines of
one database the answers are the same, and fifty times the work.

Promise: what a start uses was read while it was under way, by itself or by another one. So it knows
no less than if it had read everything itself: a start after a change sees the change. What failed
is not shared: each start meets the fault itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Once(Protocol):
    """Returns what `read` returns, or has returned for another start of the same database."""

    async def __call__(self, what: Hashable, read: Callable[[], Awaitable[T]], /) -> T:
        """`what` names it, and all that it depends on beside the database. Raises as `read`."""


async def read_alone(_what: Hashable, read: Callable[[], Awaitable[T]]) -> T:
    """Read it: a start that shares nothing."""
    return await read()


class _Answer(NamedTuple):
    asked_at: float
    """time.monotonic() before it was read."""
    value: Any


class SharedReads:
    """The answers that starts of one process share. For one event loop."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, _Answer] = {}
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._starts = 0

    def begin(self, database: str) -> StartReads:
        """Return the reads of a start that begins now; `end` them. `database` and login."""
        self._starts += 1
        return StartReads(self, database, time.monotonic())

    def end(self) -> None:
        """Forget the answers when no start is under way: keys are among them."""
        self._starts -= 1
        if not self._starts:
            self._answers.clear()
            self._locks.clear()

    async def once(self, key: Hashable, since: float, read: Callable[[], Awaitable[T]]) -> T:
        """Return an answer that was asked for at `since` or later; read it where there is none."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._answers.get(key)
            if known is None or known.asked_at < since:
                asked_at = time.monotonic()
                known = self._answers[key] = _Answer(asked_at, await read())
            value: T = known.value
            return value


class StartReads:
    """The reads of one start. See the module."""

    def __init__(self, shared: SharedReads, database: str, since: float) -> None:
        self._shared = shared
        self._database = database
        self._since = since

    async def once(self, what: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """As `Once`."""
        return await self._shared.once((self._database, what), self._since, read)

    def end(self) -> None:
        """The start is over."""
        self._shared.end()

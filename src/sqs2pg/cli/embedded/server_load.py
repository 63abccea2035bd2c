"""Whether the local queue server, not the pipeline, is what limits the rate.

An emulator takes longer for each receive the more messages wait. Whoever tries 100,000 messages
would take its rate for ours. The system counts for how long each process ran or waited for a core,
so it is asked: on a crowded machine, too, one that is always at work is the limit. Where nothing
waits it limits nothing: an emulator is kept busy by long polls of an empty queue, too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_EVERY_S = 5.0
_BUSY = 0.7
"""Share of an interval from which on the server may be the limit: it works in one thread."""
_TIMES_OURS = 3.0
"""How many times our own time at work the server's must be."""


class Load(NamedTuple):
    """Shares of the last interval in which they were at work; over 1 with several threads."""

    server: float
    ours: float

    @property
    def server_is_limit(self) -> bool:
        """Whether the server was busy, and we mostly waited for it."""
        return self.server >= _BUSY and self.server >= _TIMES_OURS * self.ours


async def telling_of_limit(
    work: Awaitable[T],
    pid: int,
    tell: Callable[[Load], None],
    waiting: Callable[[], Awaitable[bool]],
    *,
    every_s: float = _EVERY_S,
    busy_s: Callable[[int], float | None] | None = None,
) -> T:
    """Do the work; call `tell` once if the server with this process id turns out to be the limit.

    `waiting` returns whether messages wait to be received. `busy_s` returns for how many seconds a
    process was at work so far, None where the system does not say.
    """
    watching = asyncio.create_task(_watch(pid, tell, waiting, every_s, busy_s or busy_seconds))
    try:
        return await work
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(
    pid: int,
    tell: Callable[[Load], None],
    waiting: Callable[[], Awaitable[bool]],
    every_s: float,
    busy_s: Callable[[int], float | None],
) -> None:
    us = os.getpid()
    began, server, ours = time.monotonic(), busy_s(pid), busy_s(us)
    while True:
        await asyncio.sleep(every_s)
        before, server_before, ours_before = began, server, ours
        began, server, ours = time.monotonic(), busy_s(pid), busy_s(us)
        if server_before is None or ours_before is None or server is None or ours is None:
            return
        seconds = began - before
        load = Load((server - server_before) / seconds, (ours - ours_before) / seconds)
        if load.server_is_limit and await waiting():
            tell(load)
            return


def busy_seconds(pid: int) -> float | None:
    """Return for how long a process's threads ran or waited for a core, so far.

    None if it has ended, or if the system does not count it. Source: Linux, sched-stats,
    /proc/PID/schedstat: nanoseconds on a core, nanoseconds waiting for one.
    """
    total = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            ran, waited, *_ = (thread / "schedstat").read_text("ascii").split()
            total += int(ran) + int(waited)
    except (OSError, ValueError):
        return None
    return total / 1e9

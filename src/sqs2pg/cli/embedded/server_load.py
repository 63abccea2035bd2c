"""Whether the local queue server, not the pipeline, is what limits the rate.

An emulator takes longer for each receive the more messages wait. Whoever tries 100,000 messages
would take its rate for ours. Both use CPU time that the system counts, so it is asked.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_EVERY_S = 5.0
_BUSY = 0.5
"""Share of one core, in an interval, from which on the server may be the limit: it has a thread."""
_TIMES_OURS = 3.0
"""How many times our own CPU time the server's must be."""


class Load(NamedTuple):
    """Shares of one core in the last interval, 0 and up."""

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
    *,
    every_s: float = _EVERY_S,
    server_cpu_s: Callable[[int], float | None] | None = None,
) -> T:
    """Do the work; call `tell` once if the server with this process id turns out to be the limit.

    `server_cpu_s` returns a process's CPU seconds so far, None where the system does not say.
    """
    watching = asyncio.create_task(_watch(pid, tell, every_s, server_cpu_s or cpu_seconds))
    try:
        return await work
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def _watch(
    pid: int,
    tell: Callable[[Load], None],
    every_s: float,
    server_cpu_s: Callable[[int], float | None],
) -> None:
    before = time.monotonic(), server_cpu_s(pid), _own_cpu_s()
    while True:
        await asyncio.sleep(every_s)
        now = time.monotonic(), server_cpu_s(pid), _own_cpu_s()
        if before[1] is not None and now[1] is not None:
            seconds = now[0] - before[0]
            load = Load((now[1] - before[1]) / seconds, (now[2] - before[2]) / seconds)
            if load.server_is_limit:
                tell(load)
                return
        before = now


def cpu_seconds(pid: int) -> float | None:
    """Return a process's CPU time so far, or None: it has ended, or the system has no /proc."""
    try:
        # Behind the name, which is in parentheses and may hold anything. Source: proc(5), stat.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

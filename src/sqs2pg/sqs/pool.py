"""A bounded pool of connections to one endpoint: last in, first out.

Place in the flow: between client and dialer. The warmest connection is lent first, so that
spare ones age and are closed; one timer watches every exchange's deadline and every idle age,
which costs a request nothing.

Promises: at most `connections_max` connections, dialling ones included; a connection is lent to
one exchange at a time, and one that is not usable is never lent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.sqs.connection import HttpConnection

IDLE_S = 15.0
"""Seconds unused before a connection is closed. AWS does not state SQS's own limit; a bit under
20 s stays inside the shortest common one, and a lost race costs one fresh connection."""
SWEEP_S = 1.0
"""Seconds between looks at deadlines and ages, so the precision of both."""
_GOODBYE_S = 1.0

Dial = Callable[[Callable[[HttpConnection], None]], Awaitable[HttpConnection]]


class ConnectionPool:
    """Lends connections; see the module. Belongs to the event loop of its first `take`."""

    def __init__(
        self, dial: Dial, *, connections_max: int, idle_s: float = IDLE_S, sweep_s: float = SWEEP_S
    ) -> None:
        self._dial = dial
        self._connections_max = connections_max
        self._idle_s = idle_s
        self._sweep_s = sweep_s
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._dialling = 0
        self.waiters: deque[asyncio.Future[None]] = deque()
        """Who waits for a connection: who holds one should not hold it for long then."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Connections open or being opened."""
        return len(self._open) + self._dialling

    def take_idle(self, idle_s: float = IDLE_S) -> HttpConnection | None:
        """The warmest idle connection, unless unused for `idle_s` or longer; never waits."""
        while self._idle:
            connection = self._idle[-1]
            if not connection.usable:
                self._idle.pop()
            elif connection.idle_for() < idle_s:
                return self._idle.pop()
            else:
                return None
        return None

    async def take(self, idle_s: float = IDLE_S, *, fresh: bool = False) -> HttpConnection:
        """An idle connection or a new one, waiting for room where the pool is full.

        `fresh`: a new one only. Give it back with `give_back`, whatever happened to it. Raises
        what `Dialer.dial` raises.
        """
        loop = asyncio.get_running_loop()
        while not self._closed:
            if not fresh and (connection := self.take_idle(idle_s)):
                return connection
            if self.size < self._connections_max:
                return await self._open_one(loop)
            if self._idle:
                self._idle.pop(0).abort()  # too old or not fresh enough: make room
            await self._wait(loop)
        raise _closed()

    def give_back(self, connection: HttpConnection) -> None:
        """Return what `take` lent; kept for the next one when it is still usable."""
        if connection.usable:
            self._idle.append(connection)
            self._wake()

    async def close(self) -> None:
        """Close every connection; exchanges in flight fail. May be repeated."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.waiters:
            self._wake()
        leaving = [connection.closed for connection in self._open]
        for connection in list(self._open):
            connection.close()
        if leaving:
            await asyncio.wait(leaving, timeout=_GOODBYE_S)
            for connection in list(self._open):
                connection.abort()
            await asyncio.wait(leaving, timeout=_GOODBYE_S)

    async def _open_one(self, loop: asyncio.AbstractEventLoop) -> HttpConnection:
        self._dialling += 1
        try:
            connection = await self._dial(self._forget)
        except BaseException:
            self._dialling -= 1
            self._wake()
            raise
        self._dialling -= 1
        if self._closed:
            connection.abort()
            raise _closed()
        if not connection.closed.done():
            self._open.add(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._sweep_s, self._sweep, loop)
        return connection

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until a connection comes back or goes away."""
        waiter = loop.create_future()
        self.waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # the news was for someone: pass it on
            raise

    def _wake(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _forget(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        self._wake()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._open):
            connection.expire(now)
        keep = []
        for connection in self._idle:
            if connection.usable and connection.idle_for() < self._idle_s:
                keep.append(connection)
            else:
                connection.close()
        self._idle = keep
        self._timer = loop.call_later(self._sweep_s, self._sweep, loop) if self._open else None


def _closed() -> TransientFault:
    return TransientFault("the SQS client is closed", code="aws_connection", stage=Stage.RECEIVE)

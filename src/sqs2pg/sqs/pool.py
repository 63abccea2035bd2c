"""A bounded pool of connections to one endpoint: last in, first out.

Place in the flow: between client and dialer. The connection used last is lent first, so that spare
ones age and are closed. One timer watches the deadline of every exchange and the age of every idle
connection, which costs a request nothing.

Promises: there are at most `connections_max` connections, including those being opened. A
connection is lent to one exchange at a time. One that is not usable is never lent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.sqs.connection import HttpConnection

IDLE_S = 15.0
"""Seconds unused before a connection is closed. AWS does not state SQS's own limit. This is below
the shortest common one, 20 s, and a connection that closed anyway only costs a new one."""
SWEEP_S = 1.0
"""Seconds between checks of deadlines and ages, and so the precision of both."""
_CLOSE_S = 1.0

Dial = Callable[[Callable[[HttpConnection], None]], Awaitable[HttpConnection]]


class ConnectionPool:
    """Lends connections; see the module. Belongs to the event loop of its first `acquire`."""

    def __init__(
        self, dial: Dial, *, connections_max: int, idle_s: float = IDLE_S, sweep_s: float = SWEEP_S
    ) -> None:
        self._dial = dial
        self.connections_max = connections_max
        """The bound. Read only."""
        self._idle_s = idle_s
        self._sweep_s = sweep_s
        self._idle: list[HttpConnection] = []
        self.connections: set[HttpConnection] = set()
        """Those that are open, lent or idle."""
        self._dialling = 0
        self.waiters: deque[asyncio.Future[None]] = deque()
        """Calls that wait for a connection. While there are any, a chain of calls should end."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """Connections open or being opened."""
        return len(self.connections) + self._dialling

    def acquire_idle(self, idle_s: float = IDLE_S) -> HttpConnection | None:
        """Return the idle connection used last, unless that was `idle_s` or more ago. No wait."""
        while self._idle:
            connection = self._idle[-1]
            if not connection.usable:
                self._idle.pop()
            elif connection.idle_for() < idle_s:
                return self._idle.pop()
            else:
                return None
        return None

    async def acquire(self, idle_s: float = IDLE_S, *, fresh: bool = False) -> HttpConnection:
        """Return an idle connection or a new one; wait while the pool is full.

        With `fresh` it is a new one. Return it with `release`, whatever happened to it. Raises
        what `Dialer.dial` raises.
        """
        loop = asyncio.get_running_loop()
        while not self._closed:
            if not fresh and (connection := self.acquire_idle(idle_s)):
                return connection
            if self.size < self.connections_max:
                return await self._open_one(loop)
            if self._idle:
                self._idle.pop(0).abort()  # too old for this call: make room for a new one
            await self._wait(loop)
        raise _closed()

    def release(self, connection: HttpConnection) -> None:
        """Take back what `acquire` lent; keep it for the next call if it is still usable."""
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
        leaving = [connection.closed for connection in self.connections]
        for connection in list(self.connections):
            connection.close()
        if leaving:
            await asyncio.wait(leaving, timeout=_CLOSE_S)
            for connection in list(self.connections):
                connection.abort()
            await asyncio.wait(leaving, timeout=_CLOSE_S)

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
            self.connections.add(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._sweep_s, self._sweep, loop)
        return connection

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until a connection is released or closed."""
        waiter = loop.create_future()
        self.waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._wake()  # this waiter was woken and cannot use it: wake the next one
            raise

    def _wake(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _forget(self, connection: HttpConnection) -> None:
        self.connections.discard(connection)
        self._wake()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self.connections):
            connection.expire(now)
        keep = []
        for connection in self._idle:
            if connection.usable and connection.idle_for() < self._idle_s:
                keep.append(connection)
            else:
                connection.close()
        self._idle = keep
        self._timer = (
            loop.call_later(self._sweep_s, self._sweep, loop) if self.connections else None
        )


def _closed() -> TransientFault:
    return TransientFault("the SQS client is closed", code="aws_connection", stage=Stage.RECEIVE)

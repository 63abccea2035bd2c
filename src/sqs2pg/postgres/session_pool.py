"""Sessions that the pipelines of one process share: few connections, however many pipelines.

A batch borrows a session for as long as it is processed. That works because nothing is kept in a
session between transactions (`connection.py`).

Promises: at most `sessions_max` sessions are open or being opened. Those who wait get one in the
order in which they came, and no database takes all: each other one keeps room for two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from sqs2pg.postgres.connection import NoSession, Session, wait_closed

Connect = Callable[[], Awaitable[Session]]
KEPT_FREE = 2
"""Sessions that the others leave to each database, where there are that many."""


class _Database(msgspec.Struct):
    connect: Connect
    users: int = 0
    lent: int = 0
    """Sessions that are lent or being opened."""
    idle: list[Session] = []


class SessionPools:
    """Lends sessions of several databases, each known by a key. For one event loop."""

    def __init__(self, sessions_max: int, *, kept_for: int = 1) -> None:
        """`kept_for`: sessions that are given back stay open if the database has so many users."""
        self._kept_for = kept_for
        self.sessions_max = sessions_max
        """How many may be open at a time; may be raised."""
        self._databases: dict[str, _Database] = {}
        self._waiting: deque[tuple[_Database, asyncio.Future[None]]] = deque()

    def join(self, key: str, connect: Connect) -> SessionPool:
        """Return the pool of a database for one more user, who calls its `leave` at the end."""
        database = self._databases.setdefault(key, _Database(connect))
        database.users += 1
        return SessionPool(self, key, database)

    @property
    def open(self) -> int:
        """Sessions open or being opened."""
        return sum(one.lent + len(one.idle) for one in self._databases.values())

    async def acquire(self, database: _Database) -> Session:
        """Wait for a turn; return an idle session, or `NoSession` where a new one may be opened.

        It is for nobody else until `release`.
        """
        if self._waiting or not self._may_lend(database):
            await self._wait(database)
        else:
            database.lent += 1
        while database.idle:
            session = database.idle.pop()
            if not session.broken:
                return session
        try:
            await self._make_room()
        except BaseException:
            self._ended(database)
            raise
        return NoSession()

    def release(self, database: _Database, session: Session) -> None:
        """Take a session back, or what has taken its place; a broken one makes room."""
        if session.in_transaction or database.users < self._kept_for:
            session.abandon()
        elif not session.broken:
            database.idle.append(session)
        self._ended(database)

    async def leave(self, key: str, database: _Database) -> None:
        """Close the idle sessions of a database that nobody uses any more."""
        database.users -= 1
        if database.users == 0:
            if self._databases.get(key) is database:
                del self._databases[key]
            idle, database.idle = database.idle, []
            await wait_closed(idle)

    def _may_lend(self, database: _Database) -> bool:
        """Whether a session may be lent now; idle ones of other databases can be closed for it."""
        lent = sum(one.lent for one in self._databases.values())
        free = KEPT_FREE if self.sessions_max > KEPT_FREE * len(self._databases) else 0
        others = [one for one in self._databases.values() if one is not database]
        kept = sum(max(0, free - one.lent) for one in others)
        return lent + kept < self.sessions_max or not lent

    async def _make_room(self) -> None:
        """Close an idle session of another database, if the new one would be too many."""
        while self.open > self.sessions_max:
            idle = next((one.idle for one in self._databases.values() if one.idle), None)
            if idle is None:
                return
            await idle.pop(0).close()

    async def _wait(self, database: _Database) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((database, turn))
        self.wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._ended(database)
            else:
                self._waiting.remove((database, turn))
            raise

    def _ended(self, database: _Database) -> None:
        database.lent -= 1
        self.wake()

    def wake(self) -> None:
        """Give a turn to those who waited longest, as long as there is room."""
        for place in list(self._waiting):
            database, turn = place
            if turn.done():
                continue
            if self._may_lend(database):
                self._waiting.remove(place)
                database.lent += 1
                turn.set_result(None)


class SessionPool:
    """The sessions of one database, as one of its users borrows them."""

    def __init__(self, pools: SessionPools, key: str, database: _Database) -> None:
        self._pools, self._key, self._database = pools, key, database
        self._left = False

    async def acquire(self) -> Session:
        """Wait for a turn; return a session, which goes back with `release`.

        It is `NoSession` where none is open: the caller connects.
        """
        return await self._pools.acquire(self._database)

    def release(self, session: Session) -> None:
        """Give back what `acquire` returned, or the session that has taken its place."""
        self._pools.release(self._database, session)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Session]:
        """Yield a session for the block; where the block fails it is closed, not used again.

        Raises what connecting raises.
        """
        session = await self.acquire()
        try:
            if session.broken:
                session = await self._database.connect()
            yield session
        except BaseException:
            await session.close()
            raise
        finally:
            self.release(session)

    async def fill(self, count: int) -> None:
        """Open sessions until the database has so many, within the bound of the pools."""
        database, pools = self._database, self._pools
        try:
            while database.lent + len(database.idle) < count and pools.open < pools.sessions_max:
                # Not from `acquire`: it would take an idle one.
                database.lent += 1
                try:
                    database.idle.append(await database.connect())
                finally:
                    database.lent -= 1
        finally:
            pools.wake()

    async def leave(self) -> None:
        """Use the pool no longer; the last user's leave closes its sessions. May be repeated."""
        if not self._left:
            self._left = True
            await self._pools.leave(self._key, self._database)

"""The session that a sink works through: its own, or one that a pool lends it.

Promises: a session that is gone is replaced by a new one. What takes too long ends, and its session
with it, because nobody knows what the server still does on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.connection import NoSession, Session
from sqs2pg.postgres.session_pool import Connect, SessionPool

_Done = TypeVar("_Done")


class SinkSession:
    """Holds a session, for one user at a time; connects again when it is gone."""

    def __init__(self, session: Session, connect: Connect, pool: SessionPool | None = None) -> None:
        """`pool`: lends it a session while it works, in place of `session`."""
        self.session = session
        self._connect = connect
        self._pool = pool
        self._is_lent = False

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Hold a session of the pool for the block; without a pool it has its own. May be nested.

        Other blocks of this sink must not run meanwhile.
        """
        if self._pool is None or self._is_lent:
            yield
            return
        self.session = await self._pool.acquire()
        self._is_lent = True
        try:
            yield
        finally:
            self._is_lent = False
            session, self.session = self.session, NoSession()
            self._pool.release(session)

    async def connected(self) -> Session:
        """Return the session, a new one where it is gone. Raises TransientFault or FatalFault."""
        if self.session.broken:
            self.session = await self._connect()
        return self.session

    async def limited(self, work: Awaitable[_Done], limit_s: float) -> _Done:
        """Wait for work on the session, but not for longer than `limit_s` seconds.

        Raises TransientFault where it takes longer, and what the work raises.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            # The server's own timeouts did not come back to us: the connection is stuck.
            await self.session.close()
            raise TransientFault(
                "PostgreSQL did not answer in time", code="postgres_no_answer"
            ) from None

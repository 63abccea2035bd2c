"""How far an archive is backfilled: its entry in `sqs2pg.backfill`, and the lock of its run.

One run at a time has an archive. PostgreSQL holds the lock, which ends with the run, however that
ends. Entries are never dropped: an archive that is finished is not written again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from psycopg.errors import LockNotAvailable

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.identifiers import quote_literal
from sqs2pg.postgres.sqlstate import explained

_REGISTER = """INSERT INTO sqs2pg.backfill (pipeline, digest, source, size_bytes)
VALUES (%s, %s, %s, %s)
ON CONFLICT (pipeline, digest) DO UPDATE SET source = excluded.source"""
# The lock belongs to a transaction that lasts as long as the archive, because a pooler may give
# each transaction another session. It has no snapshot between statements and keeps no row from
# being vacuumed. Every five seconds the server checks that we are still there, so that a machine
# that lost its power does not keep the archive for hours.
_SETTINGS = """SELECT set_config(wanted.name, wanted.value, true) FROM (VALUES
    ('lock_timeout', %s),
    ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
    ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')
) AS wanted (name, value) JOIN pg_settings USING (name)"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
# Without parameters: with some, the statement's portal keeps its snapshot until the next statement.
_READ = """SELECT line, finished_at FROM sqs2pg.backfill
WHERE pipeline = {pipeline} AND digest = {digest}"""
_MOVE = """UPDATE sqs2pg.backfill SET line = {line}, moved_at = now()
WHERE pipeline = {pipeline} AND digest = {digest} AND line = {before}"""
_FINISH = """UPDATE sqs2pg.backfill SET finished_at = now()
WHERE pipeline = %s AND digest = %s AND line = %s"""


class BackfillProgress:
    """One archive under one pipeline. Raises FatalFault where the database refuses."""

    def __init__(self, session: Session, pipeline: int, digest: str, source: str) -> None:
        """`session` is the run's own: it holds the lock. `source` is the archive's name."""
        self._session = session
        self._pipeline = pipeline
        self._digest = digest
        self._source = source

    @asynccontextmanager
    async def claimed(self, size_bytes: int, wait_s: float) -> AsyncIterator[None]:
        """Register the archive and have it for ourselves while the body runs.

        Raises FatalFault `backfill_twice` where another run still has it after `wait_s`.
        """
        key = [self._pipeline, self._digest]
        await self._execute(_REGISTER, [*key, self._source, size_bytes])
        with explained():
            async with self._session.transaction(mode=READ_COMMITTED):
                await self._session.execute(_SETTINGS, [f"{wait_s:.3f}s"])
                try:
                    name = f"sqs2pg.backfill:{self._pipeline}:{self._digest}"
                    await self._session.execute(_LOCK, [name])
                except LockNotAvailable:
                    raise self.already_running() from None
                yield

    async def read(self) -> tuple[int, datetime | None]:
        """Return how many lines are committed, and when the archive was finished, if it was."""
        query = _READ.format(pipeline=self._pipeline, digest=quote_literal(self._digest))
        [(line, finished_at)] = await self._execute(query)
        return int(line), finished_at

    def move_statement(self, before: int, line: int) -> str:
        """Return the statement that moves the progress, for the transaction of the lines' rows."""
        digest = quote_literal(self._digest)
        return _MOVE.format(pipeline=self._pipeline, digest=digest, before=before, line=line)

    async def finish(self, line: int) -> None:
        """Note that the archive ends after `line` lines."""
        await self._execute(_FINISH, [self._pipeline, self._digest, line])

    def already_running(self) -> FatalFault:
        """Return the fault of an archive that another run is writing."""
        return FatalFault(
            f"another run is at work on {self._source}",
            code="backfill_twice",
            hint="let one of them finish",
        )

    async def _execute(self, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with explained():
            return await self._session.execute(query, values)

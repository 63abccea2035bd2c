"""How far an archive is backfilled: its entry in `sqs2pg.backfill`, and the claim of its run.

One run at a time has an archive. Its claim names a transaction that it keeps open, and holds as
long as PostgreSQL has that transaction, so it ends with the run, however that ends. A worker that
reads S3 objects for notifications claims them for a time instead (`object_claims.py`). Entries are
never dropped: an archive that is finished is not written again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.identifiers import quote_literal
from sqs2pg.postgres.sqlstate import explained

_REGISTER = """INSERT INTO sqs2pg.backfill (pipeline, digest, source, size_bytes)
VALUES (%s, %s, %s, %s)
ON CONFLICT (pipeline, digest) DO UPDATE SET source = excluded.source"""
# The transaction lasts as long as the archive. The claim does not name the session, because a
# pooler may give each transaction another one. The transaction has no snapshot between statements
# and no transaction id, so it keeps no row from being vacuumed. Every five seconds the server
# checks that we are still there: a machine that lost its power does not keep it for hours.
_SETTINGS = """SELECT set_config(wanted.name, wanted.value, true) FROM (VALUES
    ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
    ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')
) AS wanted (name, value) JOIN pg_settings USING (name)"""
# No other transaction has the name: the server counts them per backend, from its start on.
_NAME = "pg_postmaster_start_time()::text || ' ' || l.virtualtransaction"
_OURS = f"""SELECT {_NAME} FROM pg_catalog.pg_locks l
WHERE l.locktype = 'virtualxid' AND l.pid = pg_backend_pid() AND l.mode = 'ExclusiveLock'"""
CLAIMED = f"""(coalesce(b.claimed_until > clock_timestamp(), false) OR EXISTS (
    SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'virtualxid'
    AND l.mode = 'ExclusiveLock' AND {_NAME} = b.claimed_by))"""
"""Condition on the alias b: a worker or a run has the archive."""
_CLAIM = f"""UPDATE sqs2pg.backfill b SET claimed_by = %s, claimed_until = NULL
WHERE b.pipeline = %s AND b.digest = %s AND NOT {CLAIMED}
RETURNING 1"""
_POLL_S = 0.1
# Without parameters: with some, the statement's portal keeps its snapshot until the next statement.
_READ = """SELECT line, finished_at, left_behind FROM sqs2pg.backfill
WHERE pipeline = {pipeline} AND digest = {digest}"""
_MOVE = """UPDATE sqs2pg.backfill SET line = {line}, moved_at = now()
WHERE pipeline = {pipeline} AND digest = {digest} AND line = {before}"""
_LEAVE = """UPDATE sqs2pg.backfill
SET line = line + 1, moved_at = now(), left_behind = left_behind || line
WHERE pipeline = %s AND digest = %s AND line = %s"""
_CATCH_UP = """UPDATE sqs2pg.backfill
SET moved_at = now(), left_behind = array_remove(left_behind, {line})
WHERE pipeline = {pipeline} AND digest = {digest}"""
_FINISH = """UPDATE sqs2pg.backfill SET finished_at = now()
WHERE pipeline = %s AND digest = %s AND line = %s AND left_behind = '{}'"""


class Reached(NamedTuple):
    """How far an archive is."""

    line: int
    """Records before this one are committed, except those left behind."""
    finished_at: datetime | None
    left: list[int]
    """Records that PostgreSQL did not take, rising; their numbers count from 0."""


class BackfillProgress:
    """One archive under one pipeline. Raises FatalFault where the database refuses."""

    def __init__(self, session: Session, pipeline: int, digest: str, source: str) -> None:
        """`session` is the run's own: it keeps the transaction open. `source` names the archive."""
        self._session = session
        self._pipeline = pipeline
        self._digest = digest
        self.source = source
        """What names the archive."""

    @asynccontextmanager
    async def claimed(self, size_bytes: int, wait_s: float, writer: Session) -> AsyncIterator[None]:
        """Register the archive and have it for ourselves while the body runs.

        `writer` is another session, on which the claim is committed. Raises FatalFault
        `backfill_twice` where another run still has the archive after `wait_s`.
        """
        key = [self._pipeline, self._digest]
        await self._execute(_REGISTER, [*key, self.source, size_bytes])
        with explained():
            async with self._session.transaction(mode=READ_COMMITTED):
                await self._session.execute(_SETTINGS)
                [(ours,)] = await self._session.execute(_OURS)
                until = time.monotonic() + wait_s
                while not await writer.execute(_CLAIM, [ours, *key]):
                    if time.monotonic() >= until:
                        raise self.already_running()
                    await asyncio.sleep(_POLL_S)
                yield

    async def read(self) -> Reached:
        """Return how far the archive is, and when it was finished, if it was."""
        query = _READ.format(pipeline=self._pipeline, digest=quote_literal(self._digest))
        [(line, finished_at, left)] = await self._execute(query)
        return Reached(int(line), finished_at, sorted(left))

    def move_statement(self, before: int, line: int) -> str:
        """Return the statement that moves the progress, for the transaction of the lines' rows."""
        digest = quote_literal(self._digest)
        return _MOVE.format(pipeline=self._pipeline, digest=digest, before=before, line=line)

    async def leave(self, line: int, writer: Session) -> None:
        """Move the progress past a line that PostgreSQL does not take: it is left behind.

        `writer` is another session, on which this is committed at once.
        """
        with explained():
            await writer.execute(_LEAVE, [self._pipeline, self._digest, line])

    def catch_up_statement(self, line: int) -> str:
        """Return the statement that a line is no longer left behind, for its transaction."""
        digest = quote_literal(self._digest)
        return _CATCH_UP.format(pipeline=self._pipeline, digest=digest, line=line)

    async def finish(self, line: int) -> None:
        """Note that the archive ends after `line` lines, unless some of them are left behind."""
        await self._execute(_FINISH, [self._pipeline, self._digest, line])

    def already_running(self) -> FatalFault:
        """Return the fault of an archive that another run is writing."""
        return FatalFault(
            f"another run is at work on {self.source}",
            code="backfill_twice",
            hint="let one of them finish",
        )

    async def _execute(self, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        with explained():
            return await self._session.execute(query, values)

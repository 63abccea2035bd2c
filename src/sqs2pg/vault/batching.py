"""Batching: how a rotation opens its transactions, and how large they are.

A batch is one transaction. An erasure waits for it, and ingest waits behind the erasure. So the
size of a batch follows the clock: it grows while batches are quick, to save commits, and shrinks
where the machine is slow. Several sessions have batches at once.

A batch does not wait until its commit is on disk: the server flushes commits in their order, so a
crash takes only the last ones, which the next run does again. `wait_for_batches` flushes what a run
before left, and the record at a run's end, which is durable, flushes what it did itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sqs2pg.postgres.connection import DURABLE, READ_COMMITTED, Session

BATCH_ROWS_MAX = 20_000
"""About 20 MB of rows in memory."""
BATCH_S = 1.0
"""How long a batch should take, roughly: between half of it and twice."""

SHARED = """SELECT set_config('synchronous_commit', 'off', true),
       set_config('row_security', 'off', true), set_config('sqs2pg.batch', 'on', true),
       set_config('jit', 'off', true), pii.lock_shared()"""
"""Opens a batch of a rotation: never while a person is being erased. A query that a policy of row
security would narrow fails, instead of finding fewer rows."""
BY_INDEX = ", ".join(
    [
        "set_config('max_parallel_workers_per_gather', '0', true)",
        *(
            f"set_config('enable_{way}', 'off', true)"
            for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin")
        ),
    ]
)
"""Follows SHARED where a batch is the next small part of a large table: it is read from the last
address on, and joined by the indexes, whatever the planner thinks of a LIMIT."""
FIRST_SUBJECT = "00000000-0000-0000-0000-000000000000"


# A commit that has written something waits for the disk, and so for all commits before it.
_FLUSH = f"SELECT {DURABLE}, pg_catalog.pg_logical_emit_message(true, 'sqs2pg', '')"


async def wait_for_batches(session: Session) -> None:
    """Wait for the batches of ingest that have begun; later ones read the active versions of now.

    Otherwise a batch under the old version could commit after the last search for such rows. What
    was committed before is on disk afterwards: it counts as done. Raises psycopg.Error.
    """
    async with session.transaction(_FLUSH, mode=READ_COMMITTED) as transaction:
        await transaction.commit("SELECT pii.lock_alone()")


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Do several works at once. Raises what the first one raises, once the others have ended."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class BatchSize:
    """The size of the next batch."""

    def __init__(self, rows: int) -> None:
        self._least = rows
        self.rows = rows

    def observe(self, seconds: float) -> None:
        """Note how long a full batch took."""
        if seconds < BATCH_S / 2:
            self.rows = min(2 * self.rows, BATCH_ROWS_MAX)
        elif seconds > 2 * BATCH_S:
            self.rows = max(self.rows // 2, self._least)

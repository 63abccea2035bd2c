"""Batching: how a rotation opens its transactions, how large they are, how their parts overlap.

A batch is one transaction. An erasure waits for it, and ingest waits behind the erasure. So the
size of a batch follows the clock: it grows while batches are quick, to save commits, and shrinks
where the machine is slow. Inside a batch a thread works on one part while the database writes the
part before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from sqs2pg.postgres.connection import DURABLE, READ_COMMITTED, Session

BATCH_ROWS_MAX = 20_000
"""About 20 MB of rows in memory."""
BATCH_S = 1.0
"""How long a batch should take, roughly: between half of it and twice."""
PART_ROWS = 2_500

SHARED = f"""SELECT {DURABLE}, set_config('row_security', 'off', true),
       set_config('sqs2pg.batch', 'on', true), pii.lock_shared()"""
"""Opens a batch of a rotation: durable, and never while a person is being erased. A query that a
policy of row security would narrow fails, instead of finding fewer rows."""
BY_INDEX = ", ".join(
    f"set_config('enable_{way}', 'off', true)"
    for way in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin")
)
"""Follows SHARED where a batch is the next small part of a large table: it is read in the order of
the primary key, whatever the planner thinks of a LIMIT."""
FIRST_SUBJECT = "00000000-0000-0000-0000-000000000000"

Row = TypeVar("Row", bound=Sequence[Any])
Made = TypeVar("Made")


async def wait_for_batches(session: Session) -> None:
    """Wait for the batches of ingest that have begun; later ones read the active versions of now.

    Otherwise a batch under the old version could commit after the last search for such rows. Raises
    psycopg.Error.
    """
    async with session.transaction(mode=READ_COMMITTED) as transaction:
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


def parts(rows: Sequence[Row], whole: int | None = None) -> Iterator[Sequence[Row]]:
    """Yield the rows in parts of about one size, in order; no part where there are no rows.

    Consecutive rows that are equal in column `whole` stay together.
    """
    start, left = 0, -(-len(rows) // PART_ROWS)
    while left:
        end = start + -(-(len(rows) - start) // left)
        while whole is not None and end < len(rows) and rows[end][whole] == rows[end - 1][whole]:
            end += 1
        if end > start:
            yield rows[start:end]
        start, left = end, left - 1


async def overlapped(
    rows: Sequence[Row],
    work: Callable[[Sequence[Row]], Made],
    write: Callable[[Made], Awaitable[None]],
    whole: int | None = None,
) -> None:
    """Do the `work` on each part in a thread, while the result of the part before is written.

    `whole`: as in `parts`. Raises what `work` or `write` raises, once the thread is done.
    """
    made: list[Made] = []
    loop = asyncio.get_running_loop()
    for part in parts(rows, whole):
        working = loop.run_in_executor(None, work, part)  # begins at once
        try:
            if made:
                await write(made.pop())
        finally:
            await asyncio.wait([working])
            working.exception()  # marked as seen: an error of the write comes first
        made.append(working.result())
    if made:
        await write(made.pop())

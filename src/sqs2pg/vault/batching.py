"""Batching: how much of a rotation one transaction takes, and how its parts overlap.

A batch is one transaction, which an erasure waits for, and ingest behind the erasure. So its size
follows the clock: it grows while batches are quick, for the less of it are commits, and shrinks
where the machine is slow. Inside a batch the keys are worked in a thread while the database
writes the part before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

BATCH_ROWS_MAX = 20_000
"""Some 20 MB of rows in hand."""
BATCH_S = 1.0
"""What a batch is to take, roughly: between half of it and twice."""
PART_ROWS = 2_500

Row = TypeVar("Row", bound=Sequence[Any])
Made = TypeVar("Made")


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
    """Yield the rows in parts of about one size, in order; nothing for none.

    Rows behind each other that are equal in column `whole` stay together.
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
    """Do the `work` on each part in a thread, while what came of the part before is written.

    `whole` as in `parts`. Raises what either raises, and only when the thread is done.
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
            working.exception()  # seen: what the write raised comes first
        made.append(working.result())
    if made:
        await write(made.pop())

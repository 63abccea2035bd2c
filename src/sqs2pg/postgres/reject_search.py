"""The search for rows that the database rejects, inside one transaction, in few statements.

A COPY that fails says at most which line it stopped at, and for a deferred constraint not even
that. So the first bad row is searched for by trying prefixes: if a prefix is accepted, the bad row
comes after it; if it fails, the bad row is inside. An accepted try costs one statement, a failed
one two (COPY and ROLLBACK TO). So a prefix is 0.382 of the rest, not half: both answers then cost
the same in statements (the argument of Fibonacci search). Among 5,000 rows one bad row costs at
most 19 statements to find, or 3 where the error names the right line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from sqs2pg.message import Row
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import COLUMN_STATES, DatabaseFault, Verdict, diagnose
from sqs2pg.postgres.target_copy import TargetCopy

_CUT = 0.382  # 1 - 1/golden ratio
SUPPRESSED = DatabaseFault(Verdict.BAD_ROW, "", "row_suppressed")
"""A trigger returned NULL: the server took the row and kept nothing."""
_KEEP_ROWS = 256  # once bad rows are known, this many accepted ones are worth a savepoint
SAME_FAULT_MAX = 50
"""A batch's search ends early after this many rows that were rejected alike, none accepted."""


async def find_rejected(
    session: Session,
    targets: TargetCopy,
    rows: Sequence[Row],
    suspected: DatabaseFault | None = None,
    *,
    rejecting: Collection[Verdict] = (Verdict.BAD_ROW,),
) -> dict[int, tuple[Row, DatabaseFault]]:
    """Write the rows that the database takes; return the others, by index, with the fault.

    Runs inside the caller's transaction, with deferred constraints already immediate. `suspected`
    is the fault that exactly these rows, all at once, have met before: it saves one try.
    Rows that are rejected with one of `COLUMN_STATES` were all tried against the same state of the
    tables, which lasts until the transaction ends: a column that changes meanwhile must not split
    a batch. Ends early, with every row counted as rejected, once the first `SAME_FAULT_MAX` rows
    are rejected alike. `rejecting`: what an error that is about a row may say. Raises
    psycopg.Error for any other.
    """
    if not rows:
        return {}
    search = _Search(session, targets, rows, rejecting)
    await targets.reserve(session, rows)
    await session.execute("SAVEPOINT sqs2pg_rows")
    targets.save()
    found = await search.run(suspected)
    await targets.release(session)
    return found


async def find_every_rejected(
    session: Session, targets: TargetCopy, rows: Sequence[Row]
) -> dict[str, DatabaseFault]:
    """As `find_rejected`, by ledger key, but tries every row: the search never ends early.

    For rows that were rejected before: after many with one fault there may be one that is good now.
    A row that has no partition is rejected, too: it stays where it is.
    """
    both = (Verdict.BAD_ROW, Verdict.NO_TARGET_PARTITION)
    rejected: dict[str, DatabaseFault] = {}
    size = SAME_FAULT_MAX - 1  # one fewer than would end a search early
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        found = await find_rejected(session, targets, some, rejecting=both)
        await session.execute("RELEASE SAVEPOINT sqs2pg_rows")
        rejected.update((row.key, fault) for row, fault in found.values())
    return rejected


class _Search:
    def __init__(
        self,
        session: Session,
        targets: TargetCopy,
        rows: Sequence[Row],
        rejecting: Collection[Verdict],
    ) -> None:
        self._session = session
        self._rejecting = rejecting
        self._targets = targets
        self._rows = rows
        self._rejected: dict[int, tuple[Row, DatabaseFault]] = {}
        self._saved = 0  # rows below this index are written, and a savepoint follows them
        self._placed = 0  # rows below this index are written
        self._copied_from = 0  # where the last COPY began
        self._good = 0  # rows below this index are known to be accepted, or are rejected
        self._locked = False

    async def run(self, suspected: DatabaseFault | None) -> dict[int, tuple[Row, DatabaseFault]]:
        fault = suspected or await self._try_up_to(len(self._rows))
        while fault is not None:
            index, fault = await self._first_bad(fault, proven=fault is not suspected)
            if fault is not None:
                self._rejected[index] = (self._rows[index], fault)
                self._good = index + 1
                if self._all_alike():
                    return {i: (row, fault) for i, row in enumerate(self._rows)}
            fault = await self._try_up_to(len(self._rows))
        return self._rejected

    async def _first_bad(
        self, fault: DatabaseFault, *, proven: bool
    ) -> tuple[int, DatabaseFault | None]:
        """Return the first bad row's index and its fault; no fault where a suspicion was wrong."""
        low, high = self._good, len(self._rows)
        guess = self._row_of_line(fault.line)
        while high - low > 1:
            if guess is not None and low <= guess < high:
                # The line named is most likely the bad one: try up to it, then with it.
                end = guess if guess > low else guess + 1
                guess = guess if guess > low else None
            else:
                end = low + max(1, round((high - low) * _CUT))
            tried = await self._try_up_to(end)
            if tried is None:
                low = end
            else:
                high, fault, proven = end, tried, True
        return low, fault if proven else await self._try_up_to(high)

    def _row_of_line(self, line: int | None) -> int | None:
        """Return the index of the row that line `line` of the last COPY belonged to, from 1."""
        if line is None:
            return None
        for index in range(self._copied_from, len(self._rows)):
            if index not in self._rejected:
                line -= self._targets.lines(self._rows[index])
                if line <= 0:
                    return index
        return None

    async def _try_up_to(self, end: int) -> DatabaseFault | None:
        """Write the rows before `end` that are not written yet; undo them where one is bad."""
        rows = [self._rows[i] for i in range(self._placed, end) if i not in self._rejected]
        if not rows:
            self._placed = end
            return None
        fault: DatabaseFault | None = None
        self._copied_from = self._placed
        try:
            if not await self._targets.copy_rows(self._session, rows):
                fault = SUPPRESSED
        except psycopg.Error as error:
            fault = diagnose(error)
            if fault.verdict not in self._rejecting:
                raise
        if fault is not None:
            await self._session.execute("ROLLBACK TO SAVEPOINT sqs2pg_rows")
            self._targets.rewind()
            self._placed = self._saved
            if fault.sqlstate in COLUMN_STATES and not self._locked:
                await self._lock()
                return await self._try_up_to(end)
            return fault
        self._placed = end
        if self._rejected and end - self._saved > _KEEP_ROWS and end < len(self._rows):
            await self._session.execute("RELEASE SAVEPOINT sqs2pg_rows; SAVEPOINT sqs2pg_rows")
            self._targets.save()
            self._saved = end
        return None

    async def _lock(self) -> None:
        # Outside the savepoint: going back to it releases the locks that were taken after it.
        await self._session.execute("RELEASE SAVEPOINT sqs2pg_rows")
        await self._targets.lock(self._session, self._rows)
        await self._session.execute("SAVEPOINT sqs2pg_rows")
        self._targets.save()
        self._locked = True

    def _all_alike(self) -> bool:
        """Whether the first `SAME_FAULT_MAX` rows are all rejected alike."""
        found = self._rejected
        return (
            len(found) == SAME_FAULT_MAX
            and max(found) == SAME_FAULT_MAX - 1
            and len({fault.detail for _, fault in found.values()}) == 1
        )

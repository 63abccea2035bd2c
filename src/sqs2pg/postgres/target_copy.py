"""Write rows into the target tables: by COPY, or staged and inserted (`staging.py`).

A batch's rows may go to several tables. All of them are written in the batch's own transaction,
and the server's count of each COPY and INSERT is compared with what was sent: a trigger that
swallows rows is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import psycopg

from sqs2pg.mapping.encoder import CopyText, copy_texts, parts_of
from sqs2pg.message import Row, RowChanges
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.held_lines import HeldLines
from sqs2pg.postgres.identifiers import quote_identifier
from sqs2pg.postgres.sqlstate import Verdict, diagnose
from sqs2pg.postgres.staging import StagedInsert
from sqs2pg.postgres.state_table import Merge


class TargetTable(msgspec.Struct, frozen=True):
    """One table that rows go to."""

    table: str
    """Quoted for SQL."""
    columns: tuple[str, ...]
    """Its columns, in the order of a line's cells."""
    name: str = ""
    """`schema.table` as the catalog and the books have it."""
    staging: Merge | StagedInsert | None = None
    """How its lines get there from a staging table; None: by COPY."""

    @property
    def needs(self) -> str:
        """The privileges on the table that its statements need."""
        return ", ".join(self.rights)

    @property
    def rights(self) -> dict[str, tuple[str, ...]]:
        """The same, each with the columns that it is for."""
        return {"INSERT": self.columns} if self.staging is None else self.staging.rights

    def copy_statement(self) -> str:
        """Return the COPY statement for its lines."""
        if self.staging is not None:
            return self.staging.copy_statement()
        names = ", ".join(map(quote_identifier, self.columns))
        return f"COPY {self.table} ({names}) FROM STDIN"


class TargetChanges(NamedTuple):
    """What a transaction did to the targets."""

    first: RowChanges
    others: list[tuple[str, RowChanges]]
    """Name and changes of each further target that got any lines."""
    dropped: int
    """Records that went to none."""

    @property
    def total(self) -> RowChanges:
        """What it did to all of them together."""
        total = self.first
        for _, changes in self.others:
            total = total.plus(changes)
        return total


class TargetCopy:
    """Writes rows to their targets. Part of the caller's transaction, which `begin` precedes."""

    def __init__(self, targets: Sequence[TargetTable]) -> None:
        self._targets = targets
        self._statements = [target.copy_statement() for target in targets]
        self._names = [target.name for target in targets]
        self._saved: list[RowChanges] = []
        self._reserved: list[Merge] = []
        self.begin()

    def name_of(self, target: int) -> str:
        """Return the table at a position, `schema.table`."""
        return self._targets[target].name

    def begin(self) -> None:
        """Forget what an earlier transaction did."""
        self.at = 0
        """The index of the target of the last COPY, which an error is about."""
        self.writing = ""
        """The name of that target; empty before the first COPY of a transaction."""
        self._staged: set[int] = set()
        self.held = HeldLines()
        """What state tables hold of the lines."""
        self._changes = [RowChanges()] * len(self._targets)
        self.save()

    def save(self) -> None:
        """Note that the caller has set a savepoint."""
        self._saved = list(self._changes)
        self.held.save()

    def rewind(self) -> None:
        """Note that the caller went back to its savepoint."""
        self._changes = list(self._saved)
        self.held.rewind()

    async def reserve(self, session: Session, rows: Sequence[Row]) -> None:
        """Keep others from the keys of state tables before their rows are written in pieces.

        Not where the database rejects a row already as it is staged. Raises psycopg.Error.
        """
        self._reserved.clear()
        if not any(isinstance(target.staging, Merge) for target in self._targets):
            return
        await session.execute("SAVEPOINT sqs2pg_reserve")
        try:
            for target, (text, count) in enumerate(copy_texts(rows, len(self._statements))):
                staging = self._targets[target].staging
                if count and isinstance(staging, Merge) and (reserve := staging.reserve()):
                    await self._stage(session, target, text)
                    await session.execute(reserve)
                    self._reserved.append(staging)
        except psycopg.Error as error:
            if diagnose(error).verdict is not Verdict.BAD_ROW:
                raise
            self._reserved.clear()
            await session.execute("ROLLBACK TO SAVEPOINT sqs2pg_reserve")
        await session.execute("RELEASE SAVEPOINT sqs2pg_reserve")

    async def release(self, session: Session) -> None:
        """Take back what `reserve` has noted; others wait until COMMIT all the same."""
        for release in filter(None, (staging.release() for staging in self._reserved)):
            await session.execute(release)
        self._reserved.clear()

    async def copy(
        self, session: Session, texts: Sequence[CopyText], lines_of: Sequence[Row] | None = None
    ) -> bool:
        """Write each target's lines; return whether the server kept every row.

        `lines_of`: the rows that these are the lines of; None: all of the batch. Raises
        psycopg.Error.
        """
        for target, (text, rows) in enumerate(texts):
            if rows and not await self._copy(session, target, text, rows, lines_of):
                return False
        return True

    async def _copy(
        self,
        session: Session,
        target: int,
        text: bytes,
        rows: int,
        lines_of: Sequence[Row] | None = None,
    ) -> bool:
        staging = self._targets[target].staging
        if await self._stage(session, target, text) != rows:
            return False
        changes = RowChanges(inserted=rows)
        if isinstance(staging, StagedInsert):
            if await session.count(staging.insert()) != rows:
                return False
        elif staging is not None:
            [(inserted, written, deleted, *left_out)] = await session.execute(staging.apply())
            changes = staging.changes(rows, inserted, written, deleted)
            for places in left_out:
                self.held.note(target, staging, places, lines_of)
            if staging.triggers and changes.added < rows:
                [(swallowed,)] = await session.execute(staging.count_swallowed())
                if swallowed:
                    return False
        self._changes[target] = self._changes[target].plus(changes)
        return True

    async def _stage(self, session: Session, target: int, text: bytes) -> int:
        """COPY lines into a target, or into its staging table alone; return their number."""
        self.at, self.writing = target, self._names[target]
        staging = self._targets[target].staging
        if target in self._staged and staging is not None:
            await session.execute(staging.clear())
        copied = await session.copy(self._statements[target], text)
        if staging is not None:
            self._staged.add(target)
        return copied

    async def copy_rows(self, session: Session, rows: Sequence[Row]) -> bool:
        """As `copy`, with the lines of rows."""
        return await self.copy(session, copy_texts(rows, len(self._statements)), rows)

    async def lock(self, session: Session, rows: Sequence[Row]) -> None:
        """Keep the rows' tables as they are until the transaction ends. Raises psycopg.Error.

        Without lines a COPY, or the INSERT of what is staged, takes the same lock as with them, and
        needs no privilege that rows do not need. LOCK TABLE needs one on the whole table.
        """
        for target in sorted({part.target for row in rows for part in parts_of(row)}):
            await self.touch(session, target)

    async def touch(self, session: Session, target: int) -> None:
        """Send a target's statements without lines. Raises psycopg.Error."""
        await self._copy(session, target, b"", 0)

    def lines(self, row: Row) -> int:
        """Return how many lines of a row went to the target of the last COPY."""
        return sum(part.count for part in parts_of(row) if part.target == self.at)

    def changes(self, dropped: int) -> TargetChanges:
        """Return what was done since `begin`; `dropped` records beside it went to none."""
        others = list(zip(self._names[1:], self._changes[1:], strict=True))
        return TargetChanges(self._changes[0], [one for one in others if any(one[1])], dropped)

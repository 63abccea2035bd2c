"""COPY into the target tables.

A batch's rows may go to several tables. All of them are written in the batch's own transaction,
and the server's count of each COPY is compared with what was sent: a trigger that swallows rows is
noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from sqs2pg.mapping.encoder import CopyText, copy_texts, parts_of
from sqs2pg.message import Row
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_identifier


class TargetTable(msgspec.Struct, frozen=True):
    """One table that rows go to."""

    table: str
    """Quoted for SQL."""
    columns: tuple[str, ...]
    """Its columns, in the order of a line's cells."""
    name: str = ""
    """`schema.table` as the catalog and the books have it."""

    def copy_statement(self) -> str:
        """Return the COPY statement for its lines."""
        names = ", ".join(map(quote_identifier, self.columns))
        return f"COPY {self.table} ({names}) FROM STDIN"


class RowCounts(NamedTuple):
    """How many rows went to each target."""

    first: int
    others: list[tuple[str, int]]
    """Name and rows of each further target that got any."""
    dropped: int


class TargetCopy:
    """Writes rows to their targets. Part of the caller's transaction."""

    def __init__(self, targets: Sequence[TargetTable]) -> None:
        self._statements = [target.copy_statement() for target in targets]
        self._names = [target.name for target in targets]
        self.at = 0
        """The index of the target of the last COPY, which an error is about."""
        self.writing = ""
        """The name of that target; empty before the first COPY of a transaction."""

    async def copy(self, session: Session, texts: Sequence[CopyText]) -> bool:
        """COPY each target's lines; return whether the server kept every row.

        Raises psycopg.Error.
        """
        for target, (text, rows) in enumerate(texts):
            self.at, self.writing = target, self._names[target]
            if rows and await session.copy(self._statements[target], text) != rows:
                return False
        return True

    async def copy_rows(self, session: Session, rows: Sequence[Row]) -> bool:
        """As `copy`, with the lines of rows."""
        return await self.copy(session, copy_texts(rows, len(self._statements)))

    async def lock(self, session: Session, rows: Sequence[Row]) -> None:
        """Keep the rows' tables as they are until the transaction ends. Raises psycopg.Error.

        An empty COPY takes the same lock as rows, and needs no privilege that rows do not need.
        LOCK TABLE needs one on the whole table.
        """
        for target in sorted({part.target for row in rows for part in parts_of(row)}):
            self.at, self.writing = target, self._names[target]
            await session.copy(self._statements[target], "")

    def lines(self, row: Row) -> int:
        """Return how many lines of a row went to the target of the last COPY."""
        return sum(part.count for part in parts_of(row) if part.target == self.at)

    def count(self, texts: Sequence[CopyText], dropped: int) -> RowCounts:
        """Return the lines by target; `dropped` records beside them went to none."""
        others = [(name, t.rows) for name, t in zip(self._names[1:], texts[1:], strict=True)]
        return RowCounts(texts[0].rows, [one for one in others if one[1]], dropped)

    def count_rows(self, rows: Sequence[Row]) -> RowCounts:
        """As `count`, of rows."""
        counts = [0] * len(self._names)
        for row in rows:
            for part in parts_of(row):
                counts[part.target] += part.count
        texts = [CopyText(b"", count) for count in counts]
        return self.count(texts, sum(row.dropped for row in rows))

"""COPY into the target tables.

A batch's rows may go to several tables. All of them are written in the batch's own transaction,
and the server's count of each COPY is compared with what was sent: a trigger that swallows rows is
noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from sqs2pg.message import Row, TargetLines
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_identifier

# Made once and run by map and join: a generator costs one Python call per row.
_count, _text, _dropped = attrgetter("count"), attrgetter("text"), attrgetter("dropped")


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

    async def copy(self, session: Session, rows: Sequence[Row]) -> bool:
        """COPY the rows; return whether the server kept every one. Raises psycopg.Error."""
        if len(self._statements) == 1:
            text = "".join(map(_text, rows))
            return await self._copy(session, 0, text, sum(map(_count, rows)))
        texts: dict[int, list[str]] = {}
        counts = [0] * len(self._statements)
        for row in rows:
            for part in _parts(row):
                if part.count:
                    texts.setdefault(part.target, []).append(part.text)
                    counts[part.target] += part.count
        for target in sorted(texts):
            if not await self._copy(session, target, "".join(texts[target]), counts[target]):
                return False
        return True

    async def lock(self, session: Session, rows: Sequence[Row]) -> None:
        """Keep the rows' tables as they are until the transaction ends. Raises psycopg.Error.

        An empty COPY takes the same lock as rows, and needs no privilege that rows do not need.
        LOCK TABLE needs one on the whole table.
        """
        for target in sorted({part.target for row in rows for part in _parts(row)}):
            self.at, self.writing = target, self._names[target]
            await session.copy(self._statements[target], "")

    async def copy_packed(
        self, session: Session, packed: Sequence[tuple[bytes, int]], rows: Sequence[Row]
    ) -> bool:
        """As `copy`, with lines that are made already: for each target their text and count."""
        texts = [[text] for text, _ in packed]
        counts = [count for _, count in packed]
        for row in rows:
            for part in _parts(row):
                texts[part.target].append(part.text.encode())
                counts[part.target] += part.count
        for target, pieces in enumerate(texts):
            if not await self._copy(session, target, b"".join(pieces), counts[target]):
                return False
        return True

    async def _copy(self, session: Session, target: int, text: str | bytes, count: int) -> bool:
        self.at, self.writing = target, self._names[target]
        return not count or await session.copy(self._statements[target], text) == count

    def lines(self, row: Row) -> int:
        """Return how many lines of a row went to the target of the last COPY."""
        return sum(part.count for part in _parts(row) if part.target == self.at)

    def count(self, rows: Sequence[Row]) -> RowCounts:
        """Return the rows' lines by target."""
        if len(self._statements) == 1:
            return RowCounts(sum(map(_count, rows)), [], sum(map(_dropped, rows)))
        return self.count_packed([(b"", 0)] * len(self._statements), 0, rows)

    def count_packed(
        self, packed: Sequence[tuple[bytes, int]], dropped: int, rows: Sequence[Row]
    ) -> RowCounts:
        """As `count`, with lines that are made already, and the records dropped beside them."""
        counts = [count for _, count in packed]
        for row in rows:
            for part in _parts(row):
                counts[part.target] += part.count
        others = list(zip(self._names[1:], counts[1:], strict=True))
        return RowCounts(
            counts[0],
            [(name, count) for name, count in others if count],
            dropped + sum(map(_dropped, rows)),
        )


def _parts(row: Row) -> tuple[Row | TargetLines, ...]:
    return (row, *row.also)

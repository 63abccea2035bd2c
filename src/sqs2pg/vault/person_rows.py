"""The rows of people in the targets: count them, and clear or delete them.

A large table is processed in parts, each one transaction, while others write to it, move its rows
and attach or detach its partitions. So no pass can tell that it has seen every row. What tells is a
count of all the tables in one statement, which reads one snapshot, between two listings of the same
tables: it finds nothing, or there is another pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.digest import extend_digests
from sqs2pg.postgres.identifiers import quote_identifier
from sqs2pg.postgres.sqlstate import MOVED_MEANWHILE
from sqs2pg.vault.named_people import PEOPLE, Person, people_table
from sqs2pg.vault.target_rows import (
    Leaf,
    PersonColumns,
    TargetTables,
    target_tables,
    whole_if_moving,
)

PASSES_MAX = 5
"""Passes over the same tables, before it counts as rows that keep coming."""

SEARCHED = ("r", "v", "f")
"""Kinds of pg_class whose rows are searched: tables, and what is itself the target: a view, or a
foreign table."""

_CHANGE = """WITH changed AS ({change} RETURNING m.subject),
counted AS (SELECT subject, count(*) AS n FROM changed GROUP BY subject),
noted AS (
    UPDATE pii.erasure e SET rows_changed = e.rows_changed + c.n FROM counted c
    WHERE e.subject = c.subject AND e.finished_at IS NULL)
SELECT coalesce(sum(n), 0)::bigint FROM counted"""
_MATCH = "t.{column} = m.spelling::{type}"
_CLEAR = f"UPDATE {{leaf}} t SET {{sets}} FROM {PEOPLE} m WHERE {_MATCH}{{range}}"
_DELETE = f"DELETE FROM {{leaf}} t USING {PEOPLE} m WHERE {_MATCH}{{range}}"
_TALLY = """INSERT INTO sqs2pg.tally (pipeline, kind, target_rows, target)
VALUES (%s, 'forget', %s, %s)"""
_TALLY_NOTHING = "INSERT INTO sqs2pg.tally (pipeline, kind) SELECT 0, 'forget' WHERE false"
_COUNT = f"SELECT m.subject, count(*) AS n FROM {{leaf}} t JOIN {PEOPLE} m ON {_MATCH} GROUP BY 1"
_SUM = "SELECT subject, sum(n)::bigint FROM ({}) counted GROUP BY 1"


class RowEraser(msgspec.Struct):
    """Clears or deletes the rows of people in one target after the other."""

    session: Session
    pipeline: int
    delete: bool
    pages: int = 0
    """Pages scanned so far."""
    changed: dict[str, int] = {}
    """Rows cleared or deleted so far by target."""
    skipped: set[str] = set()
    """Partitions on other servers."""

    async def erase(
        self,
        target: PersonColumns,
        people: Sequence[Person],
        note: Callable[[int], None],
    ) -> dict[str, int]:
        """Process the people's rows until none is left; return how many are left by reference.

        Some are left only where others keep adding rows about them. `note` is told of each part's
        rows. `target` has its column types. Raises psycopg.Error.
        """
        passes = 0
        if people:
            await extend_digests(self.session)
        while people:
            before = await self._tables(target)
            for leaf in before.leaves:
                for part in leaf.ranges(indexed=leaf.indexed):
                    changed = await self._change_part(target, leaf, part, people)
                    self.changed[target.table] = self.changed.get(target.table, 0) + changed
                    note(changed)
                self.pages += leaf.pages
            left = await count_rows(self.session, target, before, people)
            if (await self._tables(target)).attached != before.attached:
                continue  # rows may have moved with a partition, to where nobody has looked
            passes += 1
            if not left or passes == PASSES_MAX:
                return left
        return {}

    async def rehearse(self, target: PersonColumns) -> None:
        """Send the statements of `erase` so that they find no row, and roll back.

        They meet privileges, row security and replica identity all the same. Raises psycopg.Error.
        """
        tables = await self._tables(target)
        async with people_table(self.session, ()) as transaction:
            for leaf in tables.leaves:
                await self.session.execute(self._statement(target, leaf, " AND false"))
            await self.session.execute(_TALLY_NOTHING)
            await transaction.rollback()

    async def _tables(self, target: PersonColumns) -> TargetTables:
        tables = await target_tables(
            self.session, target.table, target.column, target.masked, SEARCHED
        )
        self.skipped.update(tables.foreign)
        return whole_if_moving(tables, target.table, indexed=True)

    def _statement(self, target: PersonColumns, leaf: Leaf, part: str) -> str:
        column = quote_identifier(target.column)
        cleared = {
            quote_identifier(name): target.fillers.get(name, "NULL") for name in target.masked
        }
        sets = {column: f"m.name::{target.type}", **cleared}
        change = (_DELETE if self.delete else _CLEAR).format(
            leaf=leaf.table,
            sets=", ".join(f"{name} = {value}" for name, value in sets.items()),
            column=column,
            type=target.type,
            range=part,
        )
        return _CHANGE.format(change=change)

    async def _change_part(
        self, target: PersonColumns, leaf: Leaf, part: str, people: Sequence[Person]
    ) -> int:
        statement = self._statement(target, leaf, part)
        try:
            async with people_table(self.session, people):
                [(changed,)] = await self.session.execute(statement)
                if changed and self.delete:
                    name = await resolve_table(self.session, target.table) if target.named else None
                    await self.session.execute(_TALLY, [self.pipeline, -changed, name])
        except MOVED_MEANWHILE:
            return 0  # the count finds the row in its new place
        return int(changed)


async def count_rows(
    session: Session, target: PersonColumns, tables: TargetTables, people: Sequence[Person]
) -> dict[str, int]:
    """Return how many rows of the people are in these tables by reference, in one snapshot.

    `target` has its column types. Raises psycopg.Error.
    """
    if not (people and tables.leaves):
        return {}
    column = quote_identifier(target.column)
    counts = [
        _COUNT.format(leaf=leaf.table, column=column, type=target.type) for leaf in tables.leaves
    ]
    async with people_table(session, people):
        rows = await session.execute(_SUM.format(" UNION ALL ".join(counts)))
    return {subject.hex: count for subject, count in rows}

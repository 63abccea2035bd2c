"""The target tables: what the catalog says of their columns, and COPY into them.

A batch's rows may go to several tables. All of them are written in the batch's own transaction,
and the server's count of each COPY is compared with what was sent: a trigger that swallows rows is
noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
import psycopg

from sqs2pg.errors import SettingsError, TransientFault
from sqs2pg.mapping.columns import Column
from sqs2pg.message import Part, Row
from sqs2pg.postgres.connection import Session, diagnose
from sqs2pg.postgres.identifiers import quote_identifier

OF_COLUMNS = """FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type base ON base.oid = t.typbasetype AND t.typtype = 'd'
CROSS JOIN LATERAL (
    SELECT CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END AS typmod) m
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""
"""The columns of a table, for a SELECT: each as `a`, its type as `t`; of a domain what it is of
as `base`, and in `m` its modifier. One parameter: the table, quoted for SQL."""
COLUMN_TYPE = "coalesce(base.typname, t.typname)"
"""What a column of OF_COLUMNS holds: pg_type.typname, of a domain that of its base."""
COLUMN_LENGTH = f"""CASE WHEN {COLUMN_TYPE} IN ('varchar', 'bpchar') AND m.typmod > 4
            THEN m.typmod - 4 END"""
"""How many characters it takes; NULL where it has no bound."""

_COLUMNS = f"""SELECT a.attname, {COLUMN_TYPE}, {COLUMN_LENGTH},
       NOT (a.attnotnull OR t.typnotnull),
       a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a'
{OF_COLUMNS} ORDER BY a.attnum"""

_MAY_INSERT = "SELECT has_table_privilege(%s, 'INSERT') OR has_any_column_privilege(%s, 'INSERT')"

NO_TABLES = {"v": "a view", "m": "a materialized view", "S": "a sequence", "c": "a type"}
"""By pg_class.relkind, what rows cannot be copied into, unless INSTEAD says how."""
INSTEAD = (
    "EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 68 = 68)"
)
"""Whether the pg_class row `c` has an INSTEAD OF INSERT trigger."""
NO_TABLE_HINT = "name a table in sink.table, or give the view an INSTEAD OF INSERT trigger"
_KIND = f"""SELECT c.relkind, {INSTEAD}
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""

# Made once and run by map and join: a generator costs a Python call a row.
_count, _text, _dropped = attrgetter("count"), attrgetter("text"), attrgetter("dropped")


class TargetTable(msgspec.Struct, frozen=True):
    """One table that rows go to."""

    table: str
    """Quoted for SQL."""
    columns: tuple[str, ...]
    """Its columns, in the order of a line's cells."""
    name: str = ""
    """`schema.table` as the catalog has it and the books call it."""

    def copy_statement(self) -> str:
        """Return the COPY that its lines go in by."""
        names = ", ".join(map(quote_identifier, self.columns))
        return f"COPY {self.table} ({names}) FROM STDIN"


class RowCounts(NamedTuple):
    """Rows by target."""

    first: int
    others: list[tuple[str, int]]
    """Of the further targets that got any: name and rows."""
    dropped: int


class TargetCopy:
    """Writes rows to their targets. Part of the caller's transaction."""

    def __init__(self, targets: Sequence[TargetTable]) -> None:
        self._statements = [target.copy_statement() for target in targets]
        self._names = [target.name for target in targets]
        self.at = 0
        """The target of the last COPY: the one that an error speaks of."""

    async def copy(self, session: Session, rows: Sequence[Row]) -> bool:
        """COPY the rows; return whether the server kept every one. Raises psycopg.Error."""
        if len(self._statements) == 1:
            return await self.copy_text(session, "".join(map(_text, rows)), sum(map(_count, rows)))
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

        By a COPY of nothing: it takes the lock that rows take, and needs no right that they do
        not need (LOCK TABLE needs one on the whole table).
        """
        for target in sorted({part.target for row in rows for part in _parts(row)}):
            self.at = target
            await session.copy(self._statements[target], "")

    async def copy_text(self, session: Session, text: str | bytes, count: int) -> bool:
        """As `copy`, of `count` lines for the first target."""
        return await self._copy(session, 0, text, count)

    async def _copy(self, session: Session, target: int, text: str | bytes, count: int) -> bool:
        self.at = target
        return not count or await session.copy(self._statements[target], text) == count

    def lines(self, row: Row) -> int:
        """Return how many lines of a row went to the target of the last COPY."""
        return sum(part.count for part in _parts(row) if part.target == self.at)

    def count(self, rows: Sequence[Row]) -> RowCounts:
        """Return the rows' lines by target."""
        if len(self._statements) == 1:
            return RowCounts(sum(map(_count, rows)), [], sum(map(_dropped, rows)))
        counts = [0] * len(self._statements)
        for row in rows:
            for part in _parts(row):
                counts[part.target] += part.count
        others = list(zip(self._names[1:], counts[1:], strict=True))
        return RowCounts(
            counts[0],
            [(name, count) for name, count in others if count],
            sum(map(_dropped, rows)),
        )


def _parts(row: Row) -> tuple[Row | Part, ...]:
    return (row, *row.also)


async def read_columns(session: Session, table: str) -> dict[str, Column]:
    """Return the target's columns by name, in table order. `table` is quoted for SQL.

    Raises SettingsError where there is no such table, or the role may not insert into it.
    """
    try:
        rows = await session.execute(_COLUMNS, [table])
        [(may_insert,)] = await session.execute(_MAY_INSERT, [table, table]) if rows else [(False,)]
    except psycopg.Error as error:
        raise unread(table, error) from None
    if not rows:
        raise SettingsError(
            f"table {table} does not exist",
            code="target_table",
            hint="create it with `sqs2pg migrate`, or correct sink.table",
        )
    if not may_insert:
        raise SettingsError(
            f"this role may not insert into {table}",
            code="target_privilege",
            hint=f"GRANT INSERT ON {table} TO the role of sink.dsn",
        )
    return {row[0]: Column(*row) for row in rows}


async def require_table(session: Session, table: str) -> None:
    """Raise SettingsError where rows cannot be copied into it, whatever it is. `table` is quoted
    for SQL.
    """
    try:
        rows = await session.execute(_KIND, [table])
    except psycopg.Error as error:
        raise unread(table, error) from None
    for kind, instead in rows:
        if kind in NO_TABLES and not instead:
            raise SettingsError(
                f"{table} is {NO_TABLES[kind]}: rows cannot be copied into it",
                code="target_table",
                hint=NO_TABLE_HINT,
            )


def unread(table: str, error: psycopg.Error) -> TransientFault:
    """Return the fault of a target whose description the database did not give."""
    fault = diagnose(error)
    return TransientFault(
        f"the columns of {table} cannot be read (SQLSTATE {fault.detail})",
        code=f"postgres_{fault.sqlstate}",
    )

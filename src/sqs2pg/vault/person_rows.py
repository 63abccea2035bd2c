"""The rows of people in the targets: count them, and clear or delete them.

The rows of a state table whose key has the person's id are deleted, and remembered
(`erased_keys.py`): an older version that comes later does not bring them back. Meanwhile nobody
else writes to the table. Otherwise a batch that has looked for tombstones before could insert an
old version where the row is gone.

A large table is processed in parts, each one transaction, while others write to it, move its rows
and attach or detach its partitions. So no pass can tell that it has seen every row. What tells is a
count of all the tables in one statement, which reads one snapshot, between two listings of the same
tables: it finds nothing, or there is another pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.copy_text import escaped
from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.digest import extend_digests
from sqs2pg.postgres.identifiers import quote_identifier
from sqs2pg.postgres.sqlstate import MOVED_MEANWHILE
from sqs2pg.postgres.tombstones import KEY_TEXTS, is_later, stored_version
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

NO_MARKS: Mapping[str, bytes] = MappingProxyType({})
SEARCHED = ("r", "v", "f")
"""Kinds of pg_class whose rows are searched: tables, and what is itself the target: a view, or a
foreign table."""

_CHANGE = """WITH changed AS ({change} RETURNING m.subject{returned}),
counted AS (SELECT subject, count(*) AS n FROM changed GROUP BY subject),
noted AS (
    UPDATE pii.erasure e SET {counter} = e.{counter} + c.n FROM counted c
    WHERE e.subject = c.subject AND e.finished_at IS NULL)
{result}"""
_CHANGED = "SELECT coalesce(sum(n), 0)::bigint FROM counted"
_MATCH = "t.{column} = m.spelling::{type}"
_CLEAR = f"UPDATE {{leaf}} t SET {{sets}} FROM {PEOPLE} m WHERE {_MATCH}{{range}}"
_DELETE = f"DELETE FROM {{leaf}} t USING {PEOPLE} m WHERE {_MATCH}{{range}}"
_TALLY = """INSERT INTO sqs2pg.tally (pipeline, kind, target_rows, rows_deleted, target)
VALUES (%s, 'forget', %s, %s, %s)"""
_TALLY_NOTHING = "INSERT INTO sqs2pg.tally (pipeline, kind) SELECT 0, 'forget' WHERE false"
_COUNT = f"SELECT m.subject, count(*) AS n FROM {{leaf}} t JOIN {PEOPLE} m ON {_MATCH} GROUP BY 1"
_SUM = "SELECT subject, sum(n)::bigint FROM ({}) counted GROUP BY 1"
_ANY = f"SELECT EXISTS (SELECT FROM {{leaf}} t JOIN {PEOPLE} m ON {_MATCH}{{range}})"
_ALONE = f"LOCK TABLE {{table}} IN SHARE ROW EXCLUSIVE MODE; {KEY_TEXTS}"
_CREATE_GONE = "CREATE TEMP TABLE sqs2pg_gone (key bytea, version jsonb) ON COMMIT DROP"
_BYTEA = escaped("\\x")
_COPY_GONE = "COPY pg_temp.sqs2pg_gone (key, version) FROM STDIN"
# Of several rows that one mark stands for the highest version.
_REMEMBER = """INSERT INTO sqs2pg.tombstone AS b (target, key, version)
SELECT DISTINCT ON (key) %s, key, version FROM pg_temp.sqs2pg_gone
ORDER BY key, {version} DESC NULLS LAST
ON CONFLICT (target, key) DO UPDATE SET version = excluded.version, deleted_at = now()
WHERE {is_later}"""


class RowEraser(msgspec.Struct):
    """Clears or deletes the rows of people in one target after the other."""

    session: Session
    pipeline: int
    delete: bool
    pages: int = 0
    """Pages scanned so far."""
    changed: dict[str, int] = {}
    """Rows cleared or deleted so far by target."""
    deleted_from: set[str] = set()
    """Targets whose rows are deleted."""
    forgotten: set[str] = set()
    """State tables with versions from which rows were deleted that nothing remembers."""
    skipped: set[str] = set()
    """Partitions on other servers."""

    def deletes(self, target: PersonColumns) -> bool:
        """Whether the rows of a target are deleted, not cleared."""
        return self.delete or target.is_key

    async def erase(
        self,
        target: PersonColumns,
        people: Sequence[Person],
        note: Callable[[int], None],
        marks: Mapping[str, bytes] = NO_MARKS,
    ) -> dict[str, int]:
        """Process the people's rows until none is left; return how many are left by reference.

        Some are left only where others keep adding rows about them. `note` is told of each part's
        rows. `target` has its column types. `marks`: that of a person's id, by spelling. Raises
        psycopg.Error.
        """
        if self.deletes(target):
            self.deleted_from.add(target.table)
        passes = 0
        if people:
            await extend_digests(self.session)
        while people:
            before = await self._tables(target)
            for leaf in before.leaves:
                for part in leaf.ranges(indexed=leaf.indexed):
                    changed = await self._change_part(target, leaf, part, people, marks)
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
            if self._remembers(target):
                await self._remember(target, ())
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
        deletes, remembers = self.deletes(target), self._remembers(target)
        change = (_DELETE if deletes else _CLEAR).format(
            leaf=leaf.table,
            sets=", ".join(f"{name} = {value}" for name, value in sets.items()),
            column=column,
            type=target.type,
            range=part,
        )
        return _CHANGE.format(
            change=change,
            returned=_returned(target) if remembers else "",
            counter="rows_deleted" if deletes else "rows_changed",
            result="SELECT * FROM changed" if remembers else _CHANGED,
        )

    def _remembers(self, target: PersonColumns) -> bool:
        return self.deletes(target) and target.keys is not None

    async def _change_part(
        self,
        target: PersonColumns,
        leaf: Leaf,
        part: str,
        people: Sequence[Person],
        marks: Mapping[str, bytes],
    ) -> int:
        statement, remembers = self._statement(target, leaf, part), self._remembers(target)
        if remembers and not await self._any(target, leaf, part, people):
            return 0  # nobody is kept waiting for a search
        try:
            async with people_table(self.session, people):
                if remembers:
                    await self.session.execute(_ALONE.format(table=target.table))
                rows = await self.session.execute(statement)
                changed = len(rows) if remembers else int(rows[0][0])
                if remembers:
                    await self._remember(target, _marked(target, rows, marks))
                elif changed and target.versioned and self.deletes(target):
                    self.forgotten.add(target.table)
                if changed and self.deletes(target):
                    name = await resolve_table(self.session, target.table) if target.named else None
                    await self.session.execute(_TALLY, [self.pipeline, -changed, changed, name])
        except MOVED_MEANWHILE:
            return 0  # the count finds the row in its new place
        return changed

    async def _any(
        self, target: PersonColumns, leaf: Leaf, part: str, people: Sequence[Person]
    ) -> bool:
        statement = _ANY.format(
            leaf=leaf.table, column=quote_identifier(target.column), type=target.type, range=part
        )
        async with people_table(self.session, people):
            [(found,)] = await self.session.execute(statement)
        return bool(found)

    async def _remember(
        self, target: PersonColumns, gone: Iterable[tuple[bytes, str | None]]
    ) -> None:
        """Leave tombstones: marks with versions as JSON. In the caller's transaction."""
        await self.session.execute(_CREATE_GONE)
        lines = (f"{_BYTEA}{mark.hex()}\t{escaped(version or 'null')}\n" for mark, version in gone)
        await self.session.copy(_COPY_GONE, "".join(lines))
        name = await resolve_table(self.session, target.table)
        version, new, stored = (
            stored_version(column, target.version_type)
            for column in ("version", "excluded.version", "b.version")
        )
        remember = _REMEMBER.format(version=version, is_later=is_later(new, stored))
        await self.session.execute(remember, [name])


def _returned(target: PersonColumns) -> str:
    """Return what a deletion returns besides: the spelling, the version, and texts of the key."""
    keys = target.keys
    assert keys is not None
    read = map(quote_identifier, keys.read)
    texts = [f"t.{name}::text AS k{number}" for number, name in enumerate(read)]
    version = f"to_jsonb(t.{quote_identifier(keys.newer)})::text AS version"
    return ", " + ", ".join(["m.spelling", version, *texts])


def _marked(
    target: PersonColumns, rows: Sequence[Sequence[Any]], marks: Mapping[str, bytes]
) -> Iterator[tuple[bytes, str | None]]:
    """Yield the mark and the version of deleted rows."""
    assert target.keys is not None
    for _, spelling, version, *texts in rows:
        try:
            yield target.keys.of_row(marks.get(spelling, b""), texts), version
        except PermanentFault:
            continue  # no message has brought such a key


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

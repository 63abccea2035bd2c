"""The map of tokens: what a rekey puts into the targets, once the values have their new tokens.

`pii.token_map` leads from each old token to the new one. It is applied to one range of pages after
the other, each in a transaction of its own. In a state table whose key changes, rows that get one
key are merged first (`merge_rows.py`).

Promises: a run that was killed goes on when it is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sqs2pg.errors import TransientFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.fast_path_masks import Pseudonym
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.identifiers import quote_identifier, quote_table
from sqs2pg.postgres.sqlstate import LOCKED_MEANWHILE, MOVED_MEANWHILE
from sqs2pg.settings import Target
from sqs2pg.vault.batching import SHARED, together
from sqs2pg.vault.merge_rows import (
    MERGED_AT_ONCE,
    RowMerger,
    follow_map,
    index_map,
    unindex_map,
)
from sqs2pg.vault.target_rows import (
    PAGES_AT_ONCE,
    Leaf,
    TargetTables,
    target_tables,
    whole_if_moving,
)

PASSES_MAX = 20
"""Passes over a table, until one finds nothing to change. After the first one only rows that others
have changed meanwhile are left."""

PAGES_AT_LEAST = 1_024
"""Pages of a part, at least, where a table is shared out among sessions: 8 MiB. Each part reads the
whole map."""

# A token of another version; the pattern is frozen (docs/reference/masking.md). The digits are
# counted by length: a bound in the expression costs PostgreSQL four times as much.
OLD = """NOT starts_with({0}, %s) AND {0} ~ '^v[1-9][0-9]{{0,3}}_[0-9a-f]+$'
    AND length({0}) = strpos({0}, '_') + 32"""
# For the hash table of a large map, which every statement that applies it builds again.
_MEMORY = """SELECT set_config('work_mem', '64MB', true)
WHERE pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('64MB')"""
# How many rows it has is what the planner needs: a few of them are enough for that.
_FEW = "SET LOCAL default_statistics_target = 1"
_ANALYZE_MAP = "ANALYZE pii.token_map"
# Most rows have all of their tokens in the map: they are changed as they are read. Both statements
# change rows inside a WITH: there a rule of the table that would do something else is refused.
_CHANGE_WHOLE = """WITH changed AS (
    UPDATE {leaf} t SET {sets} FROM {maps} WHERE {mapped}{range} RETURNING 1)
SELECT count(*) FROM changed"""
# The others are found first: an UPDATE cannot join its own table to what may be missing. In the
# first pass these are the rows that lack a token or have a new one. Where each token is old and the
# map has only some, the count that ends a pass finds the row, and the next pass looks at every row:
# those of which the map has none, whose values are not sealed, may be many.
_CHANGE = """WITH n AS MATERIALIZED (
    SELECT t.tableoid AS part, t.ctid AS address, {found} FROM {leaf} t {joins}
    WHERE coalesce({mapped}) IS NOT NULL{mixed}{range}),
changed AS (
    UPDATE {leaf} t SET {sets} FROM n
    WHERE t.ctid = n.address AND t.tableoid = n.part{range} RETURNING 1)
SELECT count(*) FROM changed"""
# Once all rows have new tokens no hash table of the map is built.
_ANY_OLD = "EXISTS (SELECT FROM {leaf} t WHERE ({old}){range})"
_NOT_CURRENT = "NOT starts_with(t.{column}, '{current}')"
_NOT_OLD = "starts_with(t.{column}, '{current}') IS NOT FALSE"
_MAPPED = """SELECT count(*) AS n FROM {leaf} t {joins}
WHERE ({old}) AND coalesce({mapped}) IS NOT NULL"""
_JOIN = "LEFT JOIN pii.token_map m{number} ON m{number}.old_token = t.{column}"
_LEFT = "SELECT {counts} FROM {table} t"
_EMPTY_MAP = "DELETE FROM pii.token_map"

Mask = Callable[[str], str | None]


class RecoverableColumn(msgspec.Struct, frozen=True):
    """A column of pseudonyms whose values the vault keeps."""

    table: str
    """Quoted for SQL."""
    name: str
    field: str
    """Its name in the vault: the first source, or the column of a field without one."""
    masks: dict[int, Mask]
    """The function to its pseudonym by version of the root, the active version included."""
    pseudonym: Pseudonym | None = None
    """How C code makes the pseudonym of the active version; None: it does not."""


class TokenMap:
    """Applies the map to the targets, through several sessions at once where that is possible."""

    def __init__(
        self,
        sessions: Sequence[Session],
        current: str,
        columns: Sequence[RecoverableColumn],
        targets: Sequence[Target],
        keyring: Keyring,
        count: Callable[[int, int, int], None],
    ) -> None:
        """`current`: what a new token begins with; of `targets`, state tables may have two rows of
        one key. `count` is told of rows with new tokens, of rows that were merged into others, and
        of those that had been deleted.
        """
        self._session = session = sessions[0]
        self._sessions = sessions
        self._current = current
        self.tables: dict[str, list[RecoverableColumn]] = {}
        """The columns by table, quoted for SQL."""
        for column in columns:
            self.tables.setdefault(column.table, []).append(column)
        self._mergers: dict[str, RowMerger] = {}
        for target in targets:
            table = quote_table(target.table)
            ours = {column.name: column.field for column in self.tables.get(table, ())}
            if target.write.keeps_state and ours.keys() & set(target.write.key):
                self._mergers[table] = RowMerger(session, target, ours, keyring)
        self._count = count

    async def rehearse(self, table: str) -> None:
        """Go through the statements for a table without a row, and roll back.

        Raises psycopg.Error, TransientFault.
        """
        columns = self.tables[table]
        tables = await self._target_tables(table)
        async with self._session.transaction(SHARED) as transaction:
            for leaf in tables.leaves:
                if merger := self._mergers.get(table):
                    await merger.rehearse(leaf)
                await self._session.execute(_change_whole(leaf, " AND false", columns))
                await self._session.execute(_change(leaf, " AND false", columns, ""))
            await transaction.rollback()

    async def apply(self, *, left: bool) -> None:
        """Replace the old tokens in all targets, and empty the map.

        `left`: a run that was killed has left its map. Raises psycopg.Error, TransientFault where
        others kept changing rows of a target.
        """
        if left:
            await follow_map(self._session)
        if self._mergers:
            await index_map(self._session)
        async with self._session.transaction(_FEW):
            await self._session.execute(_ANALYZE_MAP)
        for table in self.tables:
            await self._apply(table)
        if self._mergers:
            await unindex_map(self._session)
        await self._session.execute(_EMPTY_MAP)

    async def _apply(self, table: str) -> None:
        """Replace the old tokens in a target's columns as the map says.

        Until one count of the same tables in one snapshot finds none: a pass may miss rows that
        others change or move meanwhile.
        """
        for number in range(PASSES_MAX):
            before = await self._target_tables(table)
            parts = [
                (leaf, part)
                for leaf in before.leaves
                for part in leaf.ranges(indexed=False, at_once=self._pages_at_once(table, leaf))
            ]
            await self._pass(table, parts, first=number == 0)
            if await self._mapped(table, before.leaves):
                continue
            if (await self._target_tables(table)).attached == before.attached:
                return
        raise TransientFault(
            f"rows of {table} with old tokens kept being changed by others",
            code="rekey_followed",
            hint="run `sqs2pg keys rekey` again, when nothing else changes the table",
        )

    def _pages_at_once(self, table: str, leaf: Leaf) -> int:
        """Return how much one statement changes: each session's share, where that is not little."""
        if table in self._mergers:
            return MERGED_AT_ONCE
        share = -(-leaf.pages // len(self._sessions))
        return min(max(share, PAGES_AT_LEAST), PAGES_AT_ONCE)

    async def _pass(self, table: str, parts: Sequence[tuple[Leaf, str]], *, first: bool) -> None:
        """Apply the map to all parts of a table.

        Two sessions that merge rows would only wait for each other's lock.
        """
        left = iter(parts)

        async def work(session: Session) -> None:
            for leaf, part in left:  # each takes the next one
                await self._apply_to_part(session, table, leaf, part, first=first)

        await together(*map(work, self._sessions[:1] if table in self._mergers else self._sessions))

    async def _target_tables(self, table: str) -> TargetTables:
        names = [column.name for column in self.tables[table]]
        return whole_if_moving(
            await target_tables(self._session, table, names[0], names), table, indexed=False
        )

    async def _mapped(self, table: str, leaves: Sequence[Leaf]) -> int:
        """Return how many rows have a token that the map replaces, in one snapshot."""
        columns = self.tables[table]
        old = self._old(columns)
        mapped = ", ".join(f"m{number}.new_token" for number in range(len(columns)))
        any_old = " OR ".join(
            _ANY_OLD.format(leaf=leaf.table, old=old, range="") for leaf in leaves
        )
        counts = [
            _MAPPED.format(leaf=leaf.table, joins=_joins(columns), mapped=mapped, old=old)
            for leaf in leaves
        ]
        async with self._session.transaction(SHARED, _MEMORY, mode=READ_COMMITTED):
            if not (await self._session.execute(f"SELECT {any_old}"))[0][0]:
                return 0
            union = " UNION ALL ".join(counts)
            [(found,)] = await self._session.execute(f"SELECT sum(n)::bigint FROM ({union}) counts")
        return int(found)

    async def _apply_to_part(
        self, session: Session, table: str, leaf: Leaf, part: str, *, first: bool
    ) -> None:
        """Apply the map to one range of a table. Rows that others change meanwhile are left."""
        columns, merger, gone = self.tables[table], self._mergers.get(table), (0, 0)
        try:
            async with session.transaction(SHARED, _MEMORY, mode=READ_COMMITTED):
                any_old = _ANY_OLD.format(leaf=leaf.table, old=self._old(columns), range=part)
                if not (await session.execute(f"SELECT {any_old}"))[0][0]:
                    return
                if merger is not None:
                    await merger.lock(leaf)
                    gone = await merger.merge(leaf, part)
                [(changed,)] = await session.execute(_change_whole(leaf, part, columns))
                if len(columns) > 1:
                    mixed = self._mixed(columns) if first else ""
                    [(others,)] = await session.execute(_change(leaf, part, columns, mixed))
                    changed += others
        except (*MOVED_MEANWHILE, *LOCKED_MEANWHILE):
            return
        self._count(changed, *gone)

    def _mixed(self, columns: Sequence[RecoverableColumn]) -> str:
        """Return the condition that a row has a cell with an old token and one without."""
        names = [quote_identifier(column.name) for column in columns]
        others = " OR ".join(_NOT_OLD.format(column=n, current=self._current) for n in names)
        return f" AND ({self._old(columns)}) AND ({others})"

    def _old(self, columns: Sequence[RecoverableColumn]) -> str:
        """Return the condition that a row has a cell without the current token."""
        names = [quote_identifier(column.name) for column in columns]
        return " OR ".join(
            _NOT_CURRENT.format(column=name, current=self._current) for name in names
        )

    async def left(self, table: str) -> int:
        """Return how many cells still have an old token, in one scan of the table.

        Raises psycopg.Error.
        """
        columns = self.tables[table]
        old = [OLD.format(f"t.{quote_identifier(column.name)}") for column in columns]
        counts = " + ".join(f"count(*) FILTER (WHERE {which})" for which in old)
        statement = _LEFT.format(table=table, counts=counts)
        async with self._session.transaction("SET LOCAL row_security = off"):
            [(left,)] = await self._session.execute(statement, [self._current] * len(old))
        return int(left)


def _change_whole(leaf: Leaf, part: str, columns: Sequence[RecoverableColumn]) -> str:
    """Return the statement that changes the rows of a range whose columns are all in the map."""
    names = list(enumerate(quote_identifier(column.name) for column in columns))
    return _CHANGE_WHOLE.format(
        leaf=leaf.table,
        sets=", ".join(f"{name} = m{number}.new_token" for number, name in names),
        maps=", ".join(f"pii.token_map m{number}" for number, _ in names),
        mapped=" AND ".join(f"m{number}.old_token = t.{name}" for number, name in names),
        range=part,
    )


def _change(leaf: Leaf, part: str, columns: Sequence[RecoverableColumn], mixed: str) -> str:
    """Return the statement that changes the rows of a range that have a token of the map.

    `mixed` is a further condition on them.
    """
    names = [quote_identifier(column.name) for column in columns]
    mapped = [f"m{number}.new_token" for number in range(len(names))]
    return _CHANGE.format(
        leaf=leaf.table,
        found=", ".join(f"{new} AS n{number}" for number, new in enumerate(mapped)),
        joins=_joins(columns),
        mapped=", ".join(mapped),
        mixed=mixed,
        sets=", ".join(f"{name} = coalesce(n.n{n}, t.{name})" for n, name in enumerate(names)),
        range=part,
    )


def _joins(columns: Sequence[RecoverableColumn]) -> str:
    return " ".join(
        _JOIN.format(number=number, column=quote_identifier(column.name))
        for number, column in enumerate(columns)
    )

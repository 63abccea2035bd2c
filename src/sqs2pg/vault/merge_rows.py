"""Merge rows: after a rotation one key of a state table may have two rows, and gets one again.

The stored row has the old token, and a row that came after the rotation the new one. Before a rekey
gives the first its new token, the second is merged into it, as if its message had come to it: it
wins where it is newer, and changes the columns that an upsert changes. A key that was rotated
several times may have a row per version. They are merged from the oldest one on. Rows that were
deleted in between go first (`deleted_rows.py`).

Must never do: leave the table without a row for the key, or give two rows one key.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_identifier, quote_table
from sqs2pg.postgres.state_catalog import read_types
from sqs2pg.postgres.tombstones import is_later
from sqs2pg.settings import Target
from sqs2pg.vault.deleted_rows import DeletedRows
from sqs2pg.vault.target_rows import Leaf

MERGED_AT_ONCE = 1_024
"""Pages of a table that one transaction changes: 8 MiB. Writers to the table wait meanwhile."""

_LOCK = "SET LOCAL lock_timeout = '10s'; LOCK TABLE {leaf} IN SHARE ROW EXCLUSIVE MODE"
# Of the rows of one key, `found` has all: those under the new token, and those under any old one.
_MERGE = """WITH renamed AS MATERIALIZED (
    SELECT DISTINCT {finals} FROM {leaf} t {joins} WHERE coalesce({mapped}) IS NOT NULL{range}),
found AS (
    SELECT t.tableoid AS part, t.ctid AS address, {of_key}, {epoch} AS epoch
    FROM renamed r {tokens} JOIN {leaf} t ON {same}),
pairs AS MATERIALIZED (
    SELECT part, address, lead(part) OVER rows AS other_part, lead(address) OVER rows AS other,
           row_number() OVER rows AS number
    FROM found WINDOW rows AS (PARTITION BY {names} ORDER BY epoch, part, address)),
gone AS (
    DELETE FROM {leaf} t USING pairs p
    WHERE p.number = 1 AND t.tableoid = p.other_part AND t.ctid = p.other
    RETURNING p.part AS sqs2pg_part, p.address AS sqs2pg_address{values}){changed}
SELECT count(*) FROM gone"""
_CHANGED = """,
changed AS (
    UPDATE {leaf} t SET {sets} FROM gone n
    WHERE t.tableoid = n.sqs2pg_part AND t.ctid = n.sqs2pg_address{newer})"""
_TOKENS = """CROSS JOIN LATERAL (
    SELECT r.{final} AS token UNION ALL
    SELECT m.old_token::{type} FROM pii.token_map m WHERE m.new_token = r.{final}::text) {alias}"""
# The version of a token, which says which of two rows was there first.
_EPOCH = "coalesce(substring(t.{column}::text FROM '^v([1-9][0-9]{{0,3}})_')::integer, 0)"
_TALLY = """INSERT INTO sqs2pg.tally
    (pipeline, kind, target_rows, rows_superseded, rows_deleted, target)
SELECT min(t.pipeline), 'rekey', -(%s)::bigint, %s, %s, t.target
FROM sqs2pg.target t WHERE t.target = %s GROUP BY t.target"""
_INDEX = "CREATE INDEX IF NOT EXISTS token_map_new ON pii.token_map (new_token)"
_DROP_INDEX = "DROP INDEX IF EXISTS pii.token_map_new"
# Of a run that was killed after another rotation: an old token whose new one is old by now.
_FOLLOW = """UPDATE pii.token_map m SET new_token = n.new_token FROM pii.token_map n
WHERE n.old_token = m.new_token AND n.new_token <> m.new_token"""


class RowMerger:
    """Merges the rows of one target, part by part, within the caller's transactions."""

    def __init__(
        self, session: Session, target: Target, columns: Mapping[str, str], keyring: Keyring
    ) -> None:
        """`columns`: those that get new tokens, with their names in the vault."""
        self._session = session
        of_key = {name: columns[name] for name in target.write.key if name in columns}
        self._deleted = (
            DeletedRows(session, target, of_key, keyring)
            if DeletedRows.leaves_any(target, of_key)
            else None
        )
        self._write = target.write
        self._table = quote_table(target.table)
        self._changes = tuple(map(quote_identifier, target.updated_columns))
        if target.write.mode != "upsert":
            self._changes = ()  # the first row of a key stays
        self._tokens = [column for column in target.write.key if column in columns]
        self._others = [column for column in target.write.key if column not in columns]
        self._types: dict[str, str] = {}
        self._name = ""

    async def prepare(self) -> None:
        """Read what the catalog says of the table. Raises TransientFault, psycopg.Error."""
        types = await read_types(self._session, self._table)
        self._types = {name: type_.partition(" COLLATE ")[0] for name, type_ in types.items()}
        self._name = await resolve_table(self._session, self._table) or ""
        if self._deleted is not None:
            await self._deleted.prepare(self._name, self._types)

    async def rehearse(self, leaf: Leaf) -> None:
        """Send the statements for no row. Raises as `prepare`."""
        await self.prepare()
        await self.lock(leaf)
        await self._session.execute(self.statement(leaf, " AND false"))
        await self._session.execute(_TALLY, [0, 0, 0, ""])
        if self._deleted is not None:
            await self._deleted.drop(leaf, " AND false")

    async def lock(self, leaf: Leaf) -> None:
        """Keep others from writing to a table until the transaction ends. Raises psycopg.Error."""
        await self._session.execute(_LOCK.format(leaf=leaf.table))

    async def merge(self, leaf: Leaf, part: str) -> tuple[int, int]:
        """Merge the rows that are about to get one key.

        Return how many rows went into others, and how many had been deleted under another token.
        `part` is a condition on `t.ctid`, as `Leaf.ranges` returns it. Raises psycopg.Error.
        """
        deleted = await self._deleted.drop(leaf, part) if self._deleted is not None else 0
        merged = 0
        while gone := (await self._session.execute(self.statement(leaf, part)))[0][0]:
            merged += gone
        if merged or deleted:
            values = [merged + deleted, merged, deleted, self._name]
            await self._session.execute(_TALLY, values)
        return merged, deleted

    def statement(self, leaf: Leaf, part: str) -> str:
        """Return the statement that merges two rows of each key, and counts those that are gone."""
        finals = [f"f{number}" for number in range(len(self._tokens))]
        others = [f"k{number}" for number in range(len(self._others))]
        tokens = list(zip(finals, self._tokens, map(quote_identifier, self._tokens), strict=True))
        plain = list(zip(others, map(quote_identifier, self._others), strict=True))
        epochs = ", ".join(_EPOCH.format(column=column) for _, _, column in tokens)
        return _MERGE.format(
            leaf=leaf.table,
            range=part,
            finals=", ".join(
                [
                    f"coalesce(m_{final}.new_token::{self._types[name]}, t.{column}) AS {final}"
                    for final, name, column in tokens
                ]
                + [f"t.{column} AS {other}" for other, column in plain]
            ),
            joins=" ".join(
                f"LEFT JOIN pii.token_map m_{final} ON m_{final}.old_token = t.{column}"
                for final, _, column in tokens
            ),
            mapped=", ".join(f"m_{final}.new_token" for final in finals),
            of_key=", ".join(f"r.{name}" for name in (*finals, *others)),
            epoch=f"greatest({epochs})",
            tokens=" ".join(
                _TOKENS.format(final=final, type=self._types[name], alias=f"c_{final}")
                for final, name, _ in tokens
            ),
            same=" AND ".join(
                [f"t.{column} = c_{final}.token" for final, _, column in tokens]
                + [f"t.{column} = r.{other}" for other, column in plain]
            ),
            names=", ".join((*finals, *others)),
            values="".join(f", t.{name}" for name in self._changes),
            changed=self._changed(leaf),
        )

    def _changed(self, leaf: Leaf) -> str:
        if not self._changes:
            return ""
        newer = ""
        if self._write.newer:
            name = quote_identifier(self._write.newer)
            newer = f" AND ({is_later(f'n.{name}', f't.{name}')})"
        kept = "coalesce(n.{0}, t.{0})" if self._write.keep_if_null else "n.{0}"
        sets = ", ".join(f"{name} = {kept.format(name)}" for name in self._changes)
        return _CHANGED.format(leaf=leaf.table, sets=sets, newer=newer)


async def follow_map(session: Session) -> None:
    """Let the map of a run that was killed lead to the active tokens. Raises psycopg.Error."""
    while await session.count(_FOLLOW):
        pass


async def index_map(session: Session) -> None:
    """Make the map searchable by its new tokens. Raises psycopg.Error."""
    await session.execute(_INDEX)


async def unindex_map(session: Session) -> None:
    """Remove that index, which costs time where the map is filled. Raises psycopg.Error."""
    await session.execute(_DROP_INDEX)

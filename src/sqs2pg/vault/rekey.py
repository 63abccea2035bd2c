"""Rekey: the tokens of old rows under the active pseudonym root, so that they join with new ones.

After `keys rotate` of the pseudonym root. Two steps, each in batches of their own transactions:
first every sealed value is opened, given its new token and sealed for it, and the pair of tokens is
noted in `pii.token_map`; then the targets' columns follow that map. While it runs the map keeps
joins (`coalesce(new_token, …)`), and `reveal` resolves old and new tokens. At the end the map is
emptied: whoever has the old root could follow it from a guess to a new token.

Promises: each batch is whole or not there; a run that was killed is gone on with by running it
again. Must never do: give a value a token without its old one leaving with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg

from sqs2pg import audit
from sqs2pg.database import Session
from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.seal import SealingKey
from sqs2pg.migrate import explain
from sqs2pg.vault.envelope import key_encryption_key, open_value, seal_value, unwrap_data_key
from sqs2pg.vault.places import Leaf, leaves
from sqs2pg.vault.rewrap import BARRIER, BEGIN, FIRST

BATCH_VALUES = 1_000
PASSES_MAX = 3
"""Of a table: until one finds nothing to change."""

# A token of another version; the pattern is frozen (docs/reference/masking.md).
_OLD = r"token ~ '^v[1-9][0-9]{0,3}_[0-9a-f]{32}$' AND token !~ %s"
_COUNT = f"SELECT count(*) FROM pii.value WHERE field = ANY (%s) AND {_OLD}"
_NEXT = f"""SELECT v.subject, v.generation, v.field, v.token, v.sealed, k.wrapped_key, k.key_version
FROM pii.value v JOIN pii.subject_key k ON k.subject = v.subject AND k.generation = v.generation
WHERE (v.subject, v.field, v.token) > (%s::uuid, %s, %s) AND v.field = ANY (%s) AND {_OLD}
ORDER BY v.subject, v.field, v.token LIMIT %s FOR UPDATE OF v"""
_REMOVE = """DELETE FROM pii.value v
USING unnest(%s::text::uuid[], %s::text[], %s::text[]) AS o (subject, field, token)
WHERE v.subject = o.subject AND v.field = o.field AND v.token = o.token"""
_STORE = """INSERT INTO pii.value (subject, generation, field, token, sealed)
SELECT * FROM unnest(%s::text::uuid[], %s::integer[], %s::text[], %s::text[], %s::bytea[])
     AS n (subject, generation, field, token, sealed) ORDER BY subject, field, token
ON CONFLICT DO NOTHING"""
_MAP = """INSERT INTO pii.token_map (old_token, new_token)
SELECT * FROM unnest(%s::text[], %s::text[]) AS n (old_token, new_token) ORDER BY old_token
ON CONFLICT DO NOTHING"""
# A batch is a small part of large tables, whatever the planner thinks of a LIMIT.
_BY_INDEX = """SELECT set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"""
_MAPPED = "EXISTS (SELECT FROM pii.token_map m WHERE m.old_token = t.{column})"
_FOLLOW = """{column} = coalesce(
    (SELECT m.new_token FROM pii.token_map m WHERE m.old_token = t.{column}), t.{column})"""
_CHANGE = """WITH changed AS (
    UPDATE {leaf} t SET {sets} WHERE ({mapped}){range} RETURNING 1)
SELECT count(*) FROM changed"""
_LEFT = """SELECT count(*) FROM {table} t
WHERE t.{column} ~ '^v[1-9][0-9]{{0,3}}_[0-9a-f]{{32}}$' AND t.{column} !~ %s"""
_MAP_ROWS = "SELECT count(*) FROM pii.token_map"
_EMPTY_MAP = "DELETE FROM pii.token_map"

Mask = Callable[[str], str | None]


class Column(msgspec.Struct, frozen=True):
    """A column of pseudonyms whose values the vault keeps."""

    table: str
    """Quoted for SQL."""
    name: str
    field: str
    """The source, by which the vault knows it."""
    masks: dict[int, Mask]
    """Its pseudonym by version of the root, the active one among them."""


class Rekeyed(msgspec.Struct):
    """What a run has done so far, and what it leaves."""

    values: int = 0
    rows: int = 0
    values_damaged: int = 0
    """Sealed values that do not open, left as they are."""
    rows_left: int = 0
    """Cells with an old token for which no value is sealed."""


class Rekeyer:
    """Gives new tokens through one session."""

    def __init__(self, session: Session, keyring: Keyring, columns: Sequence[Column]) -> None:
        self._session = session
        self._keyring = keyring
        self._version = keyring.active("pseudonym")
        self._columns = columns
        self._current = f"^v{self._version}_"
        self._fields = sorted({column.field for column in columns})
        self._keks: dict[int, SealingKey] = {}
        self.report = Rekeyed()
        self.total = 0
        """Values that had an old token when the run began."""

    async def run(self) -> Rekeyed:
        """Give every old token of a sealed value its new one, in vault and targets.

        May be repeated, and run while messages come in under the new version. Raises KeyFault
        where a vault root is missing, FatalFault where the database refuses.
        """
        try:
            await self._session.execute(BARRIER)
            [(self.total,)] = await self._session.execute(_COUNT, [self._fields, self._current])
            [(mapped,)] = await self._session.execute(_MAP_ROWS)
            if self.total or mapped:
                await self._record("keys_rekey", f"{self.total:,} values to get new tokens")
                after: tuple[str, str, str] | None = (FIRST, "", "")
                while after is not None:
                    after = await self._next_values(after)
                for table in dict.fromkeys(column.table for column in self._columns):
                    await self._follow(table)
                await self._session.execute(_EMPTY_MAP)
                done = self.report
                await self._record("keys_rekey_done", f"{done.values:,} values, {done.rows:,} rows")
            for column in self._columns:
                self.report.rows_left += await self._left(column)
        except psycopg.Error as error:
            await self._session.rollback()
            raise explain(error) from None
        except BaseException:
            await self._session.close()
            raise
        return self.report

    async def _record(self, act: str, what: str) -> None:
        subject = f"pseudonym version {self._version}: {what}"
        audit.announce(act, await audit.append(self._session, act, subject=subject))

    async def _next_values(self, after: tuple[str, str, str]) -> tuple[str, str, str] | None:
        """Give the next values new tokens; return where to go on, None at the end."""
        execute = self._session.execute
        await execute(f"{BEGIN};\n{_BY_INDEX}")
        rows = await execute(_NEXT, [*after, self._fields, self._current, BATCH_VALUES])
        moved = [new for row in rows if (new := self._renew(row)) is not None]
        if moved:
            columns = [list(column) for column in zip(*moved, strict=True)]
            subjects, generations, fields, before, now, sealed = columns
            named = "{" + ",".join(subjects) + "}"
            await execute(_REMOVE, [named, fields, before])
            await execute(_STORE, [named, generations, fields, now, sealed])
            await execute(_MAP, [before, now])
        await execute("COMMIT")
        self.report.values += len(moved)
        self.report.values_damaged += len(rows) - len(moved)
        if len(rows) < BATCH_VALUES:
            return None
        return str(rows[-1][0]), rows[-1][2], rows[-1][3]

    def _renew(self, row: Sequence[Any]) -> tuple[Any, ...] | None:
        """Return a value's subject, generation, field, old and new token, and its new seal."""
        number, generation, field, token, sealed, wrapped, version = row
        subject = number.hex
        kek = self._kek(version)
        try:
            key = unwrap_data_key(kek, wrapped, subject, generation)
            value = open_value(key, sealed, field, token, subject)
            new = self._mask_of(field, token, value)(value)
        except (PermanentFault, Sqs2pgError):
            return None
        if new is None:
            return None
        again = seal_value(key, value, field, new, subject)
        return subject, generation, field, token, new, again

    def _mask_of(self, field: str, token: str, value: str) -> Mask:
        """Return the new pseudonym of the column that the old token came from."""
        columns = [column for column in self._columns if column.field == field]
        version = int(token[1 : token.index("_")])
        for column in columns[1:]:
            # The field goes to columns of several domains: the old token tells which.
            old = column.masks.get(version)
            if old is not None and old(value) == token:
                return column.masks[self._version]
        return columns[0].masks[self._version]

    async def _follow(self, table: str) -> None:
        """Bring a target's columns after the map."""
        columns = [column for column in self._columns if column.table == table]
        for _ in range(PASSES_MAX):
            changed = 0
            for leaf in await leaves(self._session, table, columns[0].name):
                for part in leaf.ranges(indexed=False):
                    changed += await self._follow_part(leaf, part, columns)
            if not changed:
                break

    async def _follow_part(self, leaf: Leaf, part: str, columns: Sequence[Column]) -> int:
        names = [self._session.quote(column.name) for column in columns]
        statement = _CHANGE.format(
            leaf=leaf.table,
            sets=", ".join(_FOLLOW.format(column=name) for name in names),
            mapped=" OR ".join(_MAPPED.format(column=name) for name in names),
            range=part,
        )
        await self._session.execute(BEGIN)
        [(changed,)] = await self._session.execute(statement)
        await self._session.execute("COMMIT")
        self.report.rows += changed
        return int(changed)

    async def _left(self, column: Column) -> int:
        statement = _LEFT.format(table=column.table, column=self._session.quote(column.name))
        [(left,)] = await self._session.execute(statement, [self._current])
        return int(left)

    def _kek(self, version: int) -> SealingKey:
        if version not in self._keks:
            self._keks[version] = key_encryption_key(self._keyring, "vault", version)
        return self._keks[version]

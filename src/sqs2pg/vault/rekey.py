"""Rekey: give old rows the tokens of the active pseudonym root, so that they join with new rows.

Run after `keys rotate` of the pseudonym root. Two steps, each in batches of one transaction. First
every sealed value is opened, gets its new token and is sealed for it, and `pii.token_map` notes the
pair of tokens. Then the map is applied to the targets' columns. Meanwhile the map keeps joins
(`coalesce(new_token, …)`), and `reveal` resolves old and new tokens. At the end the map is emptied:
with it, somebody who has the old root could get from a guessed value to its new token.

Promises: a batch is applied whole or not at all. A run that was killed goes on when it is started
again. Must never do: give a value a new token and leave its old one in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from sqs2pg.errors import KeyFault, Sqs2pgError, TransientFault
from sqs2pg.keys.aead import SealingKey
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.identifiers import quote_identifier
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.batching import (
    BY_INDEX,
    FIRST_SUBJECT,
    SHARED,
    BatchSize,
    overlapped,
    wait_for_batches,
)
from sqs2pg.vault.crypto import KeyEncryptionKeys, open_value, seal_value, unwrap_data_key
from sqs2pg.vault.target_rows import Leaf, leaves

BATCH_VALUES = 1_000
"""In the first batch; `batching.BatchSize` sets the size of the next ones."""
PASSES_MAX = 20
"""Passes over a table, until one finds nothing to change. After the first one only rows that others
have changed meanwhile are left."""

# A token of another version; the pattern is frozen (docs/reference/masking.md). The digits are
# counted by length: a bound in the expression costs PostgreSQL four times as much.
_OLD = """NOT starts_with({0}, %s) AND {0} ~ '^v[1-9][0-9]{{0,3}}_[0-9a-f]+$'
    AND length({0}) = strpos({0}, '_') + 32"""
_OLD_VALUE = _OLD.format("token")
_COUNT = f"SELECT count(*) FROM pii.value WHERE field = ANY (%s) AND {_OLD_VALUE}"
_NEXT = f"""SELECT v.ctid::text, encode(uuid_send(v.subject), 'hex'), v.generation, v.field,
       v.token, v.sealed, k.wrapped_key, k.key_version
FROM pii.value v JOIN pii.subject_key k ON k.subject = v.subject AND k.generation = v.generation
WHERE (v.subject, v.field, v.token) > (%s::uuid, %s, %s) AND v.field = ANY (%s) AND {_OLD_VALUE}
ORDER BY v.subject, v.field, v.token LIMIT %s FOR UPDATE OF v"""
# The old rows are deleted by their address: they have been locked since they were read and have not
# moved. Columns of values are passed as texts joined by commas, which PostgreSQL reads at a
# quarter of an array's cost; none of these values has a comma.
_MOVE = """WITH removed AS (DELETE FROM pii.value WHERE ctid = ANY (%s::text::tid[])),
mapped AS (
    INSERT INTO pii.token_map (old_token, new_token)
    SELECT * FROM ROWS FROM (string_to_table(%s, ','), string_to_table(%s, ','))
         AS n (old_token, new_token)
    ORDER BY old_token ON CONFLICT DO NOTHING)
INSERT INTO pii.value (subject, generation, field, token, sealed)
SELECT n.subject::uuid, n.generation::integer, (%s::text[])[n.field::integer], n.token,
       decode(n.sealed, 'hex')
FROM ROWS FROM (string_to_table(%s, ','), string_to_table(%s, ','), string_to_table(%s, ','),
                string_to_table(%s, ','), string_to_table(%s, ','))
     AS n (subject, generation, field, token, sealed)
ORDER BY 1, 3, 4 ON CONFLICT DO NOTHING"""
# For the hash table of a large map, which every statement that applies it builds again.
_MEMORY = """SELECT set_config('work_mem', '64MB', true)
WHERE pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('64MB')"""
_ANALYZE_MAP = "ANALYZE pii.token_map"
# The rows found decide whether another pass is needed, not the rows changed: a row that others
# change meanwhile has moved, and the next pass takes it.
_CHANGE = """WITH n AS MATERIALIZED (
    SELECT t.ctid AS address, {found} FROM {leaf} t {joins}
    WHERE coalesce({mapped}) IS NOT NULL{range}),
changed AS (
    UPDATE {leaf} t SET {sets} FROM n WHERE t.ctid = n.address{range} RETURNING 1)
SELECT (SELECT count(*) FROM n), (SELECT count(*) FROM changed)"""
_JOIN = "LEFT JOIN pii.token_map m{number} ON m{number}.old_token = t.{column}"
_LEFT = "SELECT {counts} FROM {table} t"
_MAP_ROWS = "SELECT count(*) FROM pii.token_map"
_EMPTY_MAP = "DELETE FROM pii.token_map"

Mask = Callable[[str], str | None]


class RecoverableColumn(msgspec.Struct, frozen=True):
    """A column of pseudonyms whose values the vault keeps."""

    table: str
    """Quoted for SQL."""
    name: str
    field: str
    """The source, which is the field's name in the vault."""
    masks: dict[int, Mask]
    """The function to its pseudonym by version of the root, the active version included."""


class Rekeyed(msgspec.Struct):
    """What a run has done so far, and what it leaves."""

    values: int = 0
    rows: int = 0
    values_damaged: int = 0
    """Sealed values that do not open; they stay as they are."""
    rows_left: int = 0
    """Cells with an old token whose value is not sealed."""


class _Moved(NamedTuple):
    """What one part of a batch writes, as columns of equal length."""

    addresses: list[str]
    """Addresses of the values that get new tokens; values that do not open are not among them."""
    subjects: list[str]
    generations: list[str]
    fields: list[str]
    """Numbers of the run's fields, from 1."""
    before: list[str]
    now: list[str]
    sealed: list[str]
    """Hexadecimal."""


class Rekeyer:
    """Gives new tokens through one session."""

    def __init__(
        self, session: Session, keyring: Keyring, columns: Sequence[RecoverableColumn]
    ) -> None:
        self._session = session
        self._version = keyring.active("pseudonym")
        self._columns = columns
        self._current = f"v{self._version}_"
        self._of_field: dict[str, list[RecoverableColumn]] = {}
        for column in columns:
            self._of_field.setdefault(column.field, []).append(column)
        self._fields = sorted(self._of_field)
        self._keks = KeyEncryptionKeys(keyring)
        self._batch_size = BatchSize(BATCH_VALUES)
        self.report = Rekeyed()
        self.total = 0
        """Values with an old token when the run began."""

    async def run(self) -> Rekeyed:
        """Replace every old token of a sealed value by its new one, in vault and targets.

        May be repeated, and run while messages come in under the new version. Raises KeyFault
        where a vault root is missing, FatalFault where the database refuses, TransientFault where
        others kept changing rows of a target.
        """
        with explained():
            await wait_for_batches(self._session)
            [(self.total,)] = await self._session.execute(_COUNT, [self._fields, self._current])
            [(mapped,)] = await self._session.execute(_MAP_ROWS)
            if self.total or mapped:
                await self._record("keys_rekey", f"{self.total:,} values to get new tokens")
                after: tuple[str, str, str] | None = (FIRST_SUBJECT, "", "")
                while after is not None:
                    after = await self.rekey_next(after)
                await self._session.execute(_ANALYZE_MAP)
                for table in self._tables():
                    await self._apply_map(table)
                await self._session.execute(_EMPTY_MAP)
                done = self.report
                await self._record("keys_rekey_done", f"{done.values:,} values, {done.rows:,} rows")
            for table in self._tables():
                self.report.rows_left += await self._left(table)
        return self.report

    def _tables(self) -> dict[str, list[RecoverableColumn]]:
        tables: dict[str, list[RecoverableColumn]] = {}
        for column in self._columns:
            tables.setdefault(column.table, []).append(column)
        return tables

    async def _record(self, act: str, what: str) -> None:
        subject = f"pseudonym version {self._version}: {what}"
        await audit.record(self._session, act, subject=subject)

    async def rekey_next(self, after: tuple[str, str, str]) -> tuple[str, str, str] | None:
        """Give the next values in the vault new tokens; return the last one's key, None at the end.

        The targets keep the old tokens until `run` applies the map. Raises as `run`.
        """
        session = self._session
        began, size, moved = time.monotonic(), self._batch_size.rows, 0

        async def move(part: _Moved) -> None:
            nonlocal moved
            if part.addresses:
                # One old token has one new one, and may stand for many people.
                pairs = dict(zip(part.before, part.now, strict=True))
                columns = part.subjects, part.generations, part.fields, part.now, part.sealed
                texts = map(",".join, (pairs, pairs.values(), *columns))
                addresses = '{"' + '","'.join(part.addresses) + '"}'
                before, now, *rest = texts
                await session.execute(_MOVE, [addresses, before, now, self._fields, *rest])
            moved += len(part.addresses)

        async with session.transaction(f"{SHARED}, {BY_INDEX}", mode=READ_COMMITTED):
            rows = await session.execute(_NEXT, [*after, self._fields, self._current, size])
            await overlapped(rows, self._renew, move, whole=1)  # no subject is in two parts
        self.report.values += moved
        self.report.values_damaged += len(rows) - moved
        if len(rows) < size:
            return None
        self._batch_size.observe(time.monotonic() - began)
        _, subject, _, field, token, *_ = rows[-1]
        return subject, field, token

    def _renew(self, rows: Sequence[Sequence[Any]]) -> _Moved:
        """Return the values' new tokens and seals. Raises KeyFault."""
        moved = _Moved([], [], [], [], [], [], [])
        numbers = {field: str(number) for number, field in enumerate(self._fields, 1)}
        known: tuple[Any, ...] = ()
        key: SealingKey | None = None
        for address, subject, generation, field, token, sealed, wrapped, version in rows:
            if known != (subject, generation):  # they come by subject
                known, key = (subject, generation), None
                try:
                    key = unwrap_data_key(self._keks[version], wrapped, subject, generation)
                except KeyFault:
                    raise
                except Sqs2pgError:
                    continue
            if key is None:
                continue
            try:
                value = open_value(key, sealed, field, token, subject)
                new = self._mask_of(field, token, value)(value)
            except Sqs2pgError:
                continue
            if new is not None:
                again = seal_value(key, value, field, new, subject).hex()
                row = address, subject, str(generation), numbers[field], token, new, again
                for column, cell in zip(moved, row, strict=True):
                    column.append(cell)
        return moved

    def _mask_of(self, field: str, token: str, value: str) -> Mask:
        """Return the new pseudonym of the column that the old token came from."""
        columns = self._of_field[field]
        if len(columns) > 1:
            # The field goes to columns of several domains: the old token shows which one.
            version = int(token[1 : token.index("_")])
            for column in columns[1:]:
                old = column.masks.get(version)
                if old is not None and old(value) == token:
                    return column.masks[self._version]
        return columns[0].masks[self._version]

    async def _apply_map(self, table: str) -> None:
        """Replace the old tokens in a target's columns as the map says."""
        columns = self._tables()[table]
        for _ in range(PASSES_MAX):
            found = 0
            for leaf in await leaves(self._session, table, columns[0].name):
                for part in leaf.ranges(indexed=False):
                    found += await self._apply_to_part(leaf, part, columns)
            if not found:
                return
        raise TransientFault(
            f"rows of {table} with old tokens kept being changed by others",
            code="rekey_followed",
            hint="run `sqs2pg keys rekey` again, when nothing else changes the table",
        )

    async def _apply_to_part(
        self, leaf: Leaf, part: str, columns: Sequence[RecoverableColumn]
    ) -> int:
        """Apply the map to one range of a table; return how many rows with old tokens it found."""
        names = [quote_identifier(column.name) for column in columns]
        mapped = [f"m{number}.new_token" for number in range(len(names))]
        statement = _CHANGE.format(
            leaf=leaf.table,
            found=", ".join(f"{new} AS n{number}" for number, new in enumerate(mapped)),
            joins=" ".join(_JOIN.format(number=n, column=name) for n, name in enumerate(names)),
            mapped=", ".join(mapped),
            sets=", ".join(f"{name} = coalesce(n.n{n}, t.{name})" for n, name in enumerate(names)),
            range=part,
        )
        async with self._session.transaction(SHARED, _MEMORY, mode=READ_COMMITTED):
            [(found, changed)] = await self._session.execute(statement)
        self.report.rows += changed
        return int(found)

    async def _left(self, table: str) -> int:
        """Return how many cells still have an old token, in one scan of the table."""
        columns = self._tables()[table]
        old = [_OLD.format(f"t.{quote_identifier(column.name)}") for column in columns]
        counts = " + ".join(f"count(*) FILTER (WHERE {which})" for which in old)
        statement = _LEFT.format(table=table, counts=counts)
        [(left,)] = await self._session.execute(statement, [self._current] * len(old))
        return int(left)

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
from typing import Any

import msgspec

from sqs2pg.errors import FatalFault, Sqs2pgError, TransientFault
from sqs2pg.keys.aead import PersonKey, nonces
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.copy_text import binary
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.digest import extend_digests
from sqs2pg.postgres.identifiers import quote_identifier
from sqs2pg.postgres.key_registry import is_on_record
from sqs2pg.postgres.sqlstate import MOVED_MEANWHILE, STORED_MEANWHILE, explained
from sqs2pg.postgres.table_owners import refuse_as_superuser
from sqs2pg.vault.batching import (
    BY_INDEX,
    FIRST_SUBJECT,
    SHARED,
    BatchSize,
    overlapped,
    wait_for_batches,
)
from sqs2pg.vault.crypto import KeyEncryptionKeys, SubjectKeyFault, open_value, seal_value
from sqs2pg.vault.target_rows import (
    REHEARSAL_HINTS,
    Leaf,
    TargetTables,
    target_tables,
    whole_if_moving,
)

BATCH_VALUES = 1_000
"""In the first batch; `batching.BatchSize` sets the size of the next ones."""
TRIES_MAX = 20
"""Tries of one batch of values. Each fails only because a message has stored one of its values at
the same moment; the next try finds that value."""
PASSES_MAX = 20
"""Passes over a table, until one finds nothing to change. After the first one only rows that others
have changed meanwhile are left."""

# A token of another version; the pattern is frozen (docs/reference/masking.md). The digits are
# counted by length: a bound in the expression costs PostgreSQL four times as much.
_OLD = """NOT starts_with({0}, %s) AND {0} ~ '^v[1-9][0-9]{{0,3}}_[0-9a-f]+$'
    AND length({0}) = strpos({0}, '_') + 32"""
_OLD_VALUE = _OLD.format("token")
_COUNT = f"SELECT count(*) FROM pii.value WHERE field = ANY (%s) AND {_OLD_VALUE}"
_NEXT = f"""SELECT v.ctid || E'\\t' || v.xmin, encode(uuid_send(v.subject), 'hex'), v.generation,
       v.field, v.token, v.sealed, k.wrapped_key, k.key_version, v.token_hash
FROM pii.value v JOIN pii.subject_key k ON k.subject = v.subject AND k.generation = v.generation
WHERE (v.subject, v.token_hash, v.field) > (%s::uuid, %s, %s) AND v.field = ANY (%s)
AND {_OLD_VALUE}
ORDER BY v.subject, v.token_hash, v.field LIMIT %s"""
# Both tokens of a value come in by COPY into a temporary table, never as parameters: with them in
# the server's log, somebody who has the old root could get from a guessed value to its new token.
_CREATE = """CREATE TEMP TABLE sqs2pg_moved (part integer, address tid, made_by xid,
    old_token text, new_token text, sealed bytea) ON COMMIT DROP"""
_COPY = "COPY pg_temp.sqs2pg_moved FROM STDIN"
# By address, without a lock: while the erasure lock is held nothing but another rekey changes these
# rows, and then they have other addresses. Another row may have taken the address since: that one
# was made by another transaction. A value whose new token a later message has stored already stays
# behind, and is removed.
_MOVE = """WITH moved AS MATERIALIZED (SELECT * FROM pg_temp.sqs2pg_moved WHERE part = %s),
mapped AS (
    INSERT INTO pii.token_map (old_token, new_token)
    SELECT old_token, new_token FROM moved ON CONFLICT DO NOTHING),
changed AS (
    UPDATE pii.value v SET token = m.new_token, sealed = m.sealed,
           token_hash = hashtextextended(m.new_token, 0)
    FROM moved m
    WHERE v.ctid = m.address AND v.xmin = m.made_by AND NOT EXISTS (
        SELECT FROM pii.value o WHERE o.subject = v.subject AND o.field = v.field
        AND o.token_hash = hashtextextended(m.new_token, 0))
    RETURNING 1)
SELECT count(*) FROM changed"""
_REMOVE = """DELETE FROM pii.value v USING pg_temp.sqs2pg_moved m
WHERE m.part = %s AND v.ctid = m.address AND v.xmin = m.made_by"""
# For the hash table of a large map, which every statement that applies it builds again.
_MEMORY = """SELECT set_config('work_mem', '64MB', true)
WHERE pg_size_bytes(current_setting('work_mem')) < pg_size_bytes('64MB')"""
_ANALYZE_MAP = "ANALYZE pii.token_map"
# The rows found decide whether another pass is needed, not the rows changed: a row that others
# change meanwhile has moved, and the next pass takes it.
_CHANGE = """WITH n AS MATERIALIZED (
    SELECT t.tableoid AS part, t.ctid AS address, {found} FROM {leaf} t {joins}
    WHERE coalesce({mapped}) IS NOT NULL{range}),
changed AS (
    UPDATE {leaf} t SET {sets} FROM n
    WHERE t.ctid = n.address AND t.tableoid = n.part{range} RETURNING 1)
SELECT (SELECT count(*) FROM n), (SELECT count(*) FROM changed)"""
# Whether a joined row needs the map at all: once all have new tokens no hash table is built.
_ANY_OLD = "SELECT EXISTS (SELECT FROM {leaf} t WHERE ({old}){range})"
_NOT_CURRENT = "NOT starts_with(t.{column}, '{current}')"
_MAPPED = "SELECT count(*) AS n FROM {leaf} t {joins} WHERE coalesce({mapped}) IS NOT NULL"
_JOIN = "LEFT JOIN pii.token_map m{number} ON m{number}.old_token = t.{column}"
_LEFT = "SELECT {counts} FROM {table} t"
_MAP_ROWS = "SELECT count(*) FROM pii.token_map"
_EMPTY_MAP = "DELETE FROM pii.token_map"

Mask = Callable[[str], str | None]
ValuePosition = tuple[str, int, str]
"""A value's place in the order of the primary key: subject, the token's hash, field."""
FIRST_VALUE: ValuePosition = (FIRST_SUBJECT, -(2**63), "")
"""Before every value."""


class RecoverableColumn(msgspec.Struct, frozen=True):
    """A column of pseudonyms whose values the vault keeps."""

    table: str
    """Quoted for SQL."""
    name: str
    field: str
    """Its name in the vault: the first source, or the column of a field without one."""
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


class Rekeyer:
    """Gives new tokens through one session."""

    def __init__(
        self, session: Session, keyring: Keyring, columns: Sequence[RecoverableColumn]
    ) -> None:
        self._session = session
        self._keyring = keyring
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
        self.damaged: set[str] = set()
        """References of people whose data key does not open."""
        self._faults: list[SubjectKeyFault] = []

    async def run(self) -> Rekeyed:
        """Replace every old token of a sealed value by its new one, in vault and targets.

        May be repeated, and run while messages come in under the new version. Raises KeyFault
        where a vault root is missing, FatalFault where the database refuses, TransientFault where
        others kept changing rows of a target.
        """
        with explained():
            await refuse_as_superuser(self._session, self._tables())
            await extend_digests(self._session)
            await self._rehearse()
            await wait_for_batches(self._session)
            [(self.total,)] = await self._session.execute(_COUNT, [self._fields, self._current])
            [(mapped,)] = await self._session.execute(_MAP_ROWS)
            if self.total or mapped:
                await self._record("keys_rekey", f"{self.total:,} values to get new tokens")
                await self.rekey_values()
                await self._session.execute(_ANALYZE_MAP)
                for table in self._tables():
                    await self._apply_map(table)
                await self._session.execute(_EMPTY_MAP)
                done = self.report
                await self._record("keys_rekey_done", f"{done.values:,} values, {done.rows:,} rows")
            for table in self._tables():
                self.report.rows_left += await self._left(table)
        return self.report

    async def _rehearse(self) -> None:
        """Go through the statements without a value, and roll back. Raises FatalFault."""
        where = "values of the vault"
        try:
            with explained():
                async with self._session.transaction(SHARED, _CREATE) as transaction:
                    await self._session.execute(_MOVE, [0])
                    await self._session.execute(_REMOVE, [0])
                    await transaction.rollback()
                for table, columns in self._tables().items():
                    where = f"rows of {table}"
                    tables = await self._target_tables(table, [column.name for column in columns])
                    async with self._session.transaction(SHARED) as transaction:
                        for leaf in tables.leaves:
                            await self._session.execute(_statement(leaf, " AND false", columns))
                        await transaction.rollback()
        except FatalFault as fault:
            raise FatalFault(
                f"this login cannot change {where}: {fault.what}; nothing has a new token",
                code=fault.code,
                hint=REHEARSAL_HINTS.get(fault.code) or fault.hint,
            ) from None

    def _tables(self) -> dict[str, list[RecoverableColumn]]:
        tables: dict[str, list[RecoverableColumn]] = {}
        for column in self._columns:
            tables.setdefault(column.table, []).append(column)
        return tables

    async def _record(self, act: str, what: str) -> None:
        subject = f"pseudonym version {self._version}: {what}"
        await audit.record(self._session, act, subject=subject)

    async def rekey_values(self) -> None:
        """Give all values in the vault new tokens, batch by batch. Raises as `run`.

        A message under the new version may store a value between the search for it and the change:
        then the batch is done again.
        """
        after: ValuePosition | None = FIRST_VALUE
        tries = 0
        while after is not None:
            try:
                after, tries = await self.rekey_next(after), 0
            except STORED_MEANWHILE:
                tries += 1
                if tries == TRIES_MAX:
                    raise

    async def rekey_next(self, after: ValuePosition) -> ValuePosition | None:
        """Give the next values in the vault new tokens; return the last one, None at the end.

        The targets keep the old tokens until `run` applies the map. Raises as `run`.
        """
        session = self._session
        began, size, moved, part = time.monotonic(), self._batch_size.rows, 0, 0

        async def move(lines: list[str]) -> None:
            nonlocal moved, part
            if lines:
                part += 1
                await session.copy(_COPY, "".join(f"{part}\t{line}\n" for line in lines))
                [(changed,)] = await session.execute(_MOVE, [part])
                if changed < len(lines):
                    await session.execute(_REMOVE, [part])
            moved += len(lines)

        opening = f"{SHARED}, {BY_INDEX}", _CREATE
        async with session.transaction(*opening, mode=READ_COMMITTED):
            rows = await session.execute(_NEXT, [*after, self._fields, self._current, size])
            await overlapped(rows, self._renew, move, whole=1)  # no subject is in two parts
            for fault in self._faults:
                if fault.root is not None and await is_on_record(session, "vault", fault.root):
                    self._keyring.root("vault", fault.root)  # raises KeyFault
                self.damaged.add(fault.subject)
            self._faults.clear()
        self.report.values += moved
        self.report.values_damaged += len(rows) - moved
        if len(rows) < size:
            return None
        self._batch_size.observe(time.monotonic() - began)
        _, subject, _, field, *_, token_hash = rows[-1]
        return subject, token_hash, field

    def _renew(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        """Return the new tokens and seals of the values that open, as lines for COPY.

        A line has no part and no line end. Sorted as batches of ingest are, so that the two never
        wait for each other.
        """
        moved: list[tuple[str, str, str, str]] = []
        known: tuple[Any, ...] = ()
        key: PersonKey | None = None
        for row, nonce in zip(rows, nonces(len(rows)), strict=True):
            address, subject, generation, field, token, sealed, wrapped, version, _ = row
            if known != (subject, generation):  # they come by subject
                known, key = (subject, generation), None
                try:
                    key = self._keks.open_data_key(version, wrapped, subject, generation)
                except SubjectKeyFault as fault:
                    self._faults.append(fault)
                    continue
            if key is None:
                continue
            try:
                value = open_value(key, sealed, field, token, subject)
                new = self._mask_of(field, token, value)(value)
            except Sqs2pgError:
                continue
            if new is not None:
                again = binary(seal_value(key, value, field, new, subject, nonce))
                moved.append((subject, field, new, f"{address}\t{token}\t{new}\t{again}"))
        moved.sort()
        return [line for *_, line in moved]

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
        """Replace the old tokens in a target's columns as the map says.

        Until one count of the same tables in one snapshot finds none: a pass alone may miss rows
        that others move meanwhile.
        """
        names = [column.name for column in self._tables()[table]]
        for _ in range(PASSES_MAX):
            before = await self._target_tables(table, names)
            parts = [(leaf, part) for leaf in before.leaves for part in leaf.ranges(indexed=False)]
            found = 0
            for leaf, part in parts:
                found += await self._apply_to_part(leaf, part, self._tables()[table])
            if not found and len(parts) > 1:
                found = await self._mapped(before.leaves, self._tables()[table])
            if not found and (await self._target_tables(table, names)).attached == before.attached:
                return
        raise TransientFault(
            f"rows of {table} with old tokens kept being changed by others",
            code="rekey_followed",
            hint="run `sqs2pg keys rekey` again, when nothing else changes the table",
        )

    async def _target_tables(self, table: str, names: Sequence[str]) -> TargetTables:
        return whole_if_moving(
            await target_tables(self._session, table, names[0], names), table, indexed=False
        )

    async def _mapped(self, leaves: Sequence[Leaf], columns: Sequence[RecoverableColumn]) -> int:
        """Return how many rows have a token that the map replaces, in one snapshot."""
        mapped = ", ".join(f"m{number}.new_token" for number in range(len(columns)))
        counts = [
            _MAPPED.format(leaf=leaf.table, joins=_joins(columns), mapped=mapped) for leaf in leaves
        ]
        async with self._session.transaction(SHARED, _MEMORY, mode=READ_COMMITTED):
            union = " UNION ALL ".join(counts)
            [(found,)] = await self._session.execute(f"SELECT sum(n)::bigint FROM ({union}) counts")
        return int(found)

    async def _apply_to_part(
        self, leaf: Leaf, part: str, columns: Sequence[RecoverableColumn]
    ) -> int:
        """Apply the map to one range of a table; return how many rows with old tokens it found."""
        try:
            async with self._session.transaction(SHARED, _MEMORY, mode=READ_COMMITTED):
                [(old,)] = await self._session.execute(self._any_old(leaf, part, columns))
                if not old:
                    return 0
                [(found, changed)] = await self._session.execute(_statement(leaf, part, columns))
        except MOVED_MEANWHILE:
            return 1  # at least
        self.report.rows += changed
        return int(found)

    def _any_old(self, leaf: Leaf, part: str, columns: Sequence[RecoverableColumn]) -> str:
        """Return the query whether a range has a cell without the current token."""
        names = [quote_identifier(column.name) for column in columns]
        old = [_NOT_CURRENT.format(column=name, current=self._current) for name in names]
        return _ANY_OLD.format(leaf=leaf.table, old=" OR ".join(old), range=part)

    async def _left(self, table: str) -> int:
        """Return how many cells still have an old token, in one scan of the table."""
        columns = self._tables()[table]
        old = [_OLD.format(f"t.{quote_identifier(column.name)}") for column in columns]
        counts = " + ".join(f"count(*) FILTER (WHERE {which})" for which in old)
        statement = _LEFT.format(table=table, counts=counts)
        async with self._session.transaction("SET LOCAL row_security = off"):
            [(left,)] = await self._session.execute(statement, [self._current] * len(old))
        return int(left)


def _statement(leaf: Leaf, part: str, columns: Sequence[RecoverableColumn]) -> str:
    """Return the statement that applies the map to one range of a table."""
    names = [quote_identifier(column.name) for column in columns]
    mapped = [f"m{number}.new_token" for number in range(len(names))]
    return _CHANGE.format(
        leaf=leaf.table,
        found=", ".join(f"{new} AS n{number}" for number, new in enumerate(mapped)),
        joins=_joins(columns),
        mapped=", ".join(mapped),
        sets=", ".join(f"{name} = coalesce(n.n{n}, t.{name})" for n, name in enumerate(names)),
        range=part,
    )


def _joins(columns: Sequence[RecoverableColumn]) -> str:
    return " ".join(
        _JOIN.format(number=number, column=quote_identifier(column.name))
        for number, column in enumerate(columns)
    )

"""Rekey: give old rows the tokens of the active pseudonym root, so that they join with new rows.

Run after `keys rotate` of the pseudonym root. Two steps, each in batches of one transaction. First
every sealed value is opened, gets its new token and is sealed for it, and `pii.token_map` notes the
pair of tokens. Then the map is applied to the targets' columns; rows of a state table that get one
key are merged first (`merge_rows.py`). Meanwhile the map keeps joins (`coalesce(new_token, …)`),
and `reveal` resolves old and new tokens. At the end the map is emptied:
with it, somebody who has the old root could get from a guessed value to its new token.

Promises: a batch is applied whole or not at all. A run that was killed goes on when it is started
again. Must never do: give a value a new token and leave its old one in place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from sqs2pg.errors import FatalFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.native import extension
from sqs2pg.postgres import audit
from sqs2pg.postgres.binary_arrays import FIRST_ADDRESS, NO_ROWS, address_text, binary_row
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.digest import extend_digests
from sqs2pg.postgres.key_registry import refuse_missing_root
from sqs2pg.postgres.sqlstate import STORED_MEANWHILE, explained
from sqs2pg.postgres.table_owners import refuse_as_superuser
from sqs2pg.postgres.unheld_values import drop_taken_values
from sqs2pg.settings import Target
from sqs2pg.vault.batching import (
    BY_INDEX,
    SHARED,
    BatchSize,
    together,
    wait_for_batches,
)
from sqs2pg.vault.known_values import VALUE_HASHES_MAX
from sqs2pg.vault.renew_values import VALUE_SIZES, RenewedValues, ValueRenewer
from sqs2pg.vault.target_rows import REHEARSAL_HINTS
from sqs2pg.vault.token_map import OLD, RecoverableColumn, TokenMap

BATCH_VALUES = 1_000
"""In the first batch; `batching.BatchSize` sets the size of the next ones."""
TRIES_MAX = 20
"""Tries of one batch of values. Each fails only because a message has stored one of its values at
the same moment; the next try finds that value."""

_COUNT = f"SELECT count(*) FROM pii.value v WHERE v.field = ANY (%s) AND {OLD.format('v.token')}"
# A scan of a range of addresses goes in their order; ORDER BY would sort all of it. In another
# order rows would be left out, and the next pass would take them. The form of a token is looked at
# where the value is opened, which costs less than an expression here. LATERAL with LIMIT: the
# planner may begin a plain join with the keys, which gives another order.
_NEXT = f"""SELECT count(*), max(n.address), string_agg({binary_row(VALUE_SIZES)}, ''::bytea),
       string_agg(int8send(n.token_hash), ''::bytea)
FROM (
    SELECT v.ctid AS address, v.xmin AS made_by, v.subject, v.generation, k.key_version,
           k.wrapped_key, array_position(%s::text[], v.field) AS number, v.token, v.token_hash,
           v.sealed
    FROM pii.value v
    CROSS JOIN LATERAL (
        SELECT o.key_version, o.wrapped_key FROM pii.subject_key o
        WHERE o.subject = v.subject AND o.generation = v.generation LIMIT 1) k
    WHERE v.ctid > %s::tid AND v.ctid < %s::tid AND v.token_hash BETWEEN %s AND %s
    AND v.field = ANY (%s) AND NOT starts_with(v.token, %s) LIMIT %s) n"""
_PAGES = "SELECT pg_relation_size('pii.value') / current_setting('block_size')::bigint"
# Both tokens of a value come in by COPY, never as parameters: with them in the server's log,
# somebody who has the old root could get from a guessed value to its new token. Pairs that this
# lane has not seen go straight into the map: nobody but another rekey adds them. All are sorted, so
# that the index is written page by page.
_COPY_NEW_PAIRS = "COPY pii.token_map (old_token, new_token) FROM STDIN (FORMAT binary)"
_CREATE_PAIRS = """CREATE TEMP TABLE sqs2pg_pairs (old_token text, new_token text)
    ON COMMIT DROP"""
_COPY_PAIRS = "COPY pg_temp.sqs2pg_pairs (old_token, new_token) FROM STDIN (FORMAT binary)"
_ADD_PAIRS = """INSERT INTO pii.token_map (old_token, new_token)
SELECT p.old_token, p.new_token FROM pg_temp.sqs2pg_pairs p ON CONFLICT DO NOTHING"""
_CREATE = """CREATE TEMP TABLE sqs2pg_moved (address tid, made_by xid, new_token text, sealed bytea,
    again boolean,
    new_hash bigint GENERATED ALWAYS AS (hashtextextended(new_token, 0)) STORED) ON COMMIT DROP"""
_COPY = """COPY pg_temp.sqs2pg_moved (address, made_by, new_token, sealed, again)
FROM STDIN (FORMAT binary)"""
# By address, without a lock: while the erasure lock is held nothing but another rekey changes these
# rows, and then they have other addresses. Another row may have taken the address since: that one
# was made by another transaction.
_MOVE = """UPDATE pii.value v SET token = m.new_token, sealed = m.sealed, token_hash = m.new_hash
FROM pg_temp.sqs2pg_moved m
WHERE v.ctid = m.address AND v.xmin = m.made_by AND NOT m.again"""
# A value whose new token a later message has stored already stays behind, and is removed; so does
# one that had tokens of two older versions, but for the first. Most batches have none of them, so
# they are looked for only once a batch has failed for one, and while there are some.
# As NOT EXISTS it would be a join, which the planner may make by the person alone: each value of a
# person would be compared with each.
_UNLESS_STORED = """ AND (EXISTS (
        SELECT FROM pii.value o WHERE o.subject = v.subject AND o.field = v.field
        AND o.token_hash = m.new_hash)) IS FALSE"""
_REMOVE = """DELETE FROM pii.value v USING pg_temp.sqs2pg_moved m
WHERE v.ctid = m.address AND v.xmin = m.made_by"""
_MAP_ROWS = "SELECT count(*) FROM pii.token_map"


def hash_ranges(count: int) -> list[tuple[int, int]]:
    """Return so many ranges that the hashes of tokens fall into, with both ends."""
    bounds = [2**64 * number // count - 2**63 for number in range(count + 1)]
    return [(first, after - 1) for first, after in pairwise(bounds)]


class Rekeyed(msgspec.Struct):
    """What a run has done so far, and what it leaves."""

    values: int = 0
    rows: int = 0
    rows_merged: int = 0
    """Rows of state tables that went into another row of their key."""
    rows_deleted: int = 0
    """Rows of state tables that a message had deleted under a newer token."""
    values_damaged: int = 0
    """Sealed values that do not open; they stay as they are."""
    rows_left: int = 0
    """Cells with an old token whose value is not sealed."""


class Rekeyer:
    """Gives new tokens through one session, or the vault's values through several at once."""

    def __init__(
        self,
        session: Session,
        keyring: Keyring,
        columns: Sequence[RecoverableColumn],
        targets: Sequence[Target] = (),
        beside: Sequence[Session] = (),
    ) -> None:
        """`targets`: those of the columns, of which state tables may have two rows of one key.

        `beside`: further sessions.
        """
        self._session = session
        self._keyring = keyring
        self._version = keyring.active("pseudonym")
        self._columns = columns
        self.current = f"v{self._version}_"
        """What new tokens begin with."""
        self.columns_of: dict[str, list[RecoverableColumn]] = {}
        for column in columns:
            self.columns_of.setdefault(column.field, []).append(column)
        self.fields = sorted(self.columns_of)
        """As the vault calls them."""
        sessions = [session, *beside]
        self._map = TokenMap(sessions, self.current, columns, targets, keyring, self._count)
        self.report = Rekeyed()
        self.total = 0
        """Values with an old token when the run began."""
        self.damaged: set[str] = set()
        """References of people whose data key does not open."""
        self._lanes = [
            _Lane(self, keyring, one, hashes)
            for one, hashes in zip(sessions, hash_ranges(len(sessions)), strict=True)
        ]

    async def run(self) -> Rekeyed:
        """Replace every old token of a sealed value by its new one, in vault and targets.

        May be repeated, and run while messages come in under the new version. Raises KeyFault
        where a vault root is missing, FatalFault where the database refuses, TransientFault where
        others kept changing rows of a target.
        """
        with explained():
            await refuse_as_superuser(self._session, self._map.tables)
            await extend_digests(self._session)
            await self._rehearse()
            await drop_taken_values(self._session)  # none is left beside those that get new tokens
            await wait_for_batches(self._session)
            [(self.total,)] = await self._session.execute(_COUNT, [self.fields, self.current])
            [(mapped,)] = await self._session.execute(_MAP_ROWS)
            if self.total or mapped:
                await self._record("keys_rekey", f"{self.total:,} values to get new tokens")
                await self.rekey_values(left=bool(mapped))
                await self._map.apply(left=bool(mapped))
                done = self.report
                await self._record("keys_rekey_done", f"{done.values:,} values, {done.rows:,} rows")
            for table in self._map.tables:
                self.report.rows_left += await self._map.left(table)
        return self.report

    async def _rehearse(self) -> None:
        """Go through the statements without a value, and roll back. Raises FatalFault."""
        where = "values of the vault"
        try:
            with explained():
                async with self._session.transaction(SHARED, _CREATE) as transaction:
                    await self._session.copy(_COPY_NEW_PAIRS, NO_ROWS)
                    await self._session.execute(f"{_CREATE_PAIRS};\n{_ADD_PAIRS}")
                    await self._session.execute(_MOVE + _UNLESS_STORED)
                    await self._session.execute(_REMOVE)
                    await transaction.rollback()
                for table in self._map.tables:
                    where = f"rows of {table}"
                    await self._map.rehearse(table)
        except FatalFault as fault:
            raise FatalFault(
                f"this login cannot change {where}: {fault.what}; nothing has a new token",
                code=fault.code,
                hint=REHEARSAL_HINTS.get(fault.code) or fault.hint,
            ) from None

    def _count(self, rows: int, merged: int, deleted: int) -> None:
        self.report.rows += rows
        self.report.rows_merged += merged
        self.report.rows_deleted += deleted

    async def _record(self, act: str, what: str) -> None:
        subject = f"pseudonym version {self._version}: {what}"
        await audit.record(self._session, act, subject=subject)

    async def rekey_values(self, *, left: bool = False) -> None:
        """Give all values in the vault new tokens. Raises as `run`.

        The targets keep the old ones until `run` applies the map. `left`: a run that was killed has
        left its map.
        """
        moved = -1
        # Once more for values that VACUUM FULL or CLUSTER has moved meanwhile.
        while moved != self.report.values:
            moved, self.report.values_damaged = self.report.values, 0
            [(pages,)] = await self._session.execute(_PAGES)  # what comes behind them is new
            await together(*(lane.run(f"({pages},0)", left=left) for lane in self._lanes))


class _Lane:
    """Gives new tokens through one session, beside the other lanes.

    A lane has the values whose tokens have hashes in a range. So no two lanes note one token in the
    map, which would make one wait until the other's batch is committed.
    """

    def __init__(
        self, work: Rekeyer, keyring: Keyring, session: Session, hashes: tuple[int, int]
    ) -> None:
        """`hashes`: the first and the last."""
        self._work = work
        self._session = session
        self._keyring = keyring
        self._hashes = hashes
        self._renewer = ValueRenewer(keyring, work.fields, work.columns_of)  # for its own thread
        self._batch_size = BatchSize(BATCH_VALUES)
        self._seen: Any = None  # `_native.KnownValues` of hashes of tokens
        self._map_left = False
        self._look_for_stored = False

    async def run(self, end: str, *, left: bool) -> None:
        """Give all values of the lane before an address new tokens, batch by batch.

        `left`: the map may have any token. A message under the new version may have stored a value
        that the batch would, or store it at the same moment: then the batch is done again.
        """
        self._map_left = left
        after: str | None = FIRST_ADDRESS
        tries = 0
        while after is not None:
            try:
                after, tries = await self._next_batch(after, end), 0
            except STORED_MEANWHILE:
                self._look_for_stored = True
                tries += 1
                if tries == TRIES_MAX:
                    raise

    async def _next_batch(self, after: str, end: str) -> str | None:
        """Give the next values between two addresses new tokens; return the last one's, None at
        the end.
        """
        session, fields = self._session, self._work.fields
        began, size, moved, old = time.monotonic(), self._batch_size.rows, 0, 0
        opening = f"{SHARED}, {BY_INDEX}", _CREATE
        async with session.transaction(*opening, mode=READ_COMMITTED):
            values = fields, after, end, *self._hashes, fields, self._work.current, size
            [(count, last, rows, hashes)] = await session.execute(_NEXT, values, binary=True)
            if count:
                seen = self._seen_of(hashes, count)
                done = await asyncio.to_thread(self._renewer.renew, rows, count, seen)
                moved, old = done.moved, done.old
                for fault in done.faults:
                    await refuse_missing_root(session, self._keyring, "vault", fault.root)
                    self._work.damaged.add(fault.subject)
                await self._move(done)
        if count and self._seen is not None:
            self._seen.add(hashes)
        self._work.report.values += moved
        self._work.report.values_damaged += old - moved
        if count < size:
            return None
        self._batch_size.observe(time.monotonic() - began)
        return address_text(last)

    def _seen_of(self, hashes: bytes, count: int) -> bytes:
        """Return for each token whether the map may have it.

        One that the lane has forgotten, or another rekey has added, fails the batch; then it is
        done again as if all had been seen.
        """
        seen = bytearray(b"\1" * count)
        native = extension()
        if native is not None and not (self._map_left or self._look_for_stored):
            if self._seen is None:
                self._seen = native.KnownValues(VALUE_HASHES_MAX)
            for number in memoryview(self._seen.unknown(hashes)).cast("I"):
                seen[number] = 0
        return bytes(seen)

    async def _move(self, done: RenewedValues) -> None:
        """Write a batch. Raises psycopg.Error."""
        if done.moved:
            if done.new_pairs != NO_ROWS:
                await self._session.copy(_COPY_NEW_PAIRS, done.new_pairs)
            if done.pairs != NO_ROWS:
                await self._session.execute(_CREATE_PAIRS)
                await self._session.copy(_COPY_PAIRS, done.pairs)
                await self._session.execute(_ADD_PAIRS)
            await self._session.copy(_COPY, done.rows)
            unless = _UNLESS_STORED if self._look_for_stored else ""
            changed = await self._session.count(_MOVE + unless)
            if changed < done.moved:
                await self._session.execute(_REMOVE)
            self._look_for_stored = self._look_for_stored and changed < done.moved

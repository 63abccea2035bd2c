"""Rewrap: put every subject's data key under the active key-encryption key; touch no value.

Run after `keys rotate` of the vault root. In batches, each one transaction that overlaps no
erasure. Several sessions each take a stretch of the table. A key that is not rewrapped yet has
another version, so a run that was killed goes on when it is started again. Afterwards the old root
opens nothing in this database but quarantined bodies.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from itertools import pairwise

import msgspec

from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres import audit
from sqs2pg.postgres.binary_arrays import address_text, binary_row
from sqs2pg.postgres.connection import DURABLE, READ_COMMITTED, Session
from sqs2pg.postgres.key_registry import refuse_missing_root
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.batching import (
    BY_INDEX,
    SHARED,
    BatchSize,
    together,
    wait_for_batches,
)
from sqs2pg.vault.crypto import (
    KeyEncryptionKeys,
    unwrap_reference_key,
    wrap_reference_key,
)
from sqs2pg.vault.reference_key import kek_of_label
from sqs2pg.vault.rewrap_keys import KEY_SIZES, KeyRewrapper

BATCH_KEYS = 2_000
"""In the first batch; `batching.BatchSize` sets the size of the next ones."""

_COUNT = "SELECT count(*) FROM pii.subject_key WHERE key_version <> %s"
# In the order of the table itself, so that each of its pages is read and written once. No row is
# locked first: while the erasure lock is held nothing but another rewrap changes these rows, and
# then they have other addresses. Another person's row may have taken the address since; compared by
# IS TRUE, so that no row is looked up by the index.
# A scan of a range of addresses goes in their order; ORDER BY would sort all of it. In another
# order rows would be left out, and the next pass would take them.
_NEXT = f"""SELECT count(*), max(n.address), string_agg({binary_row(KEY_SIZES)}, ''::bytea)
FROM (SELECT ctid AS address, subject, generation, key_version, wrapped_key
      FROM pii.subject_key
      WHERE ctid > %s::tid AND ctid < %s::tid AND key_version <> %s LIMIT %s) n"""
_PAGES = "SELECT pg_relation_size('pii.subject_key') / current_setting('block_size')::bigint"
# By subject, so that the index is written page by page.
_UPDATE = """UPDATE pii.subject_key k SET wrapped_key = n.wrapped_key, key_version = %s
FROM (SELECT * FROM unnest(%s::tid[], %s::uuid[], %s::bytea[]) AS o (address, subject, wrapped_key)
      ORDER BY o.subject) n
WHERE k.ctid = n.address AND (k.subject = n.subject) IS TRUE AND k.wrapped_key IS NOT NULL"""
_REFERENCE = "SELECT reference_key, reference_wrapped_by FROM pii.state FOR UPDATE"
_REFERENCE_UPDATE = "UPDATE pii.state SET reference_key = %s, reference_wrapped_by = %s"
_BODIES = """SELECT sealed_under, count(*), max(received_at) FROM sqs2pg.quarantine
WHERE sealed_under <> %s GROUP BY sealed_under ORDER BY sealed_under"""


class Bodies(msgspec.Struct, frozen=True):
    """Quarantined bodies that still need a root other than the active one."""

    sealed_under: str
    count: int
    newest: datetime


class Rewrapper:
    """Rewraps through one session, or through several at once."""

    def __init__(self, session: Session, keyring: Keyring, *beside: Session) -> None:
        self._session = session
        self._keyring = keyring
        self._version = keyring.active("vault")
        self._lanes = [_Lane(self, keyring, one) for one in (session, *beside)]
        self.rewrapped = 0
        self.total = 0
        self.damaged: set[str] = set()
        """References of people whose data key does not open. Theirs stay as they are."""
        self.bodies: list[Bodies] = []
        """What still needs an old root after the run."""

    async def run(self) -> int:
        """Rewrap all data keys that are not under the active version; return how many.

        May be repeated, and run while messages come in. Keys that do not open are left and counted.
        Raises KeyFault where an old root that is on record is missing, FatalFault where the
        database refuses.
        """
        with explained():
            await wait_for_batches(self._session)
            await self._reference_key()
            # Those of people who were erased meanwhile are counted no more.
            while await self._count() > len(self.damaged):
                self.damaged.clear()
                await self._record("keys_rewrap", f"{self.total:,} data keys to be wrapped")
                await together(*(lane.run(*stretch) for lane, stretch in await self._stretches()))
                await self._record("keys_rewrap_done", f"{self.rewrapped:,} data keys wrapped")
            rows = await self._session.execute(_BODIES, [f"vault:{self._version}"])
        self.bodies = [Bodies(*row) for row in rows]
        return self.rewrapped

    async def _count(self) -> int:
        [(left,)] = await self._session.execute(_COUNT, [self._version])
        self.total = self.rewrapped + left
        return int(left)

    async def _record(self, act: str, what: str) -> None:
        subject = f"vault version {self._version}: {what}"
        await audit.record(self._session, act, subject=subject)

    async def _stretches(self) -> list[tuple[_Lane, tuple[str, str]]]:
        """Return each lane's stretch of the table, as addresses that are not in it themselves."""
        [(pages,)] = await self._session.execute(_PAGES)
        lanes = self._lanes
        bounds = [f"({int(pages) * number // len(lanes)},0)" for number in range(len(lanes) + 1)]
        return list(zip(lanes, pairwise(bounds), strict=True))

    async def _reference_key(self) -> None:
        session, active = self._session, f"vault:{self._version}"
        async with session.transaction(f"{SHARED}, {DURABLE}", mode=READ_COMMITTED):
            [(wrapped, label)] = await session.execute(_REFERENCE)
            if wrapped is not None and label != active:
                key = unwrap_reference_key(kek_of_label(self._keyring, label), wrapped)
                again = wrap_reference_key(KeyEncryptionKeys(self._keyring)[self._version], key)
                await session.execute(_REFERENCE_UPDATE, [again, active])


class _Lane:
    """Rewraps a stretch of the table through one session, beside the other lanes."""

    def __init__(self, work: Rewrapper, keyring: Keyring, session: Session) -> None:
        self._work = work
        self._session = session
        self._keyring = keyring
        self._version = keyring.active("vault")
        self._rewrapper = KeyRewrapper(keyring)  # for its own thread
        self._batch_size = BatchSize(BATCH_KEYS)

    async def run(self, after: str, end: str) -> None:
        """Rewrap the keys between two addresses."""
        at: str | None = after
        while at is not None:
            at = await self._next_batch(at, end)

    async def _next_batch(self, after: str, end: str) -> str | None:
        """Rewrap the next keys behind address `after`; return the last one's, None at the end."""
        session, rewrapped = self._session, 0
        began, size = time.monotonic(), self._batch_size.rows
        async with session.transaction(f"{SHARED}, {BY_INDEX}", mode=READ_COMMITTED):
            values = after, end, self._version, size
            [(count, last, rows)] = await session.execute(_NEXT, values, binary=True)
            if count:
                done = await asyncio.to_thread(self._rewrapper.rewrap, rows, count)
                for fault in done.faults:
                    await refuse_missing_root(session, self._keyring, "vault", fault.root)
                    self._work.damaged.add(fault.subject)
                await session.execute(_UPDATE, [self._version, *done[:3]])
                rewrapped = count - len(done.faults)
        self._work.rewrapped += rewrapped
        if count < size:
            return None
        self._batch_size.observe(time.monotonic() - began)
        return address_text(last)

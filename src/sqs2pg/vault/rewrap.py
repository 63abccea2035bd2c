"""Rewrap: every subject's data key under the active key-encryption key; no value is touched.

After `keys rotate` of the vault root. In batches, each one transaction that no erasure overlaps;
what is not yet rewrapped says so by its version, so that a run that was killed is gone on with by
running it again. When it is done the old root opens nothing here but quarantined bodies.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from sqs2pg.keys.aead import SealingKey
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explain
from sqs2pg.vault.batching import BatchSize, overlapped
from sqs2pg.vault.crypto import (
    key_encryption_key,
    rewrap_data_key,
    unwrap_reference_key,
    wrap_reference_key,
)

BATCH_KEYS = 2_000
"""In the first batch; `batching` finds the size of those after it."""

BARRIER = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pii.lock_alone(); COMMIT"
"""Waits for the batches that began before: those after it read the versions that are active now.
Without it one under the old version could commit when the last look for such is over."""
BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), pii.lock_shared()"""
"""Opens a batch of a rotation: durable, and never while a person is being erased."""
BY_INDEX = ", ".join(
    f"set_config('enable_{way}', 'off', true)"
    for way in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin")
)
"""A batch is the next small part of large tables, in the order of their primary keys, whatever the
planner thinks of a LIMIT."""

_COUNT = "SELECT count(*) FROM pii.subject_key WHERE key_version <> %s"
_NEXT = """SELECT encode(uuid_send(subject), 'hex'), generation, wrapped_key, key_version
FROM pii.subject_key
WHERE subject > %s::uuid AND key_version <> %s ORDER BY subject LIMIT %s FOR UPDATE"""
_UPDATE = """UPDATE pii.subject_key k
SET wrapped_key = decode(n.wrapped_key, 'hex'), key_version = %s
FROM ROWS FROM (string_to_table(%s, ','), string_to_table(%s, ',')) AS n (subject, wrapped_key)
WHERE k.subject = n.subject::uuid"""
_REFERENCE = "SELECT reference_key, reference_wrapped_by FROM pii.state FOR UPDATE"
_REFERENCE_UPDATE = "UPDATE pii.state SET reference_key = %s, reference_wrapped_by = %s"
_BODIES = """SELECT sealed_under, count(*), max(received_at) FROM sqs2pg.quarantine
WHERE sealed_under <> %s GROUP BY sealed_under ORDER BY sealed_under"""

FIRST = "00000000-0000-0000-0000-000000000000"


class Bodies(msgspec.Struct, frozen=True):
    """Quarantined bodies that still need another root than the active one."""

    sealed_under: str
    count: int
    newest: datetime


class Rewrapper:
    """Rewraps through one session."""

    def __init__(self, session: Session, keyring: Keyring) -> None:
        self._session = session
        self._keyring = keyring
        self._version = keyring.active("vault")
        self._keks: dict[int, SealingKey] = {}
        self._batch_size = BatchSize(BATCH_KEYS)
        self.rewrapped = 0
        self.total = 0
        self.bodies: list[Bodies] = []
        """What still needs an old root when the run is over."""

    async def run(self) -> int:
        """Rewrap all that is not under the active version; return how many data keys were.

        May be repeated, and run while messages come in. Raises KeyFault where an old root is
        missing, Sqs2pgError where a key does not open, FatalFault where the database refuses.
        """
        try:
            await self._session.execute(BARRIER)
            await self._reference_key()
            while await self._count():
                await self._record("keys_rewrap", f"{self.total:,} data keys to be wrapped")
                after: str | None = FIRST
                while after is not None:
                    after = await self._next_batch(after)
                await self._record("keys_rewrap_done", f"{self.rewrapped:,} data keys wrapped")
            rows = await self._session.execute(_BODIES, [f"vault:{self._version}"])
        except psycopg.Error as error:
            await self._session.rollback()
            raise explain(error) from None
        except BaseException:
            await self._session.close()
            raise
        self.bodies = [Bodies(*row) for row in rows]
        return self.rewrapped

    async def _count(self) -> int:
        [(left,)] = await self._session.execute(_COUNT, [self._version])
        self.total = self.rewrapped + left
        return int(left)

    async def _record(self, act: str, what: str) -> None:
        subject = f"vault version {self._version}: {what}"
        audit.announce(act, await audit.append(self._session, act, subject=subject))

    async def _next_batch(self, after: str) -> str | None:
        """Rewrap the next keys above `after`; return the last one's subject, None at the end."""
        execute = self._session.execute
        began, size = time.monotonic(), self._batch_size.rows

        async def update(part: tuple[str, str]) -> None:
            await execute(_UPDATE, [self._version, *part])

        await execute(f"{BEGIN}, {BY_INDEX}")
        rows = await execute(_NEXT, [after, self._version, size])
        await overlapped(rows, self._rewrap, update)
        await execute("COMMIT")
        self.rewrapped += len(rows)
        if len(rows) < size:
            return None
        self._batch_size.observe(time.monotonic() - began)
        return str(rows[-1][0])

    def _rewrap(self, rows: Sequence[Sequence[Any]]) -> tuple[str, str]:
        """Return subjects and their keys, hexadecimal, with commas between."""
        new = self._kek(self._version)
        return ",".join(row[0] for row in rows), ",".join(
            rewrap_data_key(self._kek(version), new, wrapped, subject, generation).hex()
            for subject, generation, wrapped, version in rows
        )

    async def _reference_key(self) -> None:
        await self._session.execute(BEGIN)
        [(wrapped, label)] = await self._session.execute(_REFERENCE)
        active = f"vault:{self._version}"
        if wrapped is not None and label != active:
            series, _, number = label.partition(":")
            key = unwrap_reference_key(
                key_encryption_key(self._keyring, series, int(number)), wrapped
            )
            again = wrap_reference_key(self._kek(self._version), key)
            await self._session.execute(_REFERENCE_UPDATE, [again, active])
        await self._session.execute("COMMIT")

    def _kek(self, version: int) -> SealingKey:
        if version not in self._keks:
            self._keks[version] = key_encryption_key(self._keyring, "vault", version)
        return self._keks[version]

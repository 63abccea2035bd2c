"""Rewrap: every subject's data key under the active key-encryption key; no value is touched.

After `keys rotate` of the vault root. In batches, each one transaction that no erasure overlaps;
what is not yet rewrapped says so by its version, so that a run that was killed is gone on with by
running it again. When it is done the old root opens nothing here but quarantined bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import psycopg

from sqs2pg import audit
from sqs2pg.database import Session
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.seal import SealingKey
from sqs2pg.migrate import explain
from sqs2pg.vault.envelope import (
    key_encryption_key,
    rewrap_data_key,
    unwrap_reference_key,
    wrap_reference_key,
)

BATCH_KEYS = 2_000

BARRIER = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pii.lock_alone(); COMMIT"
"""Waits for the batches that began before: those after it read the versions that are active now.
Without it one under the old version could commit when the last look for such is over."""
BEGIN = """BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true), pii.lock_shared()"""
"""Opens a batch of a rotation: durable, and never while a person is being erased."""

_COUNT = "SELECT count(*) FROM pii.subject_key WHERE key_version <> %s"
_NEXT = """SELECT subject, generation, wrapped_key, key_version FROM pii.subject_key
WHERE subject > %s::uuid AND key_version <> %s ORDER BY subject LIMIT %s FOR UPDATE"""
_UPDATE = """UPDATE pii.subject_key k SET wrapped_key = n.wrapped_key, key_version = %s
FROM unnest(%s::text::uuid[], %s::bytea[]) AS n (subject, wrapped_key)
WHERE k.subject = n.subject"""
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
        await self._session.execute(BEGIN)
        rows = await self._session.execute(_NEXT, [after, self._version, BATCH_KEYS])
        if rows:
            subjects = "{" + ",".join(row[0].hex for row in rows) + "}"
            wrapped = [self._rewrap(row) for row in rows]
            await self._session.execute(_UPDATE, [self._version, subjects, wrapped])
        await self._session.execute("COMMIT")
        self.rewrapped += len(rows)
        return str(rows[-1][0]) if len(rows) == BATCH_KEYS else None

    def _rewrap(self, row: Sequence[Any]) -> bytes:
        subject, generation, wrapped, version = row[0].hex, *row[1:]
        old, new = self._kek(version), self._kek(self._version)
        return rewrap_data_key(old, new, wrapped, subject, generation)

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

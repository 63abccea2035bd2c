"""Replay: quarantined messages go the same way again: open, decode, mask, write.

In batches, each one transaction: lock the entries, open and transform them, flip their ledger
entries from quarantined to written, write their rows, note in the quarantine what became of each.
An entry of a notification of S3 is other than one of a line: its objects are read again, from where
they are on, and then the entry is flipped, without a row of its own.
Under `ledger.dedupe_key` an entry that could not be read before may now turn out to be an event
that the ledger has already: it is done then, like a redelivery.

Promises: an entry's rows are written once, however often and by however many processes it is
replayed, and wherever a run is killed. The ledger's entry ensures that, or the quarantine entry's
`replayed_at` if the ledger has dropped the day. What fails again stays quarantined, with its
new reason. The run is on record in the audit before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from sqs2pg.errors import KeyFault, PermanentFault, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.compile import Decoded
from sqs2pg.mapping.ledger_key import is_line_id
from sqs2pg.mapping.originals import Originals
from sqs2pg.message import Message, Row
from sqs2pg.pipeline.plan import Plan
from sqs2pg.pipeline.s3_objects import S3Objects
from sqs2pg.postgres import audit
from sqs2pg.postgres.batch_transaction import BatchTransactions, SinkPlan
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.quarantine import (
    Selection,
    measure,
    open_attributes,
    open_body,
    system_attributes,
)
from sqs2pg.postgres.reject_search import find_every_rejected
from sqs2pg.postgres.replay_ledger import Flip, SealedEntry, labels, lock_entries
from sqs2pg.postgres.slow_path import write_slowly
from sqs2pg.postgres.sqlstate import DatabaseFault, retryable
from sqs2pg.postgres.target_copy import TargetCopy
from sqs2pg.vault.crypto import SubjectKeyFault
from sqs2pg.vault.seal import ValueSealer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

logger = structlog.get_logger(__name__)


class Replayed(msgspec.Struct):
    """What became of the entries of a run so far."""

    replayed: int = 0
    still_bad: int = 0
    already_done: int = 0
    """Written by an earlier or another replay, or under its event's name; or purged meanwhile."""


class _Transformed(msgspec.Struct):
    """One transaction's entries, decoded and masked; keys are ledger keys."""

    rows: list[Row] = []
    faults: dict[str, PermanentFault] = {}
    """Why entries stay quarantined."""
    events: dict[str, str] = {}
    """Ledger key -> that of the event, where the entry was quarantined before it had a name."""
    originals: Originals | None = None
    """What the rows hide, where the vault is on."""
    taken: list[str] = []
    """The entries that this is about: the first ones, as many as fit the budget."""


class Replayer:
    """Replays entries of one pipeline through one session."""

    def __init__(
        self,
        session: Session,
        sink_plan: SinkPlan,
        plan: Plan,
        keyring: Keyring,
        vault: ValueSealer | None = None,
        objects: S3Objects | None = None,
    ) -> None:
        """`objects`: writes the lines of notifications, over the same session."""
        self._objects = objects
        self._session = session
        self._pipeline = sink_plan.id
        self._plan = plan
        self._keyring = keyring
        self._vault = vault
        self._targets = TargetCopy(sink_plan.targets)
        self._transactions = BatchTransactions(sink_plan, vault, READ_COMMITTED)
        self.report = Replayed()
        self.total = 0
        """Entries that the run began with."""

    async def run(self, selection: Selection) -> Replayed:
        """Replay the open entries of a selection that are there now; return what became of them.

        May be repeated, and run several times at once. Raises SettingsError for ids that are not
        there, KeyFault where a key is missing or another is active, TransientFault where the
        database is away or refuses; the batches before stay written.
        """
        extent = await measure(self._session, self._pipeline, selection)
        selection = msgspec.structs.replace(selection, open_only=True)
        self.total = extent.entries if selection.ids else extent.open
        if extent.open:
            for label in await labels(self._session, self._pipeline, selection):
                self._keyring.quarantine_key_of(label)
            await audit.record(
                self._session,
                "replay",
                subject=f"pipeline {self._pipeline}, {extent.open} quarantine entries: {selection}",
            )
            after: int | None = 0
            while after is not None:
                with retryable(
                    "PostgreSQL could not take a batch of the replay",
                    hint="put the database right and run the same command again: nothing is "
                    "written twice",
                ):
                    after = await self._next(selection, after, extent.last_id)
        done = self.report.replayed + self.report.still_bad
        self.report.already_done = max(self.report.already_done, self.total - done)
        return self.report

    async def _next(self, selection: Selection, after: int, last: int) -> int | None:
        """As `_next_batch`. Where the key of one person does not open, each entry alone."""
        try:
            return await self._next_batch(selection, after, last)
        except SubjectKeyFault:
            pass  # the vault has logged whose
        async with self._transactions.open(self._session):
            entries = await lock_entries(self._session, self._pipeline, selection, after, last)
        ids = sorted(entry.id for entry in entries.values())
        for id_ in ids:
            try:
                await self._next_batch(selection, id_ - 1, id_)
            except SubjectKeyFault:
                self.report.still_bad += 1
        return ids[-1] if ids else None

    async def _next_batch(self, selection: Selection, after: int, last: int) -> int | None:
        """Replay the next batch of entries above `after`; return its last id, None at the end."""
        read = await self._read_objects(selection, after, last)
        self._targets.begin()
        async with self._transactions.open(self._session):
            entries = await lock_entries(self._session, self._pipeline, selection, after, last)
            if not entries:
                return None
            batch = await self._transform(entries, read)
            if not batch.taken:
                return after  # another replay was faster: look again
            entries = {key: entries[key] for key in batch.taken}
            flip, written, faults, stored = await self._write(entries, batch)
        self._remember(stored)
        self.report.replayed += len(written)
        self.report.still_bad += len(faults) + len(flip.lost)
        self.report.already_done += len(flip.done)
        for key in flip.lost:
            logger.error(
                "the ledger has no entry of a quarantined message: left as it is, see verify",
                message_id=entries[key].message_id,
            )
        return max(entry.id for entry in entries.values())

    async def _write(
        self, entries: Mapping[str, SealedEntry], batch: _Transformed
    ) -> tuple[Flip, list[Row], dict[str, PermanentFault], Any]:
        """Flip a batch's entries, write their rows and note both, in the transaction under way.

        Returns with the flip the rows that are written, why the others stay quarantined, and what
        the vault remembers after COMMIT.
        """
        flip = Flip(self._pipeline, entries, batch.events)
        _, written, rejected, stored = await write_slowly(
            self._session,
            batch.rows,
            flip,
            self._search,
            self._vault,
            batch.originals,
            self._targets.held,
        )
        tables = {row.key: self._targets.name_of(row.target) for row in batch.rows}
        faults = batch.faults | {
            key: fault.permanent(tables[key]) for key, fault in rejected.items()
        }
        changes = self._targets.changes(sum(row.dropped for row in written))
        await flip.note(self._session, written, faults, changes)
        return flip, written, faults, stored

    def _remember(self, stored: Any) -> None:
        if self._vault is not None and stored is not None:
            self._vault.remember(stored)

    async def _read_objects(
        self, selection: Selection, after: int, last: int
    ) -> dict[str, PermanentFault | None]:
        """Write the lines of the next notifications; return why entries stay quarantined, by key.

        Not in the transaction of the entries: an object may be large. A run that is killed goes on
        at the line after the last one committed. Raises TransientFault.
        """
        read: dict[str, PermanentFault | None] = {}
        if self._objects is None:
            return read
        async with self._transactions.open(self._session):
            entries = await lock_entries(self._session, self._pipeline, selection, after, last)
        for key, entry in entries.items():
            if is_line_id(entry.message_id):
                continue
            try:
                read[key] = await self._objects.read_again(self._open(entry))
            except PermanentFault as fault:
                read[key] = fault.with_traceback(None)
        return read

    async def _search(self, rows: Sequence[Row]) -> dict[str, DatabaseFault]:
        return await find_every_rejected(self._session, self._targets, rows)

    async def _transform(
        self, entries: dict[str, SealedEntry], read: Mapping[str, PermanentFault | None]
    ) -> _Transformed:
        """`read`: what `_read_objects` returned."""
        batch = _Transformed()
        messages: list[Message] = []
        records: list[Decoded] = []
        keys: list[str] = []
        mapping, dedupe = self._plan.encoder.mapping, self._plan.dedupe
        size, bytes_max = 0, self._plan.budget.bytes_max
        for key, entry in entries.items():
            if 0 < bytes_max <= size:
                break  # the others come with the next batch
            if self._objects is not None and not is_line_id(entry.message_id):
                if key not in read:
                    break
                batch.taken.append(key)
                if (why := read[key]) is None:
                    batch.rows.append(Row(key, entry.message_id, "", 0))
                else:
                    batch.faults[key] = why
                continue
            batch.taken.append(key)
            try:
                message = self._open(entry)
                if self._plan.payloads:
                    for fault in (await self._plan.payloads.fetch([message])).values():
                        raise fault
                record = mapping.decode(message)
                message.payload = None
            except PermanentFault as fault:
                batch.faults[key] = fault
                continue
            keys.append(key)
            messages.append(message)
            records.append(record)
            size += mapping.size_of(record)
            if dedupe and (name := mapping.event(record)) and (event := dedupe(name)) != key:
                batch.events[key] = event
        if self._vault is not None:
            batch.originals = Originals()
        rows = mapping.rows(keys, messages, records, batch.originals)
        for key, row in zip(keys, rows, strict=True):
            if isinstance(row, Row):
                batch.rows.append(row)
            else:
                batch.faults[key] = row
        return batch

    def _open(self, entry: SealedEntry) -> Message:
        try:
            body = open_body(
                self._keyring, entry.key, entry.message_id, entry.sealed_under, entry.body
            )
            attributes = open_attributes(
                self._keyring, entry.key, entry.message_id, entry.sealed_under, entry.attributes
            )
        except KeyFault:
            raise
        except Sqs2pgError as error:
            # Damaged, or of a later version: a reason for this entry alone to stay quarantined.
            raise PermanentFault(error.code) from None
        sent_ms = (entry.sent_at - _EPOCH) // timedelta(milliseconds=1)
        system = system_attributes(sent_ms, entry.attempts, attributes)
        return Message(entry.message_id, "", body, system, attributes)

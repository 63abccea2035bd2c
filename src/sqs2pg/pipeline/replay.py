"""Replay: what was set aside goes the same way again: open, decode, mask, write.

In batches, each one transaction: lock the entries, open and transform them, flip their ledger
entries from quarantined to written, write their rows, note in the quarantine what became of each.
Under `ledger.dedupe_key` an entry that could not be read before may now prove to be an event that
the ledger knows by its name: it is done then, like a redelivery.

Promises: an entry's rows are written once, however often and by however many it is replayed, and
wherever a run is killed; the ledger's flip sees to that, and the entry's own `replayed_at` where
the ledger has forgotten it. What fails again stays set aside, with its new reason. The run is on
record in the audit before it begins.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import psycopg
import structlog

from sqs2pg.errors import KeyFault, PermanentFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping import ledger_key
from sqs2pg.mapping.compile import Decoded
from sqs2pg.mapping.originals import Originals
from sqs2pg.message import Message, Row, SystemAttributes
from sqs2pg.pipeline.processor import Plan
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.quarantine import Selection, measure, open_attributes, open_body
from sqs2pg.postgres.reject_search import SAME_FAULT_MAX, find_rejected
from sqs2pg.postgres.sink import BATCH_SETTINGS, SinkPlan
from sqs2pg.postgres.sqlstate import DatabaseFault, diagnose, explain
from sqs2pg.postgres.target_copy import TargetCopy
from sqs2pg.vault.seal import ValueSealer

BATCH_MAX = 500
BATCH_BYTES_MAX = 32 * 2**20
"""Of sealed bodies in memory at once; one body alone may be larger."""

# One fewer than would end a search early: here every row is tried, since that many of one fault
# may well be followed by one that was mended.
_SEARCH_ROWS = SAME_FAULT_MAX - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED;\n{BATCH_SETTINGS}"
_LABELS = "SELECT DISTINCT q.sealed_under FROM sqs2pg.quarantine q WHERE q.pipeline = %s"
# Read committed: an entry that another replay holds is waited for, and left out if that one has
# written it.
_LOCK = """SELECT q.id, q.key::text, octet_length(q.body) FROM sqs2pg.quarantine q
WHERE q.pipeline = %s AND q.id > %s AND q.id <= %s {which} ORDER BY q.id LIMIT %s FOR UPDATE"""
_FETCH = """SELECT id, key::text, message_id, attempts, sent_at, sealed_under, body, attributes
FROM sqs2pg.quarantine WHERE id = ANY(%s) ORDER BY id"""
_FLIP = """UPDATE sqs2pg.delivery d SET outcome = 'written'
FROM unnest(%s::uuid[], %s::text[]) AS e (key, message_id)
WHERE d.key = e.key AND d.message_id = e.message_id AND d.outcome = 'quarantined'
AND d.key = ANY(%s::uuid[]) RETURNING d.key::text"""
_CLAIM = """INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome, seen_at)
SELECT key, message_id, %s, 'written', now()
FROM unnest(%s::uuid[], %s::text[]) AS e (key, message_id) ORDER BY key
ON CONFLICT (key) DO NOTHING RETURNING key::text"""
_GIVE_UP_CLAIM = "DELETE FROM sqs2pg.delivery WHERE key = ANY(%s::uuid[])"
_FLIP_BACK = "UPDATE sqs2pg.delivery SET outcome = 'quarantined' WHERE key = ANY(%s::uuid[])"
_KNOWN = "SELECT key::text, message_id FROM sqs2pg.delivery WHERE key = ANY(%s::uuid[])"
_DAYS = "SELECT name FROM unnest(%s::text[]) name WHERE to_regclass('sqs2pg.' || name) IS NOT NULL"
_DONE = "UPDATE sqs2pg.quarantine SET replayed_at = now() WHERE id = ANY(%s)"
_STILL_BAD = """UPDATE sqs2pg.quarantine q
SET reason = e.reason, detail = e.detail, attempts = q.attempts + 1
FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS e (id, reason, detail) WHERE q.id = e.id"""
# Messages as the ledger's own counts change, rows as they were added.
_TALLY = """INSERT INTO sqs2pg.tally (pipeline, kind, written, quarantined, target_rows, dropped)
VALUES (%s, 'replay', %s, %s, %s, %s)"""
_TALLY_OTHER = """INSERT INTO sqs2pg.tally (pipeline, kind, target_rows, target)
VALUES (%s, 'replay', %s, %s)"""

logger = structlog.get_logger(__name__)


class Replayed(msgspec.Struct):
    """What became of the entries of a run so far."""

    replayed: int = 0
    still_bad: int = 0
    already_done: int = 0
    """Written by an earlier or another replay, or under its event's name; or purged meanwhile."""


class _Sealed(msgspec.Struct):
    """One entry of a batch, locked."""

    id: int
    key: str
    message_id: str
    attempts: int
    sent_at: datetime
    sealed_under: str
    body: bytes
    attributes: bytes | None


class _Batch(msgspec.Struct):
    """One transaction's entries by ledger key, and where each stands."""

    entries: dict[str, _Sealed]
    rows: list[Row] = []
    faults: dict[str, PermanentFault] = {}
    events: dict[str, str] = {}
    """Ledger key -> that of the event, where the entry was set aside before it had a name."""
    flipped: set[str] = set()
    claimed: dict[str, str] = {}
    """Of the events, those that the ledger did not have."""
    done: list[str] = []
    """Keys of what is in the target already: nothing is left to do but note it."""
    originals: Originals | None = None
    """What the rows hide, where the vault is on."""
    lost: list[str] = []
    """Keys that the ledger lacks though their day is there, or has for another message."""

    def leave_out(self, keys: Collection[str]) -> None:
        """Write no rows of these keys."""
        self.rows = [row for row in self.rows if row.key not in keys]


class Replayer:
    """Replays entries of one pipeline through one session."""

    def __init__(
        self,
        session: Session,
        sink_plan: SinkPlan,
        plan: Plan,
        keyring: Keyring,
        vault: ValueSealer | None = None,
    ) -> None:
        self._session = session
        self._sink_plan = sink_plan
        self._plan = plan
        self._keyring = keyring
        self._vault = vault
        self._targets = TargetCopy(sink_plan.targets)
        self._begin = _BEGIN.format(timeout_ms=sink_plan.statement_timeout_s * 1000)
        self._begin += vault.open_statements if vault else ""
        self.report = Replayed()
        self.total = 0
        """Entries that the run began with."""

    async def run(self, selection: Selection) -> Replayed:
        """Replay the open entries of a selection that are there now; return what became of them.

        May be repeated, and run several times at once. Raises SettingsError for ids that are not
        there, KeyFault where a key is missing or another is active, TransientFault where the
        database is away or refuses; the batches before stay written.
        """
        extent = await measure(self._session, self._sink_plan.id, selection)
        selection = msgspec.structs.replace(selection, open_only=True)
        self.total = extent.entries if selection.ids else extent.open
        if extent.open:
            await self._require_keys(selection)
            await audit.record(
                self._session,
                "replay",
                subject=f"pipeline {self._sink_plan.id}, {extent.open} quarantine entries: "
                f"{selection}",
            )
            after: int | None = 0
            while after is not None:
                after = await self._next_batch(selection, after, extent.last_id)
        done = self.report.replayed + self.report.still_bad
        self.report.already_done = max(self.report.already_done, self.total - done)
        return self.report

    async def _require_keys(self, selection: Selection) -> None:
        which, values = selection.where()
        try:
            rows = await self._session.execute(_LABELS + which, [self._sink_plan.id, *values])
        except psycopg.Error as error:
            raise explain(error) from None
        for (label,) in rows:
            self._keyring.quarantine_key_of(label)

    async def _next_batch(self, selection: Selection, after: int, last: int) -> int | None:
        """Replay the next batch of entries above `after`; return its last id, None at the end."""
        try:
            batch = await self._lock(selection, after, last)
            if batch is None:
                await self._session.execute("COMMIT")
                return None
            await self._transform(batch)
            await self._write(batch)
        except psycopg.Error as error:
            await self._session.rollback()
            fault = diagnose(error)
            raise TransientFault(
                f"PostgreSQL could not take a batch of the replay (SQLSTATE {fault.detail})",
                code=f"postgres_{fault.sqlstate}",
                hint="mend it and run the same command again: what was written is not written "
                "twice",
            ) from None
        except BaseException:
            await self._session.close()  # its transaction is in an unknown state
            raise
        return max(entry.id for entry in batch.entries.values())

    async def _lock(self, selection: Selection, after: int, last: int) -> _Batch | None:
        [(*read, active)] = await self._session.execute(self._begin)
        if self._vault is not None:
            self._vault.check_epoch(*read)
        if active != self._sink_plan.key_version:
            raise KeyFault(
                f"the replay masks under pseudonym version {self._sink_plan.key_version}, but "
                f"version {active} is the active one now",
                code="key_version",
                hint="run the same command again",
            )
        which, values = selection.where()
        locked = await self._session.execute(
            _LOCK.format(which=which), [self._sink_plan.id, after, last, *values, BATCH_MAX]
        )
        ids = _fitting(locked)
        if not ids:
            return None
        sealed = [_Sealed(*row) for row in await self._session.execute(_FETCH, [ids])]
        return _Batch({entry.key: entry for entry in sealed})

    async def _transform(self, batch: _Batch) -> None:
        messages: list[Message] = []
        records: list[Decoded] = []
        keys: list[str] = []
        mapping, dedupe = self._plan.mapping, self._plan.dedupe
        for key, entry in batch.entries.items():
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

    def _open(self, entry: _Sealed) -> Message:
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
            # Damaged, or of a later version: for this entry alone a reason to stay set aside.
            raise PermanentFault(error.code) from None
        sent_ms = (entry.sent_at - _EPOCH) // timedelta(milliseconds=1)
        system = SystemAttributes(sent_ms, entry.attempts)
        return Message(entry.message_id, "", body, system, attributes)

    async def _write(self, batch: _Batch) -> None:
        await self._flip(batch)
        await self._claim_events(batch)
        rejected = await self._write_rows(batch.rows)
        if rejected:
            batch.leave_out(rejected)
            batch.faults |= {
                key: PermanentFault(fault.reason, fault.detail, stage=Stage.WRITE)
                for key, fault in rejected.items()
            }
            await self._session.execute(_FLIP_BACK, [[*rejected.keys() & batch.flipped]])
            batch.flipped -= rejected.keys()
            given_up = [batch.claimed.pop(key) for key in rejected if key in batch.claimed]
            await self._session.execute(_GIVE_UP_CLAIM, [given_up])
        marks = None
        if self._vault is not None and batch.originals is not None and batch.rows:
            written = {row.message_id for row in batch.rows}
            marks = await self._vault.seal(self._session, batch.originals, written)
        await self._note(batch)
        await self._session.execute("COMMIT")
        if self._vault is not None and marks is not None:
            self._vault.remember(marks)
        self.report.replayed += len(batch.rows)
        self.report.still_bad += len(batch.faults) + len(batch.lost)
        self.report.already_done += len(batch.done)
        for key in batch.lost:
            logger.error(
                "the ledger has no entry of a quarantined message: left as it is, see verify",
                message_id=batch.entries[key].message_id,
            )

    async def _flip(self, batch: _Batch) -> None:
        """Turn the ledger's entries to written; leave in the batch the rows to write."""
        keys = [row.key for row in batch.rows]
        ids = [row.message_id for row in batch.rows]
        batch.flipped = {k for (k,) in await self._session.execute(_FLIP, [keys, ids, keys])}
        if rest := [key for key in keys if key not in batch.flipped]:
            known = dict(await self._session.execute(_KNOWN, [rest]))
            days = {key: _partition(key) for key in rest}
            kept = {name for (name,) in await self._session.execute(_DAYS, [[*days.values()]])}
            for key in rest:
                if known.get(key) == batch.entries[key].message_id:
                    batch.done.append(key)
                elif key in known or days[key] in kept:
                    batch.lost.append(key)
            batch.leave_out({*batch.done, *batch.lost})

    async def _claim_events(self, batch: _Batch) -> None:
        """Enter in the ledger the events that the rows are now known to be."""
        named = {row.key: batch.events[row.key] for row in batch.rows if row.key in batch.events}
        if not named:
            return
        first = {event: key for key, event in reversed(named.items())}
        ids = [batch.entries[key].message_id for key in first.values()]
        claimed = await self._session.execute(_CLAIM, [self._sink_plan.id, [*first], ids])
        batch.claimed = {first[event]: event for (event,) in claimed}
        known = named.keys() - batch.claimed.keys()
        batch.done += known
        batch.leave_out(known)

    async def _write_rows(self, rows: Sequence[Row]) -> dict[str, DatabaseFault]:
        """Write the rows that the database takes; return why it rejects the others, by key."""
        rejected: dict[str, DatabaseFault] = {}
        await self._session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for start in range(0, len(rows), _SEARCH_ROWS):
            part = rows[start : start + _SEARCH_ROWS]
            found = await find_rejected(self._session, self._targets, part)
            await self._session.execute("RELEASE SAVEPOINT sqs2pg_rows")
            rejected.update((row.key, fault) for row, fault in found.values())
        return rejected

    async def _note(self, batch: _Batch) -> None:
        """Note in the quarantine and in the tally what became of the batch."""
        done = [*batch.done, *(row.key for row in batch.rows)]
        if done:
            await self._session.execute(_DONE, [[batch.entries[key].id for key in done]])
        if batch.faults:
            ids = [batch.entries[key].id for key in batch.faults]
            codes = [fault.code for fault in batch.faults.values()]
            details = [fault.detail for fault in batch.faults.values()]
            await self._session.execute(_STILL_BAD, [ids, codes, details])
        flipped, claimed = len(batch.flipped), len(batch.claimed)
        added = self._targets.count(batch.rows)
        if flipped or added.first or added.dropped:
            counts = [flipped + claimed, -flipped, added.first, added.dropped]
            await self._session.execute(_TALLY, [self._sink_plan.id, *counts])
        for name, rows in added.others:
            await self._session.execute(_TALLY_OTHER, [self._sink_plan.id, rows, name])


def _fitting(locked: Sequence[tuple[int, str, int]]) -> list[int]:
    """Return the leading ids whose bodies fit in memory together, no ledger key twice."""
    ids: list[int] = []
    keys: set[str] = set()
    left = BATCH_BYTES_MAX
    for number, key, size in locked:
        left -= size
        if ids and (left < 0 or key in keys):
            break
        ids.append(number)
        keys.add(key)
    return ids


def _partition(key: str) -> str:
    """The name of the ledger's day that a key belongs to while that day is kept."""
    return f"delivery_{ledger_key.day_of(ledger_key.sent_ms_of(key)):%Y%m%d}"

"""The books as a replay sees them: lock quarantined entries, flip them in the ledger, note what
became of them.

A message counts once: its ledger entry turns from quarantined to written in the transaction of its
rows, and an entry that is not quarantined any more was replayed already. If the ledger has
dropped the message's day, the quarantine entry's `replayed_at` tells whether it was replayed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping import ledger_key
from sqs2pg.message import Row
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.ledger import MARK_QUARANTINED, MESSAGE_OF_KEY
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.postgres.tally import enter_batch
from sqs2pg.postgres.target_copy import TargetChanges

BATCH_MAX = 500
BATCH_BYTES_MAX = 32 * 2**20
"""Bytes of sealed bodies in memory at once; a single body may be larger."""

_LABELS = "SELECT DISTINCT q.sealed_under FROM sqs2pg.quarantine q WHERE q.pipeline = %s"
# Read committed: an entry that another replay has locked is waited for, and left out if that replay
# has written it.
_LOCK = """SELECT q.id, q.key::text, octet_length(q.body) FROM sqs2pg.quarantine q
WHERE q.pipeline = %s AND q.id > %s AND q.id <= %s {which} ORDER BY q.id LIMIT %s FOR UPDATE"""
_FETCH = """SELECT id, key::text, message_id, attempts, sent_at, sealed_under, body, attributes
FROM sqs2pg.quarantine WHERE id = ANY(%s) ORDER BY id"""
_FLIP = """UPDATE sqs2pg.delivery d SET outcome = 'written'
FROM unnest(%s::uuid[], %s::text[]) AS e (key, message_id)
WHERE d.key = e.key AND d.message_id = e.message_id AND d.outcome = 'quarantined'
AND d.key = ANY(%s::uuid[]) RETURNING d.key::text"""
_DAYS = "SELECT name FROM unnest(%s::text[]) name WHERE to_regclass('sqs2pg.' || name) IS NOT NULL"
_CLAIM = """INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome, seen_at)
SELECT key, message_id, %s, 'written', now()
FROM unnest(%s::uuid[], %s::text[]) AS e (key, message_id) ORDER BY key
ON CONFLICT (key) DO NOTHING RETURNING key::text"""
_GIVE_UP_CLAIM = "DELETE FROM sqs2pg.delivery WHERE key = ANY(%s::uuid[])"
_DONE = "UPDATE sqs2pg.quarantine SET replayed_at = now() WHERE id = ANY(%s)"
_STILL_BAD = """UPDATE sqs2pg.quarantine q
SET reason = e.reason, detail = e.detail, attempts = q.attempts + 1,
    target = coalesce(nullif(e.target, ''), q.target)
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[]) AS e (id, reason, detail, target)
WHERE q.id = e.id"""


class SealedEntry(msgspec.Struct):
    """One entry of the quarantine with its sealed body."""

    id: int
    key: str
    message_id: str
    attempts: int
    sent_at: datetime
    sealed_under: str
    body: bytes
    attributes: bytes | None


async def labels(session: Session, pipeline: int, selection: Selection) -> list[str]:
    """Return the keys, by label, that the selected bodies are sealed under. Raises FatalFault."""
    which, values = selection.where()
    with explained():
        rows = await session.execute(_LABELS + which, [pipeline, *values])
    return [label for (label,) in rows]


async def lock_entries(
    session: Session, pipeline: int, selection: Selection, after: int, last: int
) -> dict[str, SealedEntry]:
    """Lock and return the next selected entries with ids in (after, last], by ledger key.

    At most `BATCH_MAX` of them and `BATCH_BYTES_MAX` of bodies. Raises psycopg.Error.
    """
    which, values = selection.where()
    locked = await session.execute(
        _LOCK.format(which=which), [pipeline, after, last, *values, BATCH_MAX]
    )
    ids = _fitting(locked)
    rows = await session.execute(_FETCH, [ids]) if ids else []
    entries = [SealedEntry(*row) for row in rows]
    return {entry.key: entry for entry in entries}


def _fitting(locked: Iterable[Sequence[object]]) -> list[int]:
    """Return the leading ids whose bodies fit in memory together, no ledger key twice."""
    ids: list[int] = []
    keys: set[object] = set()
    left = BATCH_BYTES_MAX
    for number, key, size in locked:
        assert isinstance(number, int)
        assert isinstance(size, int)
        left -= size
        if ids and (left < 0 or key in keys):
            break
        ids.append(number)
        keys.add(key)
    return ids


class Flip:
    """Takes the entries of one batch: quarantined in the ledger turns to written."""

    def __init__(
        self, pipeline: int, entries: Mapping[str, SealedEntry], events: Mapping[str, str]
    ) -> None:
        """`events`: ledger key of an entry -> that of its event, where the entry was quarantined
        before it had a name (`ledger.dedupe_key`).
        """
        self._pipeline = pipeline
        self._entries = entries
        self._events = events
        self.flipped: set[str] = set()
        self.claimed: dict[str, str] = {}
        """The events that the ledger did not have."""
        self.done: list[str] = []
        """Keys of entries whose rows are in the target already: only the note is missing."""
        self.lost: list[str] = []
        """Keys that the ledger lacks though their day is there, or has for another message."""

    async def take(self, session: Session, rows: Sequence[Row]) -> list[Row]:
        """Flip the entries and claim their events; return the rows that are left to write."""
        left = await self._flip(session, rows)
        return await self._claim_events(session, left)

    async def _flip(self, session: Session, rows: Sequence[Row]) -> list[Row]:
        keys = [row.key for row in rows]
        ids = [row.message_id for row in rows]
        self.flipped = {key for (key,) in await session.execute(_FLIP, [keys, ids, keys])}
        if rest := [key for key in keys if key not in self.flipped]:
            known = dict(await session.execute(MESSAGE_OF_KEY, [rest]))
            days = {key: _partition(key) for key in rest}
            kept = {name for (name,) in await session.execute(_DAYS, [[*days.values()]])}
            for key in rest:
                if known.get(key) == self._entries[key].message_id:
                    self.done.append(key)
                elif key in known or days[key] in kept:
                    self.lost.append(key)
        return _without(rows, {*self.done, *self.lost})

    async def _claim_events(self, session: Session, rows: Sequence[Row]) -> list[Row]:
        """Enter in the ledger the events that the rows are now known to be."""
        named = {row.key: self._events[row.key] for row in rows if row.key in self._events}
        if not named:
            return list(rows)
        first = {event: key for key, event in reversed(named.items())}
        ids = [self._entries[key].message_id for key in first.values()]
        claimed = await session.execute(_CLAIM, [self._pipeline, [*first], ids])
        self.claimed = {first[event]: event for (event,) in claimed}
        known = named.keys() - self.claimed.keys()
        self.done += known
        return _without(rows, known)

    async def put_back(self, session: Session, keys: Collection[str]) -> None:
        """Flip back the entries of rows that are rejected, and give up their events."""
        await session.execute(MARK_QUARANTINED, [[key for key in keys if key in self.flipped]])
        self.flipped.difference_update(keys)
        given_up = [self.claimed.pop(key) for key in keys if key in self.claimed]
        await session.execute(_GIVE_UP_CLAIM, [given_up])

    async def note(
        self,
        session: Session,
        written: Sequence[Row],
        faults: Mapping[str, PermanentFault],
        changes: TargetChanges,
    ) -> None:
        """Note in the quarantine and in the tally what became of the batch.

        `faults` are the reasons of entries that stay quarantined, by ledger key.
        """
        if done := [*self.done, *(row.key for row in written)]:
            await session.execute(_DONE, [[self._entries[key].id for key in done]])
        if faults:
            ids = [self._entries[key].id for key in faults]
            codes = [fault.code for fault in faults.values()]
            details = [fault.detail for fault in faults.values()]
            tables = [fault.table for fault in faults.values()]
            await session.execute(_STILL_BAD, [ids, codes, details, tables])
        flipped, claimed = len(self.flipped), len(self.claimed)
        if flipped or changes.dropped or any(changes.total):
            # Messages by how the ledger's counts change.
            counts = {"written": flipped + claimed, "quarantined": -flipped}
            await session.execute(enter_batch(self._pipeline, changes, **counts, kind="replay"))


def _without(rows: Sequence[Row], keys: Collection[str]) -> list[Row]:
    return [row for row in rows if row.key not in keys]


def _partition(key: str) -> str:
    """Return the name of the ledger's day that a key belongs to while that day is kept."""
    return f"delivery_{ledger_key.day_of(ledger_key.sent_ms_of(key)):%Y%m%d}"

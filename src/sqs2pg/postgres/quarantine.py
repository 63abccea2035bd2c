"""Quarantine: list the entries, open and purge them.

Reasons are codes and details are names. Bodies are sealed (`dead_letter_copy.py`), so that neither
the table nor the server's log can quote them.

Promises: a body is opened only after an audit row that says so is committed. A purged row is
counted in the same transaction, so that the books still balance. Replay is `pipeline/replay.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.keys.aead import open_sealed
from sqs2pg.keys.keyring import Keyring
from sqs2pg.message import SYSTEM_ATTRIBUTES, MessageAttribute, SystemAttributes
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import READ_COMMITTED, Session
from sqs2pg.postgres.dead_letter_copy import ATTRIBUTES, associated_data
from sqs2pg.postgres.sqlstate import explained, retryable
from sqs2pg.settings import SYSTEM

PURGE_BATCH = 5_000
"""Rows that one transaction of a purge deletes, at most, as `sqs2pg.purge_expired` does."""

COLUMNS = """q.id, q.message_id, q.reason, q.detail, q.target, q.attempts, q.received_at,
    q.sent_at, q.replayed_at, q.sealed_under"""
"""Those of an Entry except its size, which only a role that may read bodies can tell."""
_ENTRIES = f"SELECT {COLUMNS} FROM sqs2pg.quarantine q WHERE q.pipeline = %s"
_ENTRY = f"""SELECT {COLUMNS}, octet_length(q.body), q.amended
FROM sqs2pg.quarantine q WHERE q.pipeline = %s AND q.id = %s"""
_COUNTS = "SELECT q.reason, count(*) FROM sqs2pg.quarantine q WHERE q.pipeline = %s"
_EXTENT = """SELECT count(*), count(*) FILTER (WHERE q.replayed_at IS NULL), coalesce(max(q.id), 0)
FROM sqs2pg.quarantine q WHERE q.pipeline = %s"""
_BODY = """SELECT key::text, message_id, sealed_under, body
FROM sqs2pg.quarantine WHERE pipeline = %s AND id = %s"""
# Rows that a replay has locked are skipped. `purged` counts the ledger entries that lose their row:
# not those of messages that were replayed since, nor those whose ledger day was dropped.
_PURGE = """WITH doomed AS MATERIALIZED (
    SELECT q.id FROM sqs2pg.quarantine q WHERE q.pipeline = %s {which}
    ORDER BY q.id LIMIT %s FOR UPDATE SKIP LOCKED),
gone AS (
    DELETE FROM sqs2pg.quarantine q USING doomed WHERE q.id = doomed.id
    RETURNING q.key, q.message_id, q.replayed_at)
SELECT count(*), count(*) FILTER (WHERE replayed_at IS NULL),
       count(*) FILTER (WHERE replayed_at IS NULL AND EXISTS (
           SELECT FROM sqs2pg.delivery d WHERE d.key = gone.key
           AND d.message_id = gone.message_id AND d.outcome = 'quarantined'))
FROM gone"""
_PURGE_EXPIRED = "SELECT purged, sequence, hash FROM sqs2pg.purge_expired({pipeline})"
_TALLY = "INSERT INTO sqs2pg.tally (pipeline, kind, purged) VALUES (%s, 'purge', %s)"


class Entry(msgspec.Struct, frozen=True):
    """One row of the quarantine, without its body."""

    id: int
    message_id: str
    reason: str
    detail: str
    table: str
    """`schema.table` that its rows are for; empty where that is not known."""
    attempts: int
    """Deliveries, and replays that failed."""
    received_at: datetime
    sent_at: datetime
    replayed_at: datetime | None
    sealed_under: str
    body_bytes: int | None = None
    """The size of the sealed body; None in a listing."""
    amended: int | None = None
    """The act of the audit that wrote a mended body in its place; None in a listing."""


class Selection(msgspec.Struct, frozen=True):
    """Selects the entries that match every given filter."""

    ids: tuple[int, ...] = ()
    reason: str | None = None
    message_id: str | None = None
    since: datetime | None = None
    """Quarantined from then on."""
    older_than_days: int | None = None
    """Quarantined more than this many times 24 hours ago."""
    open_only: bool = False
    """Only entries that were not replayed."""

    def where(self) -> tuple[str, list[Any]]:
        """Return the conditions as SQL on the alias `q`, each led by AND, and their values."""
        filters = {
            "q.id = ANY(%s)": list(self.ids) or None,
            "q.reason = %s": self.reason,
            "q.message_id = %s": self.message_id,
            "q.received_at >= %s": self.since,
            "q.received_at < now() - %s * interval '24 hours'": self.older_than_days,
        }
        given = {clause: value for clause, value in filters.items() if value is not None}
        clauses = [*given, *(["q.replayed_at IS NULL"] if self.open_only else [])]
        return "".join(f" AND {clause}" for clause in clauses), list(given.values())

    def __str__(self) -> str:
        """Return the filters in words, at most a few hundred characters, for the audit."""
        shown = ", ".join(map(str, self.ids[:12])) + (", …" if len(self.ids) > 12 else "")
        parts = [
            f"ids {shown}" if self.ids else "",
            f"reason {self.reason}" if self.reason is not None else "",
            f"older than {self.older_than_days} days" if self.older_than_days is not None else "",
        ]
        return " and ".join(filter(None, parts)) or "all"


class Extent(msgspec.Struct, frozen=True):
    """What a selection matches at one instant."""

    entries: int
    open: int
    """Entries that were not replayed."""
    last_id: int
    """0 where nothing matches. Messages that are quarantined later get higher ids."""


class Purged(msgspec.Struct):
    """What a purge has deleted so far."""

    purged: int = 0
    never_replayed: int = 0


def system_attributes(
    sent_ms: int, attempts: int, kept: dict[str, MessageAttribute] | None
) -> SystemAttributes:
    """Return what SQS said of the message of an entry. `kept` are the attributes opened."""
    said: dict[str, Any] = {"SentTimestamp": sent_ms, "ApproximateReceiveCount": attempts}
    for name in SYSTEM_ATTRIBUTES:
        if kept and (found := kept.get(SYSTEM + name)) is not None:
            said[name] = found.string_value
    return msgspec.convert(said, SystemAttributes, strict=False)


def open_body(
    keyring: Keyring, ledger_key: str, message_id: str, sealed_under: str, sealed: bytes
) -> str:
    """Return the body as it was received.

    Raises KeyFault where its key is not in the keyring, Sqs2pgError where it does not open.
    """
    key = keyring.quarantine_key_of(sealed_under)
    body = open_sealed(key, sealed, associated_data(ledger_key, message_id))
    return body.decode("utf-8", "surrogatepass")


def open_attributes(
    keyring: Keyring, ledger_key: str, message_id: str, sealed_under: str, sealed: bytes | None
) -> dict[str, MessageAttribute] | None:
    """Return the message attributes kept with a body; None where there are none. Raises as
    `open_body`.
    """
    if sealed is None:
        return None
    key = keyring.quarantine_key_of(sealed_under)
    opened = open_sealed(key, sealed, associated_data(ledger_key, message_id, ATTRIBUTES))
    return msgspec.json.decode(opened, type=dict[str, MessageAttribute])


async def entries(
    session: Session, pipeline: int, selection: Selection, *, limit: int = 100
) -> list[Entry]:
    """Return the newest entries of the selection first, at most `limit`."""
    which, values = selection.where()
    query = f"{_ENTRIES}{which} ORDER BY q.id DESC LIMIT %s"
    return [Entry(*row) for row in await _read(session, query, [pipeline, *values, limit])]


async def entry(session: Session, pipeline: int, number: int) -> Entry:
    """Return one entry. Raises SettingsError where there is no entry with that number."""
    found = await _read(session, _ENTRY, [pipeline, number])
    if not found:
        raise no_entry(number)
    return Entry(*found[0])


def no_entry(*numbers: int) -> SettingsError:
    """Return the error for numbers that are not in the quarantine."""
    shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    return SettingsError(
        f"the quarantine has no entry {shown}",
        code="no_entry",
        hint="`sqs2pg quarantine list` shows them",
    )


async def counts(session: Session, pipeline: int, selection: Selection) -> dict[str, int]:
    """Return how many entries the selection has per reason, the most frequent reason first."""
    which, values = selection.where()
    query = f"{_COUNTS}{which} GROUP BY q.reason ORDER BY 2 DESC, 1"
    return dict(await _read(session, query, [pipeline, *values]))


async def measure(session: Session, pipeline: int, selection: Selection) -> Extent:
    """Return what the selection matches now. Raises SettingsError for ids that do not exist."""
    which, values = selection.where()
    [row] = await _read(session, _EXTENT + which, [pipeline, *values])
    extent = Extent(*row)
    wanted = set(selection.ids)
    if extent.entries < len(wanted):
        found = await entries(session, pipeline, selection, limit=len(wanted))
        raise no_entry(*sorted(wanted - {one.id for one in found}))
    return extent


async def unseal(
    session: Session, pipeline: int, number: int, keyring: Keyring, *, reason: str, ticket: str
) -> str:
    """Return the body of one entry as it was received.

    An audit row with the reason (1 to 500 characters) and ticket (at most 100) is committed
    durably before the body is fetched. Raises SettingsError for an entry that does not exist or a
    reason that cannot be recorded, KeyFault where the key is missing, Sqs2pgError where the body
    does not open.
    """
    reason, ticket = audit.stated_reason(reason, ticket, hint="say why the body is opened")
    found = await entry(session, pipeline, number)
    keyring.quarantine_key_of(found.sealed_under)  # without it nothing would be opened
    await audit.record(
        session,
        "unseal",
        subject=f"quarantine entry {number}, message {found.message_id[:200]}",
        reason=reason,
        ticket=ticket,
    )
    rows = await _read(session, _BODY, [pipeline, number])
    if not rows:  # purged between the two
        raise no_entry(number)
    return open_body(keyring, *rows[0])


async def purge(
    session: Session,
    pipeline: int,
    selection: Selection,
    *,
    report: Purged | None = None,
    last_id: int | None = None,
    because: str = "",
) -> Purged:
    """Delete the entries of a selection for good, up to `last_id`; return how many.

    In transactions of `PURGE_BATCH` rows, each with its tally row and its audit row. `report` is
    updated as they commit. Entries that a replay has locked are skipped. May be repeated.

    Raises FatalFault where the database refuses.
    """
    with explained():
        return await _purge(session, pipeline, selection, report or Purged(), last_id, because)


async def _purge(
    session: Session,
    pipeline: int,
    selection: Selection,
    report: Purged,
    last_id: int | None,
    because: str,
) -> Purged:
    which, values = selection.where()
    if last_id is not None:
        which, values = f"{which} AND q.id <= %s", [*values, last_id]
    statement = _PURGE.format(which=which)
    deleted = PURGE_BATCH
    while deleted == PURGE_BATCH:
        async with session.transaction(mode=READ_COMMITTED):
            [(deleted, never_replayed, unbooked)] = await session.execute(
                statement, [pipeline, *values, PURGE_BATCH]
            )
            if deleted:
                await session.execute(_TALLY, [pipeline, unbooked])
                subject = (
                    f"pipeline {pipeline}, {deleted} quarantine entries, "
                    f"{never_replayed} never replayed: {selection}"
                )
                anchor = await audit.append(session, "purge", subject=subject, reason=because)
        if deleted:
            audit.announce("purge", anchor)
        report.purged += deleted
        report.never_replayed += never_replayed
    return report


async def purge_expired(session: Session, pipeline: int) -> int:
    """Delete entries that are past the retention on record (`migrate` sets it); return how many.

    For the pipeline's maintenance: several processes may call it at once. Raises TransientFault
    where the database is away or refuses; nothing is lost by trying again later.
    """
    purged = 0
    count = PURGE_BATCH
    with retryable(
        "expired quarantine entries could not be purged",
        hint="run `sqs2pg migrate` as the owner of the schema, which grants what is missing",
    ):
        while count == PURGE_BATCH:
            purge = _PURGE_EXPIRED.format(pipeline=int(pipeline))
            async with session.transaction(purge, mode=READ_COMMITTED) as transaction:
                [(count, *head)] = transaction.opened
            if count:
                audit.announce("purge", audit.Anchor(*head))
            purged += count
    return purged


async def _read(session: Session, query: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    with explained():
        return await session.execute(query, parameters)

"""Verify: compare the books with each other, in one snapshot.

Each batch's transaction writes four books: the tally counts what was done, the ledger names each
message, the quarantine holds the bad ones, the target has the rows. A row that is deleted, added or
changed in one of them shows as a difference to another. Runs in one REPEATABLE READ transaction, so
that a running pipeline does not disturb it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.ledger_key import delivery_key
from sqs2pg.postgres.accepted_rows import AcceptedRows
from sqs2pg.postgres.audit import check_chain
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.digest import digest_agrees
from sqs2pg.postgres.others_rows import ACCEPT, ROW_SECURITY, Counting, not_seen, read_counting
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.postgres.tally import rows_added

SNAPSHOT = "ISOLATION LEVEL REPEATABLE READ READ ONLY"

_TALLY = """SELECT coalesce(sum(written), 0)::bigint, coalesce(sum(quarantined), 0)::bigint,
       coalesce(sum(duplicate), 0)::bigint, coalesce(sum(purged), 0)::bigint
FROM sqs2pg.tally WHERE pipeline = %s"""
_LEDGER = """SELECT count(*) FILTER (WHERE outcome = 'written'),
       count(*) FILTER (WHERE outcome = 'quarantined')
FROM sqs2pg.delivery WHERE pipeline = %s"""
# What the key keeps (mapping/ledger_key.py) must be its message's, so a changed id or key shows.
# That is the tail of a MessageId of version 4 and of an archived line's name, else bits of the
# SHA-256. Lines are known by the archives that `sqs2pg.backfill` lists: no id of a queue passes for
# one.
_FORGED = """SELECT count(*) FROM sqs2pg.delivery d
CROSS JOIN LATERAL (
    SELECT encode(substr(sha256(convert_to(d.message_id, 'UTF8')), 1, 10), 'hex') AS bits) hashed
WHERE d.pipeline = %s AND right(d.key::text, 21) <> CASE
    WHEN d.message_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
        OR left(d.message_id, 28) IN (
            SELECT substr(a.mark, 1, 8) || '-' || substr(a.mark, 9, 4) || '-8' ||
                   substr(a.mark, 13, 3) || '-8' || substr(a.mark, 16, 3) || '-' ||
                   substr(a.mark, 19, 4)
            FROM (SELECT encode(sha256(convert_to(b.pipeline::text, 'UTF8') || decode('00', 'hex')
                                       || convert_to(b.digest, 'UTF8')), 'hex') AS mark
                  FROM sqs2pg.backfill b) a)
    THEN substr(d.message_id, 16)
    ELSE substr(hashed.bits, 1, 3) || '-' ||
         translate(substr(hashed.bits, 5, 1), '0123456789abcdef', '89ab89ab89ab89ab') ||
         substr(hashed.bits, 6, 3) || '-' || substr(hashed.bits, 9)
END"""
# By message id, both ways: quarantined in one book and not in the other. The ledger no longer knows
# anything about the days that were dropped.
_FIRST_DAY = """SELECT sqs2pg.day_key(min(to_date(right(c.relname, 8), 'YYYYMMDD')))::text
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'sqs2pg.delivery'::regclass AND c.relname ~ '^delivery_[0-9]{8}$'"""
_QUARANTINE_ONLY = """SELECT count(*) FROM sqs2pg.quarantine q
WHERE q.pipeline = %s AND NOT EXISTS (
    SELECT FROM sqs2pg.delivery d WHERE d.key = q.key AND d.message_id = q.message_id
    AND d.outcome = CASE WHEN q.replayed_at IS NULL THEN 'quarantined' ELSE 'written' END
        ::sqs2pg.delivery_outcome)"""
_LEDGER_ONLY = """SELECT count(*) FROM sqs2pg.delivery d
WHERE d.pipeline = %s AND d.outcome = 'quarantined' AND NOT EXISTS (
    SELECT FROM sqs2pg.quarantine q
    WHERE q.key = d.key AND q.message_id = d.message_id AND q.replayed_at IS NULL)"""
_TARGETS = f"""SELECT mine.target,
       (SELECT first.baseline_rows FROM sqs2pg.target first WHERE first.target = mine.target
        ORDER BY first.pipeline LIMIT 1),
       {rows_added("mine.target")}
FROM sqs2pg.target mine WHERE mine.pipeline = %s ORDER BY mine.position"""


class VerifyReport(msgspec.Struct, omit_defaults=True):
    """What was compared. The numbers count messages."""

    written: int
    duplicate: int
    quarantined: int
    differences: list[str]
    notes: list[str] = []
    """What could not be compared, or is not seen: no differences."""
    accepted: list[AcceptedRows] = []
    """What was accepted before the books were compared."""

    @property
    def ok(self) -> bool:
        """Whether all books agree."""
        return not self.differences


async def verify(
    session: Session,
    pipeline: int,
    *,
    since: datetime | None = None,
    dedupe: bool = False,
    anchor: str | None = None,
    deep: bool = False,
) -> VerifyReport:
    """Compare the books of one pipeline; return every difference in words and counts.

    `since` limits the comparison by message id to messages sent from then on; counts that only
    exist as totals are then left out. `dedupe`: keys name events, so they do not depend on the
    MessageId. `anchor`, `SEQUENCE:HASH` as logged after an act, must be in the audit. `deep`: also
    compare which rows the targets hold, where a digest of them is kept.

    Raises FatalFault where a book cannot be read, SettingsError for an anchor of another form, and
    `no_digest` where none is kept.
    """
    with explained():
        async with session.transaction(mode=SNAPSHOT):
            report = await _compare(session, pipeline, since, dedupe, deep)
            report.differences += await check_chain(session, anchor)
    return report


async def _compare(
    session: Session, pipeline: int, since: datetime | None, dedupe: bool, deep: bool
) -> VerifyReport:
    differences: list[str] = []
    notes: list[str] = []

    def compare(what: str, found: int, expected: int) -> None:
        if told := _difference(what, found, expected):
            differences.append(told)

    async def count(query: str, bound: str = "") -> list[int]:
        limit, values = (f" AND {bound} >= %s::uuid", [first]) if bound and first else ("", [])
        [row] = await session.execute(query + limit, [pipeline, *values])
        return list(row)

    first = _first_key(since) if since else ""
    [written, quarantined] = await count(_LEDGER, "key")
    [tally_written, tally_quarantined, duplicate, purged] = await count(_TALLY)
    if not dedupe:
        [forged] = await count(_FORGED, "d.key")
        compare("ledger entries whose key is not their message's", forged, 0)
    if since is None:
        [only_ledger] = await count(_LEDGER_ONLY)
        compare("quarantined in the ledger without a quarantine row", only_ledger, purged)
        compare("messages written, ledger against tally", written, tally_written)
        compare("messages quarantined, ledger against tally", quarantined, tally_quarantined)
        targets, notes = await _compare_targets(session, pipeline, deep)
        differences += targets
    [[first_day]] = await session.execute(_FIRST_DAY)
    first = max(first, first_day or "")
    [only_quarantine] = await count(_QUARANTINE_ONLY, "q.key")
    compare("quarantine rows without their ledger entry", only_quarantine, 0)
    return VerifyReport(written, duplicate, quarantined, differences, notes)


async def _compare_targets(
    session: Session, pipeline: int, deep: bool
) -> tuple[list[str], list[str]]:
    """Return the differences of the targets' counts, and what is not seen of them."""
    differences, notes = [], []
    digests = 0
    for table, baseline, added in await session.execute(_TARGETS, [pipeline]):
        notes += [f"{table}: {note}" for note in await not_seen(session, table)]
        counting = await read_counting(session, table)
        if counting.view:
            continue
        # The server itself quoted the name when it was registered.
        [[rows]] = await session.execute(f"SELECT {counting.of(table)}")
        if told := _difference(
            f"rows of {table}, counted against tally and baseline", rows, baseline + added
        ):
            differences.append(f"{told}; {_remedy(counting, rows - baseline - added)}")
        if deep and not counting.gone:
            agrees = await digest_agrees(session, table)
            digests += agrees is not None
            if agrees is None:
                notes.append(f"{table}: no digest of its rows is kept")
            elif not agrees:
                remedy = _remedy(counting, None)
                differences.append(
                    f"rows of {table}, by the digest of key and version: they are not those that "
                    f"the books say; {remedy}"
                )
    if deep and not digests:
        raise SettingsError(
            "no digest is kept of any table of this pipeline",
            code="no_digest",
            hint="give the table a `key`, leave out `digest = false`, and run `sqs2pg migrate` as "
            "its owner; the digest begins with the rows that are there then",
        )
    return differences, notes


def _remedy(counting: Counting, more: int | None) -> str:
    """Return what to do about a table that has `more` rows than expected, or fewer, or others."""
    if counting.row_security:
        return f"{ROW_SECURITY}: verify with one that has BYPASSRLS"
    if counting.gone:
        what = "dropped the table"
    else:
        what = f"{'changed' if more is None else 'added' if more > 0 else 'deleted'} rows"
    return f"if others {what} on purpose, record it: {ACCEPT}"


def _difference(what: str, found: int, expected: int) -> str:
    if found == expected:
        return ""
    return f"{what}: {found} found, {expected} expected ({found - expected:+})"


def _first_key(since: datetime) -> str:
    stamp = delivery_key("", int(since.timestamp() * 1000))[:13]
    return f"{stamp}-0000-0000-000000000000"

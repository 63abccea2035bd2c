"""Verify: hold the books against each other, in one snapshot.

Four books are written by each batch's transaction and by nothing else: the tally counts what was
done, the ledger names each message, the quarantine holds what was set aside, the target has the
rows. A row deleted, added or changed in one of them shows as a difference to another. Runs in
one REPEATABLE READ transaction, so that a running pipeline does not blur it.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import psycopg

from sqs2pg.database import Session
from sqs2pg.ledger import delivery_key
from sqs2pg.migrate import explain

_TALLY = """SELECT coalesce(sum(written), 0), coalesce(sum(quarantined), 0),
       coalesce(sum(duplicate), 0)
FROM sqs2pg.tally WHERE pipeline = %s"""
_LEDGER = """SELECT count(*) FILTER (WHERE outcome = 'written'),
       count(*) FILTER (WHERE outcome = 'quarantined')
FROM sqs2pg.delivery WHERE pipeline = %s"""
# By message id, both ways: set aside in one book and not in the other.
_QUARANTINE_ONLY = """SELECT count(*) FROM sqs2pg.quarantine q
WHERE q.pipeline = %s AND NOT EXISTS (
    SELECT FROM sqs2pg.delivery d WHERE d.key = q.key AND d.message_id = q.message_id
    AND d.outcome = CASE WHEN q.replayed_at IS NULL THEN 'quarantined' ELSE 'written' END
        ::sqs2pg.delivery_outcome)"""
_LEDGER_ONLY = """SELECT count(*) FROM sqs2pg.delivery d
WHERE d.pipeline = %s AND d.outcome = 'quarantined' AND NOT EXISTS (
    SELECT FROM sqs2pg.quarantine q
    WHERE q.key = d.key AND q.message_id = d.message_id AND q.replayed_at IS NULL)"""
_TARGET = """SELECT p.target, p.baseline_rows,
       (SELECT coalesce(sum(t.target_rows), 0) FROM sqs2pg.tally t
        JOIN sqs2pg.pipeline q ON q.id = t.pipeline WHERE q.target = p.target)
FROM sqs2pg.pipeline p
WHERE p.target = (SELECT target FROM sqs2pg.pipeline WHERE id = %s)
ORDER BY p.id LIMIT 1"""


class Report(msgspec.Struct):
    """What was compared; messages."""

    written: int
    duplicate: int
    quarantined: int
    differences: list[str]

    @property
    def ok(self) -> bool:
        """Whether every book agrees with every other."""
        return not self.differences


async def verify(session: Session, pipeline: int, *, since: datetime | None = None) -> Report:
    """Compare the books of one pipeline; return every difference in words and counts.

    `since` limits the comparison by message id to messages sent from then on; counts that only
    exist as totals are then left out. Raises FatalFault where a book cannot be read.
    """
    try:
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        report = await _compare(session, pipeline, since)
    except psycopg.Error as error:
        raise explain(error) from None
    finally:
        await session.rollback()
    return report


async def _compare(session: Session, pipeline: int, since: datetime | None) -> Report:
    bounds = [pipeline]
    ledger, quarantine_only, ledger_only = _LEDGER, _QUARANTINE_ONLY, _LEDGER_ONLY
    if since is not None:
        ms = int(since.timestamp() * 1000)
        first = delivery_key("", ms)[:14]
        key = f"{first}000-0000-000000000000"
        ledger += f" AND key >= '{key}'"
        quarantine_only += f" AND q.key >= '{key}'"
        ledger_only += f" AND d.key >= '{key}'"
    [(tally_written, tally_quarantined, duplicate)] = await session.execute(_TALLY, bounds)
    [(written, quarantined)] = await session.execute(ledger, bounds)
    [(only_quarantine,)] = await session.execute(quarantine_only, bounds)
    [(only_ledger,)] = await session.execute(ledger_only, bounds)
    differences: list[str] = []

    def compare(what: str, found: int, expected: int) -> None:
        if found != expected:
            differences.append(f"{what}: {found} found, {expected} expected ({found - expected:+})")

    compare("quarantine rows without their ledger entry", only_quarantine, 0)
    compare("quarantined in the ledger without a quarantine row", only_ledger, 0)
    if since is None:
        compare("messages written, ledger against tally", written, int(tally_written))
        compare("messages quarantined, ledger against tally", quarantined, int(tally_quarantined))
        [(table, baseline, added)] = await session.execute(_TARGET, bounds)
        # The name comes from the catalog, quoted by the server itself when it was registered.
        [(rows,)] = await session.execute(f"SELECT count(*) FROM {table}")
        compare(f"rows of {table}, counted against tally and baseline", rows, baseline + added)
    return Report(int(written), int(duplicate), int(quarantined), differences)

"""Hourly upkeep of the books by a running pipeline: days ahead, days past retention, the tally.

Each step is one short transaction by a function of the schema's owner, so that the ingest role owns
nothing. Any number of workers may run it; a lock lets one in at a time. A step that fails is tried
again an hour later. No message depends on it: the sink attaches a missing day by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqs2pg.mapping.ledger_key import today
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.migrate import DAYS_AHEAD
from sqs2pg.postgres.partitions import extend
from sqs2pg.postgres.quarantine import purge_expired
from sqs2pg.postgres.sqlstate import retryable
from sqs2pg.settings import Settings

_UNDATED_AT_ONCE = 10_000


async def maintain(session: Session, settings: Settings, pipeline: int) -> dict[str, int]:
    """Run every step once; return how many of each thing were attached, dropped or merged.

    Raises TransientFault where a step failed. May be repeated at any time.
    """
    keep_from = today() - timedelta(days=settings.ledger.retention_days)
    with retryable("upkeep of the ledger failed"):
        ahead = [today() - timedelta(days=1), today() + timedelta(days=DAYS_AHEAD)]
        [(attached,)] = await session.execute("SELECT sqs2pg.attach_days(%s, %s)", ahead)
        dropped = 0
        while (await session.execute("SELECT sqs2pg.drop_day(%s)", [keep_from]))[0][0]:
            dropped += 1
        forgotten = await _drop_undated(session, keep_from.isoformat())
        yesterday = datetime.now(UTC) - timedelta(days=1)
        [(merged,)] = await session.execute("SELECT sqs2pg.compact_tally(%s)", [yesterday])
    periods_attached, periods_dropped = await extend(session)
    purged = await purge_expired(session, pipeline, settings.quarantine.retention_days)
    return {
        "days_attached": attached,
        "days_dropped": dropped,
        "entries_forgotten": forgotten,
        "tally_rows_merged": merged,
        "periods_attached": periods_attached,
        "periods_dropped": periods_dropped,
        "quarantine_purged": purged,
    }


async def _drop_undated(session: Session, keep_from: str) -> int:
    total = 0
    count: int
    while True:
        [(count,)] = await session.execute(
            "SELECT sqs2pg.drop_undated(%s::timestamptz, %s)", [keep_from, _UNDATED_AT_ONCE]
        )
        total += count
        if count < _UNDATED_AT_ONCE:
            return total

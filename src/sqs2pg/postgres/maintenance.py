"""Hourly upkeep of the books by a running pipeline: days ahead, days past retention, the tally.

Each step is one short transaction by a function of the schema's owner, so that the ingest role owns
nothing. The functions delete what is past the retention that `migrate` has recorded: the settings
of this process have no say. Any number of workers may run it; a lock lets one in at a time. A step
that fails is tried again an hour later. No message depends on it: the sink attaches a missing day
by itself.
"""

from __future__ import annotations

from datetime import timedelta

from sqs2pg.mapping.ledger_key import today
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.migrate import DAYS_AHEAD
from sqs2pg.postgres.partitions import extend
from sqs2pg.postgres.quarantine import purge_expired
from sqs2pg.postgres.sqlstate import retryable


async def maintain(session: Session, pipeline: int) -> dict[str, int]:
    """Run every step once; return how many of each thing were attached, dropped or merged.

    Raises TransientFault where a step failed. May be repeated at any time.
    """
    with retryable("upkeep of the ledger failed"):
        ahead = [today() - timedelta(days=1), today() + timedelta(days=DAYS_AHEAD)]
        [(attached,)] = await session.execute("SELECT sqs2pg.attach_days(%s, %s)", ahead)
        dropped = 0
        while (await session.execute("SELECT sqs2pg.drop_day()"))[0][0]:
            dropped += 1
        forgotten = await _drop_undated(session)
        [(merged,)] = await session.execute("SELECT sqs2pg.compact_tally()")
    periods = await extend(session)
    purged = await purge_expired(session, pipeline)
    return {
        "days_attached": attached,
        "days_dropped": dropped,
        "entries_forgotten": forgotten,
        "tally_rows_merged": merged,
        "periods_attached": periods.attached,
        "periods_dropped": periods.dropped,
        "rows_past_retention": periods.rows_removed,
        "quarantine_purged": purged,
    }


async def _drop_undated(session: Session) -> int:
    total = 0
    while count := (await session.execute("SELECT sqs2pg.drop_undated()"))[0][0]:
        total += count
    return total

"""Hourly upkeep of the books by a running pipeline: days ahead, days past retention, the tally.

Each step is one short transaction by a function of the schema's owner, so that the ingest role owns
nothing. The functions delete what is past the retention that `migrate` has recorded: the settings
of this process have no say. Any number of workers may run it; a lock lets one in at a time. A step
that fails is tried again an hour later. No message depends on it: the sink attaches a missing day
by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.ledger import attach_coming_days
from sqs2pg.postgres.partitions import extend
from sqs2pg.postgres.quarantine import purge_expired
from sqs2pg.postgres.sqlstate import retryable
from sqs2pg.postgres.unheld_values import drop_values

_TRIMMED = """SELECT DISTINCT target FROM sqs2pg.target
WHERE row_retention_days > 0 AND pg_catalog.to_regclass(target) IS NOT NULL ORDER BY 1"""
_TRIM = "SELECT part, page, removed FROM sqs2pg.trim_rows(%s, %s, %s)"


async def maintain(session: Session, pipeline: int, *, whole: bool = True) -> dict[str, int]:
    """Run every step once; return how many of each thing were attached, dropped or merged.

    Not `whole`: only the steps that are about this pipeline, where another one of the process has
    just done those of the whole database. A step that fails stops no other. Raises the first one's
    TransientFault at the end. May be repeated at any time.
    """
    done: dict[str, int] = {}
    faults: list[TransientFault] = []
    if whole:
        await _maintain_database(session, done, faults)
    try:
        done["quarantine_purged"] = await purge_expired(session, pipeline)
    except TransientFault as fault:
        faults.append(fault)
    if faults:
        raise faults[0]
    return done


async def _maintain_database(
    session: Session, done: dict[str, int], faults: list[TransientFault]
) -> None:
    for name, step in _STEPS.items():
        try:
            with retryable("upkeep of the ledger failed"):
                done[name] = await step(session)
        except TransientFault as fault:
            faults.append(fault)
    try:
        periods = await extend(session)
        done["periods_attached"] = periods.attached
        done["periods_dropped"] = periods.dropped
        done["rows_past_retention"] = periods.rows_removed
    except TransientFault as fault:
        faults.append(fault)


async def _attach_days(session: Session) -> int:
    attached, _ = await attach_coming_days(session)
    return attached


async def _drop_days(session: Session) -> int:
    dropped = 0
    while (await session.execute("SELECT sqs2pg.drop_day()"))[0][0]:
        dropped += 1
    return dropped


async def _drop_undated(session: Session) -> int:
    total = 0
    while count := (await session.execute("SELECT sqs2pg.drop_undated()"))[0][0]:
        total += count
    return total


async def _drop_tombstones(session: Session) -> int:
    total = 0
    while count := (await session.execute("SELECT sqs2pg.drop_tombstones()"))[0][0]:
        total += count
    return total


async def _trim_rows(session: Session) -> int:
    """Delete the rows of state tables that are past their retention, one range at a time."""
    total = 0
    for (target,) in await session.execute(_TRIMMED):
        part, page = 0, -1
        while part is not None:
            [(part, page, removed)] = await session.execute(_TRIM, [target, part, page])
            total += removed
    return total


async def _compact_tally(session: Session) -> int:
    merged: int
    [(merged,)] = await session.execute("SELECT sqs2pg.compact_tally()")
    return merged


_STEPS: dict[str, Callable[[Session], Awaitable[int]]] = {
    "days_attached": _attach_days,
    "days_dropped": _drop_days,
    "entries_forgotten": _drop_undated,
    "tombstones_dropped": _drop_tombstones,
    "state_rows_past_retention": _trim_rows,
    "tally_rows_merged": _compact_tally,
    "values_dropped": drop_values,
}

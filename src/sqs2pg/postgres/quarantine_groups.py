"""The quarantine by what its entries have in common: how many there are, since when, and a sample.

Reads no body, and shows no value: reasons are codes, details are names.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.sqlstate import explained

# The number of a record, or of a line of an object, does not tell one kind of fault from another.
_KINDS = {
    "detail": r"regexp_replace(q.detail, '(^record| \S+) \d+(?= |$)', '\1', 'g')",
    "code": "q.reason",
    "table": "q.target",
    "day": "to_char(q.received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
GROUPS = tuple(_KINDS)
"""What entries can be grouped by. `day`: when they were quarantined, in UTC."""

_GROUPED = """SELECT {kind}, array_agg(DISTINCT q.reason), count(*), min(q.received_at),
    max(q.received_at), max(q.id)
FROM sqs2pg.quarantine q WHERE q.pipeline = %s{which}
GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT %s"""


class Group(msgspec.Struct, frozen=True):
    """Entries that have one thing in common."""

    group: str
    """The detail, code, table or day; empty where entries have none."""
    codes: list[str]
    """Their reason codes, sorted."""
    messages: int
    first_at: datetime
    """When the first one was quarantined."""
    last_at: datetime
    sample_id: int
    """The newest one's id, for `quarantine show`."""


async def groups(
    session: Session, pipeline: int, selection: Selection, by: str, *, limit: int
) -> list[Group]:
    """Return the groups of a selection, the largest first, at most `limit`.

    `by` is one of GROUPS. Raises FatalFault where the database refuses.
    """
    which, values = selection.where()
    statement = _GROUPED.format(kind=_KINDS[by].replace("%", "%%"), which=which)
    with explained():
        found = await session.execute(statement, [pipeline, *values, limit])
    return [Group(name, sorted(codes), *rest) for name, codes, *rest in found]

"""Unknown fields on record: what messages had that no field of the mapping names.

Place in the flow: beside it. Each worker adds what it has counted every few seconds, on a
connection of its own; no message depends on it, and what was not added yet is lost with a worker.
Names are recorded only with `report_unknown`. No value ever is.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sqs2pg.errors import Stage
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import retryable

PATHS_MAX = 500
"""Different paths on record for one mapping; of further ones only the type is counted."""
SHOWN_MAX = 100

UNKNOWN_FIELDS = """SELECT path, type, seen, extract(epoch FROM last_at)::float8
FROM sqs2pg.unknown_field WHERE pipeline = %s AND mapping = %s
ORDER BY seen DESC, path, type LIMIT %s"""
_PATHS = "SELECT path, type FROM sqs2pg.unknown_field WHERE pipeline = %s AND mapping = %s"
# In one order, so that two workers that meet do not wait for each other.
_ADD = """INSERT INTO sqs2pg.unknown_field AS u (pipeline, mapping, path, type, seen)
SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS n (path, type, seen)
ORDER BY path, type
ON CONFLICT (pipeline, mapping, path, type)
DO UPDATE SET seen = u.seen + excluded.seen, last_at = now()"""
# Workers with an earlier mapping may still run.
_FORGET = """DELETE FROM sqs2pg.unknown_field
WHERE pipeline = %s AND mapping <> %s AND last_at < now() - interval '1 day'"""


class UnknownField(msgspec.Struct):
    """Values that no field of the mapping names, of one type."""

    path: str
    """As the `source` of a field; "" where its name is not recorded."""
    type: str
    """text, number, boolean, null, object or array."""
    seen: int
    latest_at: float
    """Seconds since the epoch."""


class UnknownFieldRegistry:
    """The record of one pipeline under one mapping."""

    def __init__(self, pipeline: int, mapping: str, *, names: bool) -> None:
        """`mapping`: a digest of the names that it knows. `names`: record the others' names."""
        self._pipeline = pipeline
        self._mapping = mapping
        self._names = names

    async def add(self, session: Session, counts: Mapping[tuple[str, str], int]) -> None:
        """Add counts by path and type. Raises TransientFault or FatalFault."""
        with retryable("unknown fields could not be recorded", stage=Stage.STATUS):
            recorded = await session.execute(_PATHS, [self._pipeline, self._mapping])
            known = {(path, type_) for path, type_ in recorded}
            added: dict[tuple[str, str], int] = {}
            for (path, type_), count in counts.items():
                place = (path if self._names else "", type_)
                if place not in known and len(known) >= PATHS_MAX:
                    place = ("", type_)
                known.add(place)
                added[place] = added.get(place, 0) + count
            if added:
                paths, types = zip(*added, strict=True)
                values = [self._pipeline, self._mapping, [*paths], [*types], [*added.values()]]
                await session.execute(_ADD, values)
            await session.execute(_FORGET, [self._pipeline, self._mapping])

    async def read(self, session: Session) -> list[UnknownField]:
        """Return what is on record, the most frequent first. Raises as `add`."""
        with retryable("unknown fields could not be read", stage=Stage.STATUS):
            values = [self._pipeline, self._mapping, SHOWN_MAX]
            return [UnknownField(*row) for row in await session.execute(UNKNOWN_FIELDS, values)]

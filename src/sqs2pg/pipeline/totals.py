"""What one run of a consumer did, in messages. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sqs2pg.message import RowChanges

COUNTED = (
    *("received", "written", "duplicate", "quarantined", "released"),
    *(f"rows_{name}" for name in RowChanges._fields),
)
"""The numbers of `Totals` that add up over processes."""


class Totals(msgspec.Struct):
    """What one run did; messages, and rows in their tables."""

    received: int = 0
    written: int = 0
    duplicate: int = 0
    quarantined: int = 0
    released: int = 0
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_superseded: int = 0
    rows_ignored: int = 0
    rows_deleted: int = 0
    object_lines: int | None = None
    """Lines of S3 objects that ended, duplicates too; None where the messages are the units."""
    isolated: list[str] = []
    """At the end: MessageIds on the queue that PostgreSQL does not take (`isolation.py`). Each of
    their deliveries counts as released.
    """
    seconds: float = 0.0
    """The whole run, including the wait for the queue to stay empty."""
    busy_seconds: float = 0.0
    """From the start to the last message settled."""

    def plus(self, later: Totals) -> Totals:
        """Return the sum of this run and one that followed it."""
        return Totals(
            **{name: getattr(self, name) + getattr(later, name) for name in COUNTED},
            object_lines=add_lines(self.object_lines, later.object_lines),
            isolated=later.isolated,
            seconds=round(self.seconds + later.seconds, 3),
            busy_seconds=round(self.seconds + later.busy_seconds, 3)
            if later.busy_seconds
            else self.busy_seconds,
        )

    @property
    def settled(self) -> int:
        """Messages that ended durably."""
        return self.written + self.duplicate + self.quarantined

    @property
    def messages_per_second(self) -> float:
        """Settled messages per second, from the start to the last one settled."""
        return round(self.settled / self.busy_seconds, 1) if self.busy_seconds else 0.0


def summed(parts: Iterable[Totals]) -> Totals:
    """Return the sum of runs that went on side by side."""
    total = Totals()
    for part in parts:
        for name in COUNTED:
            setattr(total, name, getattr(total, name) + getattr(part, name))
        total.object_lines = add_lines(total.object_lines, part.object_lines)
        total.isolated = sorted({*total.isolated, *part.isolated})
        total.seconds = max(total.seconds, part.seconds)
        total.busy_seconds = max(total.busy_seconds, part.busy_seconds)
    return total


def add_lines(one: int | None, other: int | None) -> int | None:
    """Return the sum of two `Totals.object_lines`."""
    return one if other is None else (one or 0) + other

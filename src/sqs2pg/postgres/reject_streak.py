"""Rows that the database rejects one after the other, all for the same reason.

Then the table or the mapping is at fault, not the messages: the process stops instead of moving a
whole queue to quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sqs2pg.errors import FatalFault
from sqs2pg.message import Row
from sqs2pg.postgres.sqlstate import DatabaseFault

ALL_REJECTED_MIN = 10
"""This many rows in a row, all rejected with one detail, stop the process."""


class Rejections(msgspec.Struct, frozen=True):
    """The rows of one batch, where the database rejected every one of them alike."""

    count: int = 0
    """0 where some were accepted, or the reasons differ."""
    detail: str = ""

    @classmethod
    def of(cls, rows: Sequence[Row], found: Mapping[str, DatabaseFault]) -> Rejections:
        """Return what to count of a batch's rows. `found` are the faults by ledger key."""
        details = {fault.detail for fault in found.values()}
        if len(found) < len(rows) or len(details) != 1:
            return cls()
        return cls(len(rows), details.pop())


class Streak:
    """Counts rows that were rejected alike, over the batches of all sinks of a process.

    A slow queue's batches hold one row each: one batch alone would never show that the table is
    at fault.
    """

    def __init__(self) -> None:
        self._before = Rejections()

    def refuse(self, alike: Rejections) -> None:
        """Raise FatalFault where the streak is too long once these are added."""
        count = self._with(alike).count
        if count >= ALL_REJECTED_MIN:
            raise FatalFault(
                f"the database rejects every one of {count} rows alike (SQLSTATE {alike.detail})",
                code="all_rejected",
                hint="the table or the mapping is at fault, not the messages; they stay on the "
                "queue",
            )

    def note(self, alike: Rejections) -> None:
        """Add a batch's rejections, once it is committed. A batch without any ends the streak."""
        self._before = self._with(alike)

    def _with(self, alike: Rejections) -> Rejections:
        if not alike.count or alike.detail != self._before.detail:
            return alike
        return Rejections(self._before.count + alike.count, alike.detail)

"""Refused lines: those of an archive or an object that PostgreSQL does not take, though it takes
the others.

Place in the flow: beside the retries of a backfill and of S3 objects, as `isolation.py` is beside
the consumer's. A trigger that times out for one line fails its whole batch. So when a batch has
failed again with the same code, its statements are rehearsed without rows. If PostgreSQL takes
them, the batch is halved, each part under a short timeout, until what is good is committed and what
is left are single lines.

No queue would hold such a line. A backfill leaves it behind: its number stands in
`sqs2pg.backfill`, the archive does not count as done, the run ends with exit code 1, and the next
run tries these lines first. Nobody runs a notification again: there the line is quarantined.

Bounds: REFUSED_MAX lines of one archive, or of one chunk of objects. As in `isolation.py`,
ALIKE_MIN refusals in a row with nothing written between them are taken for the table's fault.
"""

from __future__ import annotations

import structlog

from sqs2pg.errors import TransientFault
from sqs2pg.pipeline.refusals import (
    ALIKE_MIN,
    is_often_of_the_world,
    is_refused,
    is_search_due,
    may_be_of_a_message,
)
from sqs2pg.postgres.sink import Sink

REFUSED_MAX = 1_000
"""Lines that are refused, of one archive or one chunk. With more, writing it ends."""
_CONFIRMED = 2
"""Refusals in a row with one code after which a line that is tried alone counts as refused."""
_UNPROVEN_OF_THE_WORLD = 2
"""Refusals in a row that end a run, where the code most often is about server or network."""

log = structlog.get_logger(__name__)


class RefusedLines:
    """Judges which lines PostgreSQL does not take alone, for one writer."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._unproven = 0
        """Lines that were refused since the last one was written."""

    def note_written(self) -> None:
        """Note that PostgreSQL has taken a line."""
        self._unproven = 0

    async def is_of_a_line(
        self, fault: TransientFault, alike: int, lines: int, *, searching: bool
    ) -> bool:
        """Whether one of `lines` lines is at fault, after `alike` failures in a row with its code.

        `searching`: they are a part of a batch that was found to have such a line.
        """
        if not may_be_of_a_message(fault):
            return False
        if not searching:
            is_due = is_search_due(fault.code, alike)
        else:
            is_due = lines > 1 or alike >= _CONFIRMED
        return is_due and not await self.is_everything_refused()

    async def is_everything_refused(self) -> bool:
        """Whether PostgreSQL refuses a batch without lines, too."""
        return await is_refused(self._sink, "the rehearsal of a batch failed")

    def refuse(self, fault: TransientFault) -> bool:
        """Note a line that is refused alone; return whether the table may be at fault."""
        self._unproven += 1
        limit = _UNPROVEN_OF_THE_WORLD if is_often_of_the_world(fault.code) else ALIKE_MIN
        return self._unproven >= limit


def log_left(where: str, line: int, fault: TransientFault) -> None:
    """Log a line that is left behind. `line` counts from 0, the log from 1."""
    log.warning(
        "a line is left behind",
        where=where,
        line=line + 1,
        code=fault.code,
        **fault.named,
    )

"""Left lines: those of an archive that PostgreSQL does not take, though it takes the others.

Place in the flow: beside backfill's retries, as `isolation.py` is beside the consumer's. A trigger
that times out for one line fails its whole batch. So when a batch has failed again with the same
code, its statements are rehearsed without rows. If PostgreSQL takes them, the batch is halved, each
part under a short timeout, until what is good is committed and what is left are single lines.

No queue would hold such a line, and it is no line for the quarantine: it may be good. So it is left
behind. Its number stands in `sqs2pg.backfill`, the archive does not count as done, the run ends
with exit code 1, and the next run tries these lines first.

Bounds: LEFT_MAX lines of one archive. As in `isolation.py`, ALIKE_MIN refusals in a row with
nothing written between them are taken for the table's fault: the run ends there.
"""

from __future__ import annotations

import structlog

from sqs2pg.errors import TransientFault
from sqs2pg.pipeline.isolation import (
    ALIKE_MIN,
    attempts,
    is_often_of_the_world,
    is_refused,
    may_be_of_a_message,
)
from sqs2pg.pipeline.processor import Processor

LEFT_MAX = 1_000
"""Lines of one archive that are left behind. With more, its run ends."""
_CONFIRMED = 2
"""Refusals in a row with one code after which a line that is tried alone is left behind."""
_UNPROVEN_OF_THE_WORLD = 2
"""Refusals in a row that end a run, where the code most often is about server or network."""

log = structlog.get_logger(__name__)


class LeftLines:
    """Judges which lines of one run's archives PostgreSQL does not take alone."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
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
            share, rest = divmod(alike, attempts(fault.code))
            is_due = not rest and share & (share - 1) == 0
        else:
            is_due = lines > 1 or alike >= _CONFIRMED
        return is_due and not await is_refused(
            self._processor.sink, "the rehearsal of a batch failed"
        )

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

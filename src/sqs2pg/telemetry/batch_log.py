"""What the log says of batches and faults: one line a batch, one a fault, none of them a flood.

Place in the flow: told by the processor of each message it sets aside, and when a batch has ended:
the line of a fault waits for its batch's COMMIT. One journal for all processors of a process. A
line has counts, times, codes, SQS's message id and the batch's own id, by which lines of one batch
are found. Never a value: the log's allow-list is behind it (decision 0008).
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import msgspec
import structlog

from sqs2pg.errors import PermanentFault, Stage, TransientFault
from sqs2pg.telemetry.log_sampling import Repeats

BATCH_LINES_MAX = 10
"""Batches a second with a line of their own; those beyond share one."""
RECENT_MAX = 50
_OPEN_BATCHES_MAX = 256

Producer = tuple[int, int, bool]
"""Trace id, span id and whether it was sampled, of the span that sent a message."""

log = structlog.get_logger(__name__)


class BatchReport(msgspec.Struct):
    """One batch that came to its end, committed or released. Times in seconds."""

    id: str
    began: float
    """Seconds since the epoch."""
    messages: int
    written: int = 0
    duplicate: int = 0
    quarantined: int = 0
    released: int = 0
    decode_s: float = 0.0
    mask_s: float = 0.0
    write_s: float = 0.0
    commit_s: float = 0.0
    lag_s: float = 0.0
    """SentTimestamp to commit of its oldest message."""
    slow: bool = False
    """The slow path was taken: duplicates, or rows that the database rejects."""
    code: str = ""
    """Why it was released."""
    trace_id: str = ""
    """Of its spans, 32 hexadecimal digits; "" where it is not traced."""
    producers: Sequence[Producer] = ()

    @property
    def seconds(self) -> float:
        """From taking it up to its end."""
        return self.decode_s + self.mask_s + self.write_s


class Recent(NamedTuple):
    """A fault as a support bundle may show it."""

    at: float
    stage: str
    code: str


class Journal:
    """The lines of one process. `batch_lines` off: a live view is shown in their place."""

    def __init__(
        self, *, batch_lines: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.batch_lines = batch_lines
        self._clock = clock
        self._prefix = secrets.token_hex(3)
        self._batches = 0
        self._repeats = Repeats(clock=clock)
        self._second = 0.0
        self._lines = 0
        self._together: Counter[str] = Counter()
        self._aside: dict[str, list[tuple[str, Stage, str]]] = {}  # by batch, not committed yet
        self.recent: deque[Recent] = deque(maxlen=RECENT_MAX)
        """The latest faults that had a line."""

    def next_id(self) -> str:
        """Return the id of the next batch, unique in practice among all processes."""
        self._batches += 1
        return f"{self._prefix}-{self._batches}"

    def set_aside(self, message_id: str, batch: str, fault: PermanentFault) -> None:
        """Note a message that goes to quarantine; it is told when its batch is committed."""
        if batch not in self._aside and len(self._aside) >= _OPEN_BATCHES_MAX:
            # Of a batch that was begun again under another id: neither committed nor released.
            del self._aside[next(iter(self._aside))]
        self._aside.setdefault(batch, []).append((message_id, fault.stage, fault.code))

    def released(self, report: BatchReport, fault: TransientFault) -> None:
        """Tell of a batch that is held through a fault of the world."""
        self._aside.pop(report.id, None)
        self.recent.append(Recent(time.time(), fault.stage.value, fault.code))

    def committed(self, report: BatchReport) -> None:
        """Tell of a batch that is committed."""
        self.flush()
        aside = self._aside.pop(report.id, ())
        if report.quarantined:  # else all of them were duplicates
            for noted in aside:
                self._tell_aside(report.id, *noted)
        if not self.batch_lines:
            return
        now = self._clock()
        if now - self._second >= 1.0:
            self._tell_together()
            self._second, self._lines = now, 0
        if self._lines >= BATCH_LINES_MAX:
            self._add(report)
            return
        self._lines += 1
        trace = {"trace_id": report.trace_id} if report.trace_id else {}
        log.info(
            "batch",
            batch=report.id,
            messages=report.messages,
            written=report.written,
            duplicate=report.duplicate,
            quarantined=report.quarantined,
            decode_ms=_ms(report.decode_s),
            mask_ms=_ms(report.mask_s),
            write_ms=_ms(report.write_s),
            commit_ms=_ms(report.commit_s),
            lag_s=round(report.lag_s, 3),
            **trace,
        )

    def _tell_aside(self, batch: str, message_id: str, stage: Stage, code: str) -> None:
        more = self._repeats.admit((stage, code))
        if more is None:
            return
        self.recent.append(Recent(time.time(), stage.value, code))
        self._tell_more(stage.value, code, more)
        log.warning(
            "message quarantined", code=code, stage=stage.value, message_id=message_id, batch=batch
        )

    def flush(self, *, end: bool = False) -> None:
        """Tell what was kept back in windows that are over, or at the end all of it."""
        for kind, more in self._repeats.overdue(all_of_them=end):
            stage, code = cast("tuple[str, str]", ("", "other") if kind is None else kind)
            self._tell_more(stage, code, more)
        if end or self._clock() - self._second >= 1.0:
            self._tell_together()

    def _tell_more(self, stage: str, code: str, more: int) -> None:
        if more:
            log.warning("more like this", count=more, code=code, stage=str(stage))

    def _add(self, report: BatchReport) -> None:
        together = self._together
        together["count"] += 1
        for name in ("messages", "written", "duplicate", "quarantined"):
            together[name] += getattr(report, name)

    def _tell_together(self) -> None:
        if self._together:
            log.info("more batches", **self._together)
            self._together.clear()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)

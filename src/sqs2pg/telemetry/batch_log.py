"""The log lines of batches and faults: one line per batch and one per fault, within limits.

Place in the flow: the processor reports each message that it quarantines, and each batch that has
ended. The line of a quarantined message waits for its batch's COMMIT. One batch log serves all
processors of a pipeline. A line has counts, times, codes, SQS's message id and the id of the batch,
which its lines share. Never a value: the log's allow-list comes after it (decision 0008).
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import msgspec
import structlog

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.telemetry.log_sampling import RepeatLimiter

BATCH_LINES_MAX = 10
"""Batches per second that have a line of their own; all others share one."""
RECENT_MAX = 50
_OPEN_BATCHES_MAX = 256

ProducerSpan = tuple[int, int, bool]
"""The span that sent a message: trace id, span id, and whether it was sampled."""

log = structlog.get_logger(__name__)


class BatchReport(msgspec.Struct):
    """One batch that was committed or released. Times in seconds."""

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
    """From SentTimestamp to commit, of its oldest message."""
    slow: bool = False
    """Whether it took the slow path: duplicates, or rows that the database rejects."""
    code: str = ""
    """The fault code, if it was released."""
    trace_id: str = ""
    """The trace id of its spans, 32 hexadecimal digits; "" if it is not traced."""
    producers: Sequence[ProducerSpan] = ()
    lines: int = 0
    """Lines of S3 objects, besides the messages."""
    lines_quarantined: int = 0

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return self.decode_s + self.mask_s + self.write_s


class RecentFault(NamedTuple):
    """A fault, as a support bundle may show it."""

    at: float
    stage: str
    code: str


class BatchLog:
    """The lines of one pipeline. Without `batch_lines` a live view is shown in their place.

    Without `fault_lines` there are none of quarantined messages either: the demo shows them as a
    table.
    """

    def __init__(
        self,
        *,
        batch_lines: bool = True,
        fault_lines: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batch_lines = batch_lines
        self.fault_lines = fault_lines
        self._clock = clock
        self._prefix = secrets.token_hex(3)
        self._batches = 0
        self._repeats = RepeatLimiter(clock=clock)
        self._second = 0.0
        self._lines = 0
        self._summary: Counter[str] = Counter()
        # By the id of a batch that is not committed yet.
        self._quarantined: dict[str, list[tuple[str, Stage, str]]] = {}
        self.recent: deque[RecentFault] = deque(maxlen=RECENT_MAX)
        """The latest faults that had a line."""

    def next_id(self) -> str:
        """Return the id of the next batch, in practice unique among all processes."""
        self._batches += 1
        return f"{self._prefix}-{self._batches}"

    def quarantined(self, batch: str, refused: Sequence[tuple[str, Stage, str]]) -> None:
        """Note messages that go to quarantine: id, stage and code of each.

        They are logged when their batch is committed.
        """
        if batch not in self._quarantined and len(self._quarantined) >= _OPEN_BATCHES_MAX:
            # Its batch began again under another id, so it will be neither committed nor released.
            del self._quarantined[next(iter(self._quarantined))]
        self._quarantined.setdefault(batch, []).extend(refused)

    def released(self, report: BatchReport, fault: TransientFault) -> None:
        """Note a batch that is released because of a transient fault."""
        self._quarantined.pop(report.id, None)
        self.recent.append(RecentFault(time.time(), fault.stage.value, fault.code))

    def committed(self, report: BatchReport) -> None:
        """Log a batch that is committed, and its quarantined messages."""
        self.flush()
        quarantined = self._quarantined.pop(report.id, ())
        if report.quarantined or report.lines_quarantined:  # else all of them were duplicates
            self._log_each_quarantined(report.id, quarantined)
        if not self.batch_lines:
            return
        now = self._clock()
        if now - self._second >= 1.0:
            self._log_summary()
            self._second, self._lines = now, 0
        if self._lines >= BATCH_LINES_MAX:
            self._add_to_summary(report)
            return
        self._lines += 1
        more: dict[str, Any] = {"trace_id": report.trace_id} if report.trace_id else {}
        if report.lines:
            more["lines"] = report.lines
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
            **more,
        )

    def _log_each_quarantined(
        self, batch: str, quarantined: Sequence[tuple[str, Stage, str]]
    ) -> None:
        kinds: dict[tuple[int, str], list[int]] = {}
        for index, (_, stage, code) in enumerate(quarantined):
            kinds.setdefault((id(stage), code), []).append(index)  # to hash an Enum costs a call
        for indexes in kinds.values():
            for before, index in enumerate(indexes):
                message_id, stage, code = quarantined[index]
                more = self._repeats.admit((stage, code))
                if more is None:  # neither are those after it
                    self._repeats.hold_back((stage, code), len(indexes) - before - 1)
                    break
                self._log_quarantined(batch, message_id, stage, code, more)

    def _log_quarantined(
        self, batch: str, message_id: str, stage: Stage, code: str, more: int
    ) -> None:
        self.recent.append(RecentFault(time.time(), stage.value, code))
        self._log_held_back(stage.value, code, more)
        if not self.fault_lines:
            return
        log.warning(
            "message quarantined", code=code, stage=stage.value, message_id=message_id, batch=batch
        )

    def flush(self, *, end: bool = False) -> None:
        """Log what was held back in windows that are over; with `end` in all windows."""
        for kind, more in self._repeats.overdue(everything=end):
            stage, code = cast("tuple[str, str]", ("", "other") if kind is None else kind)
            self._log_held_back(stage, code, more)
        if end or self._clock() - self._second >= 1.0:
            self._log_summary()

    def _log_held_back(self, stage: str, code: str, more: int) -> None:
        if more and self.fault_lines:
            log.warning("more like this", count=more, code=code, stage=str(stage))

    def _add_to_summary(self, report: BatchReport) -> None:
        summary = self._summary
        summary["count"] += 1
        for name in ("messages", "written", "duplicate", "quarantined"):
            summary[name] += getattr(report, name)
        if report.lines:
            summary["lines"] += report.lines

    def _log_summary(self) -> None:
        if self._summary:
            log.info("more batches", **self._summary)
            self._summary.clear()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)

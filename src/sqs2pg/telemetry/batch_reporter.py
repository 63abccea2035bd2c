"""The reporter of one processor: each batch, from begin to end, to metrics, log and trace."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqs2pg.errors import PermanentFault, TransientFault
from sqs2pg.message import Message, Outcome, OutcomeCounts, RowChanges
from sqs2pg.telemetry.batch_log import BatchLog, BatchReport
from sqs2pg.telemetry.metrics import Metrics


class Trace(Protocol):
    """What makes spans of batches (`traces.py`)."""

    def begin(self, report: BatchReport, messages: Sequence[Message]) -> None:
        """Give a new batch its trace id, and note the producers of its messages."""

    def end(self, report: BatchReport) -> None:
        """Export a batch that has ended."""


class BatchReporter:
    """Reports one batch at a time: `begin`, `encoded`, then `committed` or `released`."""

    def __init__(self, metrics: Metrics, batch_log: BatchLog, trace: Trace | None) -> None:
        self._metrics = metrics
        self._batch_log = batch_log
        self._trace = trace
        self._report: BatchReport | None = None
        self._since = 0.0
        self.batch_id = ""
        """The id of the last batch, as the log names it."""

    def begin(self, messages: Sequence[Message]) -> None:
        """Begin a batch, or begin it again."""
        self._report = report = BatchReport(self._batch_log.next_id(), time.time(), len(messages))
        self.batch_id = report.id
        if self._trace:
            self._trace.begin(report, messages)
        self._since = time.perf_counter()

    def encoded(self, decoded_at: float | None, messages: int) -> None:
        """Note that so many messages of a batch are encoded: from now on it is about those.

        `decoded_at`: between decoding and masking, or None.
        """
        report, now = self._report, time.perf_counter()
        assert report is not None
        report.messages = messages
        report.decode_s = (decoded_at or now) - self._since
        report.mask_s = now - self._since - report.decode_s
        self._since = now

    def quarantined(self, refused: Sequence[tuple[str, PermanentFault]]) -> None:
        """Note messages of the batch, by id, that go to quarantine once the batch is committed."""
        noted = [(message_id, fault.stage, fault.code) for message_id, fault in refused]
        # By identity: to hash an Enum costs a call.
        times = Counter([(id(stage), code) for _, stage, code in noted])
        kinds = {(id(fault.stage), fault.code): fault for _, fault in refused}
        for kind, count in times.items():
            fault = kinds[kind]
            self._metrics.count_fault(fault.stage, fault.code, count)
        self._batch_log.quarantined(self.batch_id, noted)

    def dropped(self, name: str, count: int) -> None:
        """Count records that had a field which the settings drop."""
        self._metrics.fields_dropped.labels(name).inc(count)

    def unknown(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Count fields that no field of the mapping names, by path and type."""
        self._metrics.unknown.add(counts)
        by_type: dict[str, int] = {}
        for (_, type_), count in counts.items():
            by_type[type_] = by_type.get(type_, 0) + count
        for type_, count in by_type.items():
            self._metrics.fields_unknown.labels(type_).inc(count)

    def committed(
        self,
        outcomes: list[Outcome],
        oldest_ms: int | None,
        commit_s: float,
        *,
        slow: bool,
        rows: RowChanges,
        lines: Sequence[Outcome] = (),
    ) -> None:
        """End a batch that is committed.

        `oldest_ms`: the oldest SentTimestamp, duplicates that were known before apart; 0 where a
        message has none. `slow`: it took the sink's slow path. `rows`: what its rows did.
        `lines`: outcomes of lines of S3 objects, besides those of the messages.
        """
        report, now = self._report, time.time()
        assert report is not None
        self._report = None
        report.write_s = time.perf_counter() - self._since
        report.commit_s, report.slow = commit_s, slow
        report.lines = len(lines)
        report.lines_quarantined = OutcomeCounts.of(lines).quarantined
        counts = OutcomeCounts.of(outcomes)
        report.written, report.duplicate = counts.written, counts.duplicate
        report.quarantined = counts.quarantined
        if oldest_ms:
            self._metrics.oldest_sent_ms = oldest_ms
            report.lag_s = max(0.0, now - oldest_ms / 1000)
        self._metrics.observe_batch(report, now)
        self._metrics.count_rows(rows)
        if self._trace:
            self._trace.end(report)
        self._batch_log.committed(report)

    def released(self, fault: TransientFault) -> None:
        """Count a fault, and end the batch that is open, if one is, as released."""
        self._metrics.count_fault(fault.stage, fault.code)
        report, self._report = self._report, None
        if report is None:
            return
        report.write_s = time.perf_counter() - self._since
        report.released, report.code = report.messages, fault.code
        self._batch_log.released(report, fault)
        if self._trace:
            self._trace.end(report)

"""Counters and gauges for Prometheus. Labels are bounded, and never a value of a message.

The pipeline updates them once per batch or request, the periodic readings every few seconds; the
status server reads them. A gauge that is not known is NaN.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from sqs2pg.errors import Stage
from sqs2pg.message import Outcome, OutcomeCounts, RowChanges
from sqs2pg.telemetry.batch_log import BatchReport
from sqs2pg.telemetry.lean_prometheus import (
    Collector,
    CollectorRegistry,
    Counter,
    CounterMetricFamily,
    Gauge,
    Histogram,
    HistogramMetricFamily,
    Metric,
)
from sqs2pg.telemetry.unknown_tally import UnknownTally

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LAG_SECONDS = (*SECONDS, 300, 1_800, 7_200, 43_200)
_BOUNDS = (*map(str, map(float, SECONDS)), "+Inf")
_ROWS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)

STAGES = ("receive", "decode", "mask", "write", "acknowledge")
"""The labels of `batch_seconds`: time of a request for the first and last, else of a batch."""
FAULTS_MAX = 200
"""Different (stage, code) pairs that are counted by name; later ones are counted as `other`."""


PAUSE_CODES = ("by_operator", "quarantine_share")
"""Why a pipeline may be paused on record."""

_ROW_CHANGES = {
    "inserted": "Rows added to tables",
    "updated": "Rows that changed the row of their key",
    "superseded": "Rows older than the row of their key, which changed nothing",
    "ignored": "Rows whose key the table had, with mode ignore",
    "deleted": "Rows that deleted the row of their key",
}
"""What is counted of rows, in the order of `RowChanges`."""


class RequestMetrics(Collector):
    """What is counted once per request: messages received and deleted, and `batch_seconds`.

    prometheus_client's own counters and histograms take a lock for each of their parts, and ten
    times as long. One thread writes, any thread reads.
    """

    def __init__(self) -> None:
        self.received = self.deleted = 0
        self._counts = {stage: [0] * (len(SECONDS) + 1) for stage in STAGES}
        self._polls, self._deletes = self._counts["receive"], self._counts["acknowledge"]
        self._sums = dict.fromkeys(STAGES, 0.0)

    def observe(self, stage: str, seconds: float) -> None:
        """Count one duration of a stage."""
        self._counts[stage][bisect_left(SECONDS, seconds)] += 1
        self._sums[stage] += seconds

    # The two below inline `observe`: they run with every request.

    def reply(self, messages: int, seconds: float) -> None:
        """Count a poll that brought messages: how many, and how long it took."""
        self.received += messages
        self._polls[bisect_left(SECONDS, seconds)] += 1
        self._sums["receive"] += seconds

    def delete(self, messages: int, seconds: float) -> None:
        """Count a delete that ended: how many messages are gone, and how long it took."""
        self.deleted += messages
        self._deletes[bisect_left(SECONDS, seconds)] += 1
        self._sums["acknowledge"] += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the present counts; each bucket includes those below it, as in Prometheus."""
        yield CounterMetricFamily(
            "sqs2pg_messages_received", "Messages received, redeliveries too", float(self.received)
        )
        yield CounterMetricFamily(
            "sqs2pg_messages_deleted", "Messages deleted from the queue", float(self.deleted)
        )
        family = HistogramMetricFamily(
            "sqs2pg_batch_seconds", "Time of a batch or a request, by stage", labels=["stage"]
        )
        for stage in STAGES:
            counts = accumulate(tuple(self._counts[stage]))
            family.add_metric([stage], list(zip(_BOUNDS, counts, strict=True)), self._sums[stage])
        yield family


class Metrics:
    """The numbers of one pipeline, in a registry of their own.

    Updated once per batch or request, never per message.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"sqs2pg_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            made = Gauge(f"sqs2pg_{name}", text, labels, registry=registry)
            if not labels:
                made.set(math.nan)
            return made

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"sqs2pg_{name}", text, labels, buckets=buckets, registry=registry)

        self.started_at = time.time()
        gauge("started_timestamp_seconds", "When this process began").set(self.started_at)
        self.pipeline_up = gauge("pipeline_up", "1 while the pipeline runs, 0 while it is started")
        self.pipeline_up.set(1)
        self._about = gauge("pipeline_info", "1; the queue's name and the tables", "queue", "table")
        self.pipeline_restarts = counter(
            "pipeline_restarts",
            "Starts of the pipeline after a fault, its process going on",
        )
        self.requests = RequestMetrics()
        registry.register(self.requests)
        self.outcomes = counter("messages_outcome", "Deliveries by how they ended", "outcome")
        self.faults = counter("faults", "Faults by stage and code", "stage", "code")
        self._rows = [counter(f"rows_{name}", text) for name, text in _ROW_CHANGES.items()]
        self.fields_dropped = counter(
            "fields_dropped",
            "Fields that were present and are declared as dropped, by source",
            "field",
        )
        self.fields_unknown = counter(
            "fields_unknown",
            "Fields that messages had and that no field of the mapping names, by JSON type",
            "type",
        )
        self.unknown = UnknownTally()
        self.batch_rows = histogram(
            "batch_rows", "Messages per batch, and lines of S3 objects", _ROWS
        )
        self.commit_seconds = histogram("commit_seconds", "Time of COMMIT", SECONDS)
        self.lag_seconds = histogram(
            "lag_seconds",
            "From SentTimestamp to commit, of each batch's oldest message",
            LAG_SECONDS,
        )
        self.objects = counter(
            "objects",
            "Notifications of S3 by what they were: read, known (read before), ignored (no new "
            "content), test, failed",
            "kind",
        )
        self.object_lines = counter(
            "object_lines", "Lines of S3 objects by how they ended", "outcome"
        )
        self.in_flight_messages = gauge("in_flight_messages", "Messages held under lease")
        self.in_flight_bytes = gauge("in_flight_bytes", "Bytes of bodies held")
        self.isolated = gauge(
            "isolated_messages",
            "Messages that PostgreSQL refuses for no fault of theirs, returned to the queue alone",
        )
        self.lease_extensions = counter("lease_extensions", "Visibility timeouts extended")
        self.leases_lost = counter("leases_lost", "Leases that ended while their message was held")
        self.deletes_failed = counter(
            "deletes_failed", "Deletes that were given up; the ledger covers them"
        )
        self.last_poll = gauge("last_poll_timestamp_seconds", "Last completed poll")
        self.last_commit = gauge("last_commit_timestamp_seconds", "Last commit")
        self.receiving_paused = gauge(
            "receiving_paused", "1 while receiving is paused because the database is away"
        )
        self.paused = gauge(
            "paused", "1 while the pipeline is paused on record, by why it is", "code"
        )
        for code in PAUSE_CODES:
            self.paused.labels(code)
        self.queue_visible = gauge("queue_visible_messages", "Messages waiting on the queue")
        self.queue_in_flight = gauge(
            "queue_in_flight_messages", "Messages in flight, of all consumers"
        )
        self.queue_delayed = gauge("queue_delayed_messages", "Messages not yet due")
        self.queue_oldest_age = gauge(
            "queue_oldest_age_seconds",
            "Age of the oldest message on the queue, from CloudWatch or else estimated",
        )
        self.dlq_visible = gauge(
            "dlq_visible_messages", "Messages waiting on the dead-letter queue; NaN without one"
        )
        self.credential_expiry = gauge(
            "credential_expiry_timestamp_seconds", "When the AWS credentials expire; +Inf if never"
        )
        self.certificate_expiry = gauge(
            "certificate_expiry_timestamp_seconds",
            "When the database server's certificate expires; NaN without TLS",
        )
        self.database_up = gauge("database_up", "1 if the last reading of the database worked")
        self.database_connections = gauge(
            "database_connections", "Connections to the database server, of all clients"
        )
        self.database_connections_max = gauge(
            "database_connections_max",
            "Connections that the database server allows to ordinary roles",
        )
        self.database_bytes = gauge("database_size_bytes", "Size of the database")
        self.quarantine_open = gauge(
            "quarantine_open_messages",
            "Messages that are quarantined and not replayed, by reason",
            "reason",
        )
        self.fleet_workers = gauge(
            "fleet_workers", "Worker processes of this pipeline with a fresh heartbeat"
        )
        self.watched = gauge(
            "watch_timestamp_seconds", "When each periodic reading last worked", "what"
        )
        self.oldest_sent_ms = 0
        """SentTimestamp of the last batch's oldest message: to estimate the queue's oldest age."""
        self.settled = self.settled_bad = 0
        """Messages and lines that were written or quarantined, and the latter alone."""
        self.batch_s_max = 0.0
        """The longest batch committed so far, seconds."""
        # A series that exists from the start shows its first increase too.
        self._outcomes = {outcome: self.outcomes.labels(outcome.value) for outcome in Outcome}
        self._faults: dict[tuple[str, str], Counter] = {}

    def describe(self, queue: str, table: str) -> None:
        """Name the pipeline's queue and tables; of earlier settings they are named no longer."""
        self._about.clear()
        self._about.labels(queue, table).set(1)

    def count_fault(self, stage: Stage, code: str, times: int = 1) -> None:
        """Count a fault. `code` is from a bounded set; FAULTS_MAX makes sure of that."""
        child = self._faults.get((stage, code))
        if child is None:
            if len(self._faults) >= FAULTS_MAX:
                code = "other"
            child = self._faults[stage, code] = self.faults.labels(stage.value, code)
        child.inc(times)

    def count_released(self, messages: int) -> None:
        """Count messages that were released to the queue."""
        self._outcomes[Outcome.RELEASED].inc(messages)

    def count_rows(self, changes: RowChanges) -> None:
        """Count what the rows of a batch did in their tables."""
        for counter, count in zip(self._rows, changes, strict=True):
            if count:
                counter.inc(count)

    def count_objects(self, kinds: Sequence[str], lines: Sequence[Outcome]) -> None:
        """Count notifications of S3 that have ended, and lines of objects."""
        for kind in set(kinds):
            self.objects.labels(kind).inc(kinds.count(kind))
        counts = OutcomeCounts.of(lines)
        for outcome, count in (
            (Outcome.WRITTEN, counts.written),
            (Outcome.DUPLICATE, counts.duplicate),
            (Outcome.QUARANTINED, counts.quarantined),
        ):
            if count:
                self.object_lines.labels(outcome.value).inc(count)

    def observe_batch(self, report: BatchReport, now: float) -> None:
        """Count a batch that was committed at `now`, seconds since the epoch."""
        for outcome, count in (
            (Outcome.WRITTEN, report.written),
            (Outcome.DUPLICATE, report.duplicate),
            (Outcome.QUARANTINED, report.quarantined),
        ):
            if count:
                self._outcomes[outcome].inc(count)
        self.settled += report.written + report.quarantined + report.lines
        self.settled_bad += report.quarantined + report.lines_quarantined
        self.batch_rows.observe(report.messages + report.lines)
        observe = self.requests.observe
        observe("decode", report.decode_s)
        observe("mask", report.mask_s)
        observe("write", report.write_s)
        self.commit_seconds.observe(report.commit_s)
        self.batch_s_max = max(self.batch_s_max, report.seconds)
        self.lag_seconds.observe(report.lag_s)
        self.last_commit.set(now)

"""Counters and gauges, in Prometheus' terms. Labels are bounded; no value of a message is one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sqs2pg.errors import Stage
from sqs2pg.message import Outcome

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)


class Metrics:
    """One process's numbers. Updated once a batch or a request, never once a message."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.received = Counter(
            "sqs2pg_messages_received", "Messages received, redeliveries too", registry=registry
        )
        self.outcomes = Counter(
            "sqs2pg_messages_outcome",
            "Deliveries by how they ended",
            ["outcome"],
            registry=registry,
        )
        self.faults = Counter(
            "sqs2pg_faults", "Faults by stage and code", ["stage", "code"], registry=registry
        )
        self.batch_rows = Histogram(
            "sqs2pg_batch_rows", "Messages a batch", buckets=_ROWS, registry=registry
        )
        self.batch_seconds = Histogram(
            "sqs2pg_batch_seconds",
            "Time of a batch by stage",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "sqs2pg_commit_seconds", "Time of COMMIT", buckets=_SECONDS, registry=registry
        )
        self.lag_seconds = Histogram(
            "sqs2pg_lag_seconds",
            "SentTimestamp to commit, the oldest message of each batch",
            buckets=(*_SECONDS, 300, 1_800, 7_200, 43_200),
            registry=registry,
        )
        self.in_flight_messages = Gauge(
            "sqs2pg_in_flight_messages", "Messages held under lease", registry=registry
        )
        self.in_flight_bytes = Gauge(
            "sqs2pg_in_flight_bytes", "Bytes of bodies held", registry=registry
        )
        self.lease_extensions = Counter(
            "sqs2pg_lease_extensions", "Visibility timeouts extended", registry=registry
        )
        self.leases_lost = Counter(
            "sqs2pg_leases_lost", "Leases that ended before their message did", registry=registry
        )
        self.deletes_failed = Counter(
            "sqs2pg_deletes_failed", "Deletes given up; the ledger covers them", registry=registry
        )
        self.last_poll = Gauge(
            "sqs2pg_last_poll_timestamp_seconds", "Last completed poll", registry=registry
        )
        self.last_commit = Gauge(
            "sqs2pg_last_commit_timestamp_seconds", "Last commit", registry=registry
        )
        for outcome in Outcome:  # a series that exists from the start shows its first increase
            self.outcomes.labels(outcome.value)

    def count_fault(self, stage: Stage, code: str, times: int = 1) -> None:
        """Count a fault; `code` is from a bounded set."""
        self.faults.labels(stage.value, code).inc(times)

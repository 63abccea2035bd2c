"""CloudWatch's embedded metric format: one line of JSON on stdout is a set of metrics.

For ECS and Lambda, whose logs go to CloudWatch anyway: no agent, no call. Counters are told as what
came since the line before, as CloudWatch adds up; gauges as they are. Format: "Specification:
Embedded metric format" of the CloudWatch user guide.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric

NAMESPACE = "sqs2pg"
LINE_START = '{"_aws"'
"""What each line begins with, and no other of ours on stdout."""
# Prometheus' sample -> CloudWatch's name and unit. Few: each name is billed.
_COUNTERS = {
    ("sqs2pg_messages_received_total", ""): "received",
    ("sqs2pg_messages_outcome_total", "written"): "written",
    ("sqs2pg_messages_outcome_total", "duplicate"): "duplicate",
    ("sqs2pg_messages_outcome_total", "quarantined"): "quarantined",
    ("sqs2pg_messages_outcome_total", "released"): "released",
    ("sqs2pg_deletes_failed_total", ""): "deletes_failed",
    ("sqs2pg_leases_lost_total", ""): "leases_lost",
}
_GAUGES = {
    "sqs2pg_in_flight_messages": ("in_flight_messages", "Count"),
    "sqs2pg_queue_visible_messages": ("queue_visible_messages", "Count"),
    "sqs2pg_queue_oldest_age_seconds": ("queue_oldest_age_seconds", "Seconds"),
    "sqs2pg_dlq_visible_messages": ("dlq_visible_messages", "Count"),
}


class MetricLines:
    """Makes the lines of one process."""

    def __init__(self, registry: CollectorRegistry, pipeline: str) -> None:
        self._registry = registry
        self._pipeline = pipeline
        self._before: dict[str, float] = {}

    def next_line(self) -> str:
        """Return the next line, without its newline: what came since the one before."""
        families = list(self._registry.collect())
        values: dict[str, float] = {}
        units: dict[str, str] = {}
        for name, total in _counters(families):
            values[name] = values.get(name, 0.0) + total
            units[name] = "Count"
        faults = sum(_totals(families, "sqs2pg_faults_total"))
        values["faults"], units["faults"] = faults, "Count"
        lag_s, batches = (_one(families, f"sqs2pg_lag_seconds_{what}") for what in ("sum", "count"))
        since = {name: value - self._before.get(name, 0.0) for name, value in values.items()}
        lag_since = lag_s - self._before.get("lag", 0.0)
        batches_since = batches - self._before.get("batches", 0.0)
        self._before = values | {"lag": lag_s, "batches": batches}
        if batches_since > 0:
            since["lag_seconds"], units["lag_seconds"] = lag_since / batches_since, "Seconds"
        for family in families:
            for sample in family.samples:
                if sample.name in _GAUGES and math.isfinite(sample.value):
                    name, unit = _GAUGES[sample.name]
                    since[name], units[name] = sample.value, unit
        return self._line(since, units)

    def _line(self, values: dict[str, float], units: dict[str, str]) -> str:
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [["pipeline"]],
            "Metrics": [{"Name": name, "Unit": units[name]} for name in values],
        }
        line = {
            "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
            "pipeline": self._pipeline,
            **{name: round(value, 6) for name, value in values.items()},
        }
        return json.dumps(line)


def _counters(families: Iterable[Metric]) -> Iterator[tuple[str, float]]:
    for family in families:
        for sample in family.samples:
            name = _COUNTERS.get((sample.name, sample.labels.get("outcome", "")))
            if name:
                yield name, sample.value


def _totals(families: Iterable[Metric], name: str) -> Iterator[float]:
    for family in families:
        yield from (sample.value for sample in family.samples if sample.name == name)


def _one(families: Iterable[Metric], name: str) -> float:
    return sum(_totals(families, name))

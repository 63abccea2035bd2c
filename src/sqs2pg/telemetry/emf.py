"""CloudWatch's embedded metric format: one line of JSON on stdout is a set of metrics.

For the Lambda handler, whose stdout goes to CloudWatch anyway: no agent, no call. CloudWatch adds
values up, so a line has what was counted since the line before. Format: "Specification: Embedded
metric format" in the CloudWatch user guide.
"""

from __future__ import annotations

import json
import time

from sqs2pg.telemetry.lean_prometheus import CollectorRegistry

NAMESPACE = "sqs2pg"
# Prometheus' sample and outcome -> CloudWatch's name. Few: CloudWatch bills each name.
_COUNTERS = {
    ("sqs2pg_messages_received_total", ""): "received",
    ("sqs2pg_messages_outcome_total", "written"): "written",
    ("sqs2pg_messages_outcome_total", "duplicate"): "duplicate",
    ("sqs2pg_messages_outcome_total", "quarantined"): "quarantined",
    ("sqs2pg_messages_outcome_total", "released"): "released",
}
# Prometheus' sample -> our word; all label sets together.
_SUMS = {
    "sqs2pg_faults_total": "faults",
    "sqs2pg_lag_seconds_sum": "lag_s",
    "sqs2pg_lag_seconds_count": "batches",
}


class EmfLines:
    """Makes the lines of one process."""

    def __init__(self, registry: CollectorRegistry, pipeline: str) -> None:
        self._registry = registry
        self._pipeline = pipeline
        self._before: dict[str, float] = {}

    def next_line(self) -> str:
        """Return the next line, without its newline: what was counted since the line before."""
        totals = _read_totals(self._registry)
        values = {name: total - self._before.get(name, 0.0) for name, total in totals.items()}
        self._before = totals
        lag_s, batches = values.pop("lag_s"), values.pop("batches")
        if batches > 0:
            values["lag_seconds"] = lag_s / batches
        return self._line(values)

    def _line(self, values: dict[str, float]) -> str:
        directive = {
            "Namespace": NAMESPACE,
            "Dimensions": [["pipeline"]],
            "Metrics": [
                {"Name": name, "Unit": "Seconds" if name == "lag_seconds" else "Count"}
                for name in values
            ],
        }
        line = {
            "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
            "pipeline": self._pipeline,
            **{name: round(value, 6) for name, value in values.items()},
        }
        return json.dumps(line)


def _read_totals(registry: CollectorRegistry) -> dict[str, float]:
    """Return the counters by CloudWatch's name, `lag_s` of all batches and how many `batches`."""
    totals = dict.fromkeys((*_COUNTERS.values(), "faults", "lag_s", "batches"), 0.0)
    for family in registry.collect():
        for sample in family.samples:
            name = _COUNTERS.get((sample.name, sample.labels.get("outcome", "")))
            name = name or _SUMS.get(sample.name)
            if name:
                totals[name] += sample.value
    return totals

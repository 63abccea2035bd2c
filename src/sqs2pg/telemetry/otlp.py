"""Metrics by OTLP, for users who have a collector and no Prometheus.

They are the numbers of `/metrics`, read from its registry and sent periodically by OpenTelemetry's
own exporter (HTTP, protobuf), whose environment variables apply. Needs the extra `otel`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqs2pg import __version__
from sqs2pg.errors import Stage, TransientFault
from sqs2pg.settings import TelemetrySettings
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry, Metric
from sqs2pg.telemetry.traces import EXPORT_S, endpoint_of, missing_extra, resource_of

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import MetricsData

_NS = 1_000_000_000


class MetricsExport:
    """Sends the metrics of one registry."""

    def __init__(
        self,
        registry: CollectorRegistry,
        started_at: float,
        pipeline: str,
        exporter: OTLPMetricExporter,
    ) -> None:
        self._registry = registry
        self._started_ns = int(started_at * _NS)
        self._pipeline = pipeline
        self._exporter = exporter

    def send(self) -> None:
        """Send the present numbers. Blocking.

        Raises TransientFault if the collector does not take them.
        """
        from opentelemetry.sdk.metrics.export import MetricExportResult

        if self._exporter.export(self.collect()) is not MetricExportResult.SUCCESS:
            raise TransientFault(
                "the OTLP collector did not take the metrics",
                code="otlp_unavailable",
                stage=Stage.STATUS,
            )

    def collect(self) -> MetricsData:
        """Return the registry in OTLP's data model; sums are cumulative since the start."""
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        now = time.time_ns()
        metrics = [made for family in self._registry.collect() if (made := self._one(family, now))]
        scope = InstrumentationScope("sqs2pg", __version__)
        resource = resource_of(self._pipeline)
        return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])

    def _one(self, family: Metric, now: int) -> Any:
        from opentelemetry.sdk.metrics.export import (
            AggregationTemporality,
            Gauge,
            Histogram,
            Metric,
            NumberDataPoint,
            Sum,
        )

        def number(labels: dict[str, str], value: float) -> NumberDataPoint:
            return NumberDataPoint(dict(labels), self._started_ns, now, value)

        unit = "s" if family.name.endswith("_seconds") else "1"
        data: Any
        if family.type == "histogram":
            points = self._histograms(family, now)
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
        elif family.type == "counter":
            points = [
                number(s.labels, s.value) for s in family.samples if s.name.endswith("_total")
            ]
            data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            # NaN (not known) and infinity (never) have no point: OTLP has neither.
            points = [number(s.labels, s.value) for s in family.samples if math.isfinite(s.value)]
            data = Gauge(points)
        return Metric(family.name, family.documentation, unit, data) if points else None

    def _histograms(self, family: Metric, now: int) -> list[Any]:
        from opentelemetry.sdk.metrics.export import HistogramDataPoint

        by_labels: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            found = by_labels.setdefault(tuple(sorted(labels.items())), {"buckets": []})
            if sample.name.endswith("_bucket"):
                found["buckets"].append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith(("_sum", "_count")):
                found[sample.name.rsplit("_", 1)[-1]] = sample.value
        return [
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=self._started_ns,
                time_unix_nano=now,
                count=int(found["count"]),
                sum=found["sum"],
                bucket_counts=_differences(value for _, value in found["buckets"]),
                explicit_bounds=[bound for bound, _ in found["buckets"] if math.isfinite(bound)],
                min=math.nan,
                max=math.nan,
            )
            for labels, found in by_labels.items()
        ]


def _differences(cumulative: Iterable[float]) -> list[int]:
    """Return each bucket's own count from Prometheus' cumulative counts."""
    counts, before = [], 0.0
    for value in cumulative:
        counts.append(int(value - before))
        before = value
    return counts


def start_export(
    settings: TelemetrySettings, registry: CollectorRegistry, started_at: float, pipeline: str
) -> MetricsExport | None:
    """Return the export of the metrics, or None if it is off.

    Raises SettingsError if the extra is missing.
    """
    if not settings.metrics:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError:
        raise missing_extra() from None
    exporter = OTLPMetricExporter(endpoint=endpoint_of(settings, "metrics"), timeout=EXPORT_S)
    return MetricsExport(registry, started_at, pipeline, exporter)

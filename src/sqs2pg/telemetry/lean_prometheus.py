"""prometheus_client without its own HTTP server and pusher, until something asks for them.

They load `http.server`, `urllib.request`, `wsgiref` and `email`: 40 modules that a start needs no
part of.
"""

from __future__ import annotations

from typing import Any

from sqs2pg.lean_imports import StandIn, lean


class _Exposition(StandIn):
    def load(self) -> Any:
        import prometheus_client.exposition as exposition

        return exposition

    def __getattr__(self, name: str) -> Any:
        # The package takes a dozen names of it and uses none of them while it is imported.
        return super().__getattr__(name) if name.startswith("__") else self


with lean("prometheus_client", _Exposition("prometheus_client.exposition")):
    import prometheus_client  # noqa: F401  for the below

from prometheus_client import (  # noqa: E402  after the above
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

__all__ = [
    "Collector",
    "CollectorRegistry",
    "Counter",
    "CounterMetricFamily",
    "Gauge",
    "Histogram",
    "HistogramMetricFamily",
    "Metric",
    "ProcessCollector",
]

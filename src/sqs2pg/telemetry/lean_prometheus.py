"""prometheus_client without its own HTTP server and pusher, until something asks for them.

They load `http.server`, `urllib.request`, `wsgiref` and `email`: 40 modules that a start needs no
part of. The names stay: the first use of one loads what was left out. Where prometheus_client is
loaded already, nothing is changed.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_LATER = "prometheus_client.exposition"


class _LeftOut(ModuleType):
    """Stands for the module while the package imports names from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def _load() -> None:
    left_out = sys.modules[_LATER] = _LeftOut(_LATER)
    try:
        import prometheus_client
    finally:
        del sys.modules[_LATER]
    names = [name for name, value in vars(prometheus_client).items() if value is left_out]
    for name in names:
        delattr(prometheus_client, name)

    def load(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module 'prometheus_client' has no attribute {name!r}")
        import prometheus_client.exposition as loaded

        return loaded if name == "exposition" else getattr(loaded, name)

    prometheus_client.__getattr__ = load  # type: ignore[method-assign]


if "prometheus_client" not in sys.modules:
    _load()

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

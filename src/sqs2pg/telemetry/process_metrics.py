"""The metrics of a process: those of its pipelines, its version, and what the process itself uses.

Every series of a pipeline has the label `pipeline`. `sqs2pg_build_info` and `process_…` have none.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping

from sqs2pg import __version__
from sqs2pg.native import extension
from sqs2pg.telemetry.lean_prometheus import (
    Collector,
    CollectorRegistry,
    Gauge,
    Metric,
    ProcessCollector,
)

LABEL = "pipeline"

Registries = Callable[[], Mapping[str, CollectorRegistry]]
"""Returns the registry of each pipeline, by its name."""


class PipelineCollector(Collector):
    """The metrics of pipelines, each series with its pipeline's name."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    def describe(self) -> list[Metric]:
        """Return nothing: what there is depends on the pipelines."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once, with the series of all pipelines."""
        merged: dict[str, Metric] = {}
        for name, registry in self._registries().items():
            for family in registry.collect():
                whole = merged.get(family.name)
                if whole is None:
                    whole = Metric(family.name, family.documentation, family.type)
                    merged[family.name] = whole
                whole.samples += [
                    sample._replace(labels={LABEL: name, **sample.labels})
                    for sample in family.samples
                ]
        yield from merged.values()


def process_registry(registries: Registries) -> CollectorRegistry:
    """Return the registry of a process with these pipelines."""
    registry = CollectorRegistry()
    registry.register(PipelineCollector(registries))
    ProcessCollector(registry=registry)
    build = Gauge(
        "sqs2pg_build_info",
        "1; the versions are its labels",
        ["version", "python", "native"],
        registry=registry,
    )
    build.labels(__version__, platform.python_version(), "yes" if extension() else "no").set(1)
    return registry

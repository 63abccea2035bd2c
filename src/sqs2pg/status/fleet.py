"""One status view of several workers: their counters added up, the health of each.

Each worker serves its own `/metrics` and `/livez` on a loopback port and notes its address in a
file of a private folder; the parent asks all of them when it is asked. A worker that has not
noted one yet is starting, one that took it back has ended; one that has and does not answer is
not well. Runs in the parent's status thread. Never sees a message.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_ANSWER_S = 2.0


@contextmanager
def noted(file: Path | None, address: str) -> Iterator[None]:
    """Note where a worker answers, `http://host:port`, for as long as it does."""
    if file is None or not address:
        yield
        return
    fresh = file.with_suffix(".new")
    fresh.write_text(address.removeprefix("http://"))
    fresh.replace(file)  # whole or not at all
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


class Fleet(Collector):
    """The workers whose addresses stand in a folder's files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric of the workers as one: the sum, of times the latest or soonest."""
        merged: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for text in self._ask("/metrics"):
            for family in text_string_to_metric_families(text or ""):
                merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                known = values.setdefault(family.name, {})
                for sample in family.samples:
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    before = known.get(key)
                    known[key] = (
                        sample.value if before is None else _join(sample.name, before, sample.value)
                    )
        for name, metric in merged.items():
            for (sample_name, labels), value in values[name].items():
                metric.add_sample(sample_name, dict(labels), value)
            yield metric

    def health(self) -> tuple[bool, bytes]:
        """Return whether every worker that began answers and is well, and their reports."""
        reports = [msgspec.json.decode(text) if text else None for text in self._ask("/livez")]
        ok = all(report is not None and report["ok"] for report in reports)
        return ok, msgspec.json.encode({"ok": ok, "workers": reports})

    def _ask(self, path: str) -> Iterable[str | None]:
        for file in sorted(self._folder.glob("*.address")):
            yield _get(file, path)


def _join(name: str, one: float, other: float) -> float:
    if name.endswith(("_expiry_timestamp_seconds", "_created")):
        return min(one, other)
    return max(one, other) if name.endswith("_timestamp_seconds") else one + other


def _get(file: Path, path: str) -> str | None:
    """Return a worker's answer, of whatever status; None where there is none."""
    try:
        connection = http.client.HTTPConnection(file.read_text(), timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None

"""One status view of several workers: their counters added up, the health of each.

Each worker serves its own `/metrics` and `/livez` on a loopback port and notes its address in a
file of a private folder; the parent asks all of them when it is asked. A worker that has not
noted one yet is starting, one that took it back has ended; one that has and does not answer is
not well. Runs in the parent's status thread. Never sees a message.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sqs2pg.status.snapshot import About, Snapshot, join_gauge, merge

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

    def __init__(self, folder: Path, *, token: str = "", about: About | None = None) -> None:
        """`token` is the workers' own, which is asked for where one is set."""
        self._folder = folder
        self._token = token
        self._about = about or About()
        self._started_at = time.time()
        self._last: Snapshot | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric of the workers as one: the sum, of times the latest or soonest."""
        merged: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for text in self._ask("/metrics"):
            for family in text_string_to_metric_families(text or ""):
                merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                known = values.setdefault(family.name, {})
                for sample in family.samples:
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    known.setdefault(key, []).append(sample.value)
        for name, metric in merged.items():
            for (sample_name, labels), found in values[name].items():
                metric.add_sample(sample_name, dict(labels), join_gauge(sample_name, found))
            yield metric

    def health(self) -> tuple[bool, bytes]:
        """Return whether every worker that began answers and is well, and their reports."""
        return self._reports("/livez", none_is_well=True)

    def ready(self) -> tuple[bool, bytes]:
        """Return whether every worker that began is ready, and at least one is; their reports."""
        return self._reports("/readyz", none_is_well=False)

    def snapshot(self) -> Snapshot:
        """Return the workers as one; the last answer again where none of them answers."""
        parts = [
            msgspec.json.decode(text, type=_State).snapshot
            for text in self._ask("/state")
            if text is not None and text.startswith('{"snapshot"')
        ]
        if parts:
            self._last = merge(parts)
        elif self._last is None:
            about = self._about
            return Snapshot(
                time.time(), self._started_at, about.pipeline, about.queue, about.table, processes=0
            )
        else:
            self._last = msgspec.structs.replace(self._last, at=time.time(), processes=0)
        self._last.started_at = self._started_at
        return self._last

    def _reports(self, path: str, *, none_is_well: bool) -> tuple[bool, bytes]:
        reports = [msgspec.json.decode(text) if text else None for text in self._ask(path)]
        ok = all(report is not None and report["ok"] for report in reports)
        ok = ok and (none_is_well or bool(reports))
        return ok, msgspec.json.encode({"ok": ok, "workers": reports})

    def _ask(self, path: str) -> Iterable[str | None]:
        for file in sorted(self._folder.glob("*.address")):
            yield _get(file, path, self._token)


class _State(msgspec.Struct):
    snapshot: Snapshot


def _get(file: Path, path: str, token: str) -> str | None:
    """Return a worker's answer, of whatever status; None where there is none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection = http.client.HTTPConnection(file.read_text(), timeout=_ANSWER_S)
        try:
            connection.request("GET", path, headers=headers)
            return connection.getresponse().read().decode()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return None

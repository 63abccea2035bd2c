"""One status view of several workers: the sum of their counters, and the health of each.

Each worker serves its own `/metrics` and `/livez` on a loopback port, and writes its address to a
file in a private folder. The parent asks all workers when it is asked. A worker without a file is
starting or has ended; one that has a file and does not answer is unhealthy. The sums keep what was
counted by workers that ended, were killed or do not answer (`counter_history.py`). Runs in the
parent's status thread. Never sees a message.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from functools import reduce
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from sqs2pg.postgres.tap import TappedRow, TappedRows
from sqs2pg.status.counter_history import CounterHistory
from sqs2pg.status.snapshot import About, Snapshot, add_counts, join_gauge, merge
from sqs2pg.telemetry.lean_prometheus import Collector, CollectorRegistry, Metric

_ANSWER_S = 2.0
_STARTED = "sqs2pg_started_timestamp_seconds"
_PROCESS_STARTED = "process_start_time_seconds"
_COUNTING = ("counter", "histogram")

_Key = tuple[str, str, tuple[tuple[str, str], ...]]
"""A metric's name, a sample's, and its labels."""
_Values = dict[_Key, float]


class WorkerGroup(Collector):
    """The workers whose addresses are in a folder's files."""

    def __init__(
        self,
        folder: Path,
        *,
        token: str = "",
        about: About | None = None,
        several: bool = False,
    ) -> None:
        """`token` is the workers' own, "" if they have none. `several`: the workers share several
        pipelines, and `about` is not used.
        """
        self.several = several
        self._folder = folder
        self._token = token
        self._about = about or About()
        self._started_at = time.time()
        self._last: dict[str, Snapshot] = {}
        # Held while the workers are asked, so that no older answer follows a newer one.
        self._metrics_lock, self._snapshot_lock = threading.Lock(), threading.Lock()
        self._metrics_history: CounterHistory[_Values] = CounterHistory(_sums)
        self._snapshot_histories: dict[str, CounterHistory[Snapshot]] = {}
        self._families: dict[str, tuple[str, str]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric for all workers together: sums; of times the latest or earliest."""
        gauges: dict[_Key, list[float]] = {}
        with self._metrics_lock:
            answers = {
                place: None if text is None else self._read(text, gauges)
                for place, text in self._ask("/metrics").items()
            }
            past = self._metrics_history.update(answers)
        joined = _sums(*past, *(answer[1] for answer in answers.values() if answer))
        joined |= {key: join_gauge(key[1], found) for key, found in gauges.items()}
        merged = {name: Metric(name, *about) for name, about in list(self._families.items())}
        for (name, sample, labels), value in joined.items():
            merged[name].add_sample(sample, dict(labels), value)
        yield from (metric for metric in merged.values() if metric.samples)

    def _read(self, text: str, gauges: dict[_Key, list[float]]) -> tuple[float, _Values]:
        """Return when a worker began, and its counts; add its gauges to `gauges`."""
        began, of_process, counts = 0.0, False, _Values()
        for family in text_string_to_metric_families(text):
            counted = family.name.removesuffix("_created")
            if counted != family.name and counted in self._families:
                continue  # when a counter began; a sum of several has no such time
            self._families.setdefault(family.name, (family.documentation, family.type))
            for sample in family.samples:
                key = (family.name, sample.name, tuple(sorted(sample.labels.items())))
                if family.type in _COUNTING:
                    counts[key] = sample.value
                else:
                    gauges.setdefault(key, []).append(sample.value)
                if sample.name == _STARTED and not of_process:
                    began = sample.value
                elif sample.name == _PROCESS_STARTED:
                    began, of_process = sample.value, True
        return began, counts

    def health(self) -> tuple[bool, bytes]:
        """Return whether every worker that has started is healthy, and the workers' reports."""
        return self._reports("/livez", none_is_ok=True)

    def ready(self) -> tuple[bool, bytes]:
        """Return whether at least one worker has started and all are ready, and their reports.

        Of several pipelines one that is ready is enough, as in one process.
        """
        return self._reports("/readyz", none_is_ok=False)

    def snapshots(self) -> dict[str, Snapshot]:
        """Return one snapshot of each pipeline; the last one again if no worker answers for it."""
        with self._snapshot_lock:
            states = {place: _states(text) for place, text in self._ask("/state").items()}
            names = sorted({name for parts in states.values() for name in parts or ()})
            if not self.several:
                names = names or [*self._last] or [self._about.pipeline]
            elif any(parts is None for parts in states.values()):
                names = sorted({*names, *self._last})  # a worker that does not answer has some
            self._last = {
                name: self._snapshot(
                    name, {place: (parts or {}).get(name) for place, parts in states.items()}
                )
                for name in names
            }
            return self._last

    def tapped(self, name: str | None, since: float) -> list[TappedRow] | None:
        """Return a pipeline's rows that its workers have shown after `since`, the oldest first."""
        base = "" if name is None else f"/pipelines/{quote(name, safe='')}"
        answers = self._ask(f"{base}/tap?since={since!r}").values()
        shown = [text for text in answers if text and text.startswith('{"rows"')]
        if not shown and name is not None:
            return None
        found = [row for text in shown for row in msgspec.json.decode(text, type=TappedRows).rows]
        return sorted(found, key=attrgetter("at"))

    def _snapshot(self, name: str, parts: dict[str, Snapshot | None]) -> Snapshot:
        """Return one snapshot of a pipeline from its workers' ones, by place."""
        history = self._snapshot_histories.setdefault(name, CounterHistory(add_counts))
        past = history.update(
            {place: (part.started_at, part) if part else None for place, part in parts.items()}
        )
        if there := [part for part in parts.values() if part]:
            last = reduce(add_counts, past, merge(there))
            last.started_at = self._started_at
            return last
        if name in self._last:
            return msgspec.structs.replace(self._last[name], at=time.time(), processes=0)
        about = self._about
        return Snapshot(time.time(), self._started_at, name, about.queue, about.table, processes=0)

    def _reports(self, path: str, *, none_is_ok: bool) -> tuple[bool, bytes]:
        reports = [msgspec.json.decode(text) if text else None for text in self._ask(path).values()]
        if self.several:
            return self._reports_of_each(reports, none_is_ok=none_is_ok)
        ok = all(report is not None and report["ok"] for report in reports)
        ok = ok and (none_is_ok or bool(reports))
        return ok, msgspec.json.encode({"ok": ok, "workers": reports})

    @staticmethod
    def _reports_of_each(
        reports: list[dict[str, Any] | None], *, none_is_ok: bool
    ) -> tuple[bool, bytes]:
        each: dict[str, Any] = {}
        for report in reports:
            for name, one in (report or {}).get("pipelines", {}).items():
                if name not in each or one["ok"]:
                    each[name] = one
        answered = [report is not None for report in reports]
        # A worker that hangs is unwell; one whose pipelines all fail is not.
        ok = all(answered) if none_is_ok else any(one["ok"] for one in each.values())
        ok = ok and (not none_is_ok or all(report["ok"] for report in reports if report))
        body = {"ok": ok, "pipelines": dict(sorted(each.items())), "workers": answered}
        return ok, msgspec.json.encode(body)

    def _ask(self, path: str) -> dict[str, str | None]:
        """Return the answers by worker; None for a worker that does not answer."""
        files = sorted(self._folder.glob("*.address"))
        return {file.name: _get(file, path, self._token) for file in files}


class _State(msgspec.Struct):
    snapshot: Snapshot


class _States(msgspec.Struct):
    pipelines: dict[str, _State]


def _states(text: str | None) -> dict[str, Snapshot] | None:
    """Return a worker's snapshots by the name of the pipeline; None where it does not answer."""
    if text is None:
        return None
    if text.startswith('{"snapshot"'):
        snapshot = msgspec.json.decode(text, type=_State).snapshot
        return {snapshot.pipeline: snapshot}
    if text.startswith('{"pipelines"'):
        found = msgspec.json.decode(text, type=_States).pipelines
        return {name: state.snapshot for name, state in found.items()}
    return None


def _sums(*parts: _Values) -> _Values:
    sums: _Values = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


def _get(file: Path, path: str, token: str) -> str | None:
    """Return a worker's answer, of any status; None if there is none."""
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

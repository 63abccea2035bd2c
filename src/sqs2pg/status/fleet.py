"""One status view of several workers: their counters added up, the health of each.

Each worker serves its own `/metrics` and `/livez` on a loopback port and notes its address in a
file of a private folder; the parent asks all of them when it is asked. A worker that has not
noted one yet is starting, one that took it back has ended; one that has and does not answer is
not well. What was counted by workers that ended, were killed or are silent stays in the sums
(`counter_history.py`). Runs in the parent's status thread. Never sees a message.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from sqs2pg.status.counter_history import Past
from sqs2pg.status.snapshot import About, Snapshot, add_counts, join_gauge, merge

_ANSWER_S = 2.0
_STARTED = "sqs2pg_started_timestamp_seconds"
_COUNTING = ("counter", "histogram")

_Key = tuple[str, str, tuple[tuple[str, str], ...]]
"""A metric's name, a sample's, and its labels."""
_Values = dict[_Key, float]


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
        # Held while the workers are asked, so that no older answer comes after a newer one.
        self._metrics_turn, self._snapshot_turn = threading.Lock(), threading.Lock()
        self._past_metrics: Past[_Values] = Past(lambda one, other: _sums([one, other]))
        self._past_snapshots: Past[Snapshot] = Past(add_counts)
        self._families: dict[str, tuple[str, str]] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield each metric of the workers as one: the sum, of times the latest or soonest."""
        gauges: dict[_Key, list[float]] = {}
        with self._metrics_turn:
            answers = {
                place: None if text is None else self._read(text, gauges)
                for place, text in self._ask("/metrics").items()
            }
            past = self._past_metrics.beside(answers)
        joined = _sums([*past, *(answer[1] for answer in answers.values() if answer)])
        joined |= {key: join_gauge(key[1], found) for key, found in gauges.items()}
        merged = {name: Metric(name, *about) for name, about in list(self._families.items())}
        for (name, sample, labels), value in joined.items():
            merged[name].add_sample(sample, dict(labels), value)
        yield from (metric for metric in merged.values() if metric.samples)

    def _read(self, text: str, gauges: dict[_Key, list[float]]) -> tuple[float, _Values]:
        """Return when a worker began, and what it counts; add its gauges to the others'."""
        began, counts = 0.0, _Values()
        for family in text_string_to_metric_families(text):
            counted = family.name.removesuffix("_created")
            if counted != family.name and counted in self._families:
                continue  # of a counter or a histogram; a sum of several has no one beginning
            self._families.setdefault(family.name, (family.documentation, family.type))
            for sample in family.samples:
                key = (family.name, sample.name, tuple(sorted(sample.labels.items())))
                if family.type in _COUNTING:
                    counts[key] = sample.value
                else:
                    gauges.setdefault(key, []).append(sample.value)
                if sample.name == _STARTED:
                    began = sample.value
        return began, counts

    def health(self) -> tuple[bool, bytes]:
        """Return whether every worker that began answers and is well, and their reports."""
        return self._reports("/livez", none_is_well=True)

    def ready(self) -> tuple[bool, bytes]:
        """Return whether every worker that began is ready, and at least one is; their reports."""
        return self._reports("/readyz", none_is_well=False)

    def snapshot(self) -> Snapshot:
        """Return the workers as one; the last answer again where none of them answers."""
        with self._snapshot_turn:
            states = {place: _state(text) for place, text in self._ask("/state").items()}
            past = self._past_snapshots.beside(
                {place: (part.started_at, part) if part else None for place, part in states.items()}
            )
            parts = [part for part in states.values() if part]
            if parts:
                self._last = reduce(add_counts, past, merge(parts))
                self._last.started_at = self._started_at
            elif self._last:
                self._last = msgspec.structs.replace(self._last, at=time.time(), processes=0)
            else:
                about = self._about
                return Snapshot(
                    time.time(),
                    self._started_at,
                    about.pipeline,
                    about.queue,
                    about.table,
                    processes=0,
                )
            return self._last

    def _reports(self, path: str, *, none_is_well: bool) -> tuple[bool, bytes]:
        reports = [msgspec.json.decode(text) if text else None for text in self._ask(path).values()]
        ok = all(report is not None and report["ok"] for report in reports)
        ok = ok and (none_is_well or bool(reports))
        return ok, msgspec.json.encode({"ok": ok, "workers": reports})

    def _ask(self, path: str) -> dict[str, str | None]:
        """Return the answers by worker, None where there is none."""
        files = sorted(self._folder.glob("*.address"))
        return {file.name: _get(file, path, self._token) for file in files}


class _State(msgspec.Struct):
    snapshot: Snapshot


def _state(text: str | None) -> Snapshot | None:
    if text is None or not text.startswith('{"snapshot"'):
        return None
    return msgspec.json.decode(text, type=_State).snapshot


def _sums(parts: Iterable[_Values]) -> _Values:
    sums: _Values = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


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

"""The recorder: a snapshot a second, and the half hour behind it, for whoever looks.

A thread of the status server. Off where there is no status server. What it costs is one walk over
the registry a second. Everybody who looks is given the same points.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from sqs2pg.status.snapshot import Snapshot, Stage, Take, quantile

EVERY_S = 1.0
KEPT = 1800
"""Points, a second apart: half an hour."""

log = structlog.get_logger(__name__)


class Point(msgspec.Struct, array_like=True):
    """One second. Rates are a second's, in messages; times in seconds; None: not known."""

    at: float
    received: float
    written: float
    duplicate: float
    quarantined: float
    deleted: float
    faults: float
    lag_p50: float | None
    lag_p95: float | None
    held: float | None
    visible: float | None
    oldest_age: float | None
    dead_letters: float | None
    busy: dict[str, float]
    """By stage: seconds of work a second, of all batches or requests together."""


def point_between(before: Snapshot, after: Snapshot) -> Point:
    """Return what happened between two snapshots of one pipeline."""
    span_s = max(0.001, after.at - before.at)

    def rate(name: str) -> float:
        # A worker that was started again counts from nought: no rate is below it.
        grown = after.counts.get(name, 0.0) - before.counts.get(name, 0.0)
        return round(max(0.0, grown) / span_s, 1)

    def busy(name: str, stage: Stage) -> float:
        spent = stage.seconds - before.stages.get(name, Stage()).seconds
        return round(max(0.0, spent) / span_s, 4)

    faults = sum(after.faults.values()) - sum(before.faults.values())
    return Point(
        at=round(after.at, 2),
        received=rate("received"),
        written=rate("written"),
        duplicate=rate("duplicate"),
        quarantined=rate("quarantined"),
        deleted=rate("deleted"),
        faults=round(max(0.0, faults) / span_s, 1),
        lag_p50=_rounded(quantile(before.lag, after.lag, 0.5)),
        lag_p95=_rounded(quantile(before.lag, after.lag, 0.95)),
        held=after.gauges.get("in_flight_messages"),
        visible=after.gauges.get("queue_visible_messages"),
        oldest_age=_rounded(after.gauges.get("queue_oldest_age_seconds")),
        dead_letters=after.gauges.get("dlq_visible_messages"),
        busy={name: busy(name, stage) for name, stage in after.stages.items()},
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


class Moment(msgspec.Struct):
    """What is sent to whoever looks: the snapshot, the last second's point."""

    snapshot: Snapshot
    point: Point


class Recorder:
    """Takes a snapshot each second until closed; keeps the points."""

    def __init__(self, take: Take, *, every_s: float = EVERY_S) -> None:
        self._take = take
        self._every_s = every_s
        self._news = threading.Condition()
        self._points: deque[Point] = deque(maxlen=KEPT)
        self._before = take()
        self.moment = Moment(self._before, point_between(self._before, self._before))
        self.closed = False
        self._thread = threading.Thread(target=self._record, name="recorder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End recording; whoever waits is told."""
        with self._news:
            self.closed = True
            self._news.notify_all()
        self._thread.join()

    def history(self) -> list[Point]:
        """Return the points that are kept, oldest first."""
        with self._news:
            return list(self._points)

    def wait(self, seen: Moment | None, timeout_s: float) -> Moment | None:
        """Return the next moment after `seen`; None where there is none in time, or no more."""
        with self._news:
            self._news.wait_for(lambda: self.closed or self.moment is not seen, timeout_s)
            return None if self.closed or self.moment is seen else self.moment

    def _record(self) -> None:
        due = time.monotonic() + self._every_s
        while True:
            with self._news:
                if self._news.wait_for(lambda: self.closed, max(0.0, due - time.monotonic())):
                    return
            due = max(due + self._every_s, time.monotonic())
            try:
                after = self._take()
            except Exception as error:  # noqa: BLE001  a light must not go out for good
                log.warning("no snapshot", code=type(error).__name__)
                continue
            point = point_between(self._before, after)
            self._before = after
            with self._news:
                self._points.append(point)
                self.moment = Moment(after, point)
                self._news.notify_all()


@contextmanager
def recording(take: Take, *, wanted: bool = True) -> Iterator[Recorder | None]:
    """Record for as long as the block runs; yield None where it is not wanted."""
    recorder = Recorder(take) if wanted else None
    try:
        yield recorder
    finally:
        if recorder:
            recorder.close()

"""The recorder: one snapshot of each pipeline per second, and the points of the last half hour.

It is a thread, and runs only if there is a status server or a live view. It costs one walk over the
registry per snapshot; with many pipelines they are taken less often. All clients get the same
points.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec
import structlog

from sqs2pg.status.snapshot import Snapshot, StageTime, lag_quantile

EVERY_S = 1.0
POINTS_MAX = 1800
"""Points that are kept, a second apart: half an hour."""
_PIPELINES_AT_ONCE = 10
_OF_WRITERS = {"decode", "mask", "write", "commit"}

log = structlog.get_logger(__name__)


class Point(msgspec.Struct, array_like=True):
    """One second. Rates in messages per second, times in seconds; None means not known."""

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
    """By stage. Of `decode`, `mask`, `write` and `commit`: the share of the writers' time, 0 to 1;
    what batches under way have taken so far counts as `write`. Of the others: seconds of requests
    per second."""


def point_between(before: Snapshot, after: Snapshot) -> Point:
    """Return what happened between two snapshots of one pipeline."""
    span_s = max(0.001, after.at - before.at)

    def rate(name: str) -> float:
        # A worker that was started again counts from 0; a rate is never negative.
        grown = after.counts.get(name, 0.0) - before.counts.get(name, 0.0)
        return round(max(0.0, grown) / span_s, 1)

    def busy(name: str, stage: StageTime) -> float:
        spent = stage.seconds - before.stages.get(name, StageTime()).seconds
        if name not in _OF_WRITERS:
            return round(max(0.0, spent) / span_s, 4)
        if name == "write":
            # A batch that took minutes is not all work of the second in which it ended.
            spent += after.under_way_s - before.under_way_s
        return round(min(max(0.0, spent) / span_s / after.writers, 1.0), 4)

    def fresh(gauge: str, reading: str) -> float | None:
        return None if reading in after.stale else after.gauges.get(gauge)

    faults = sum(after.faults.values()) - sum(before.faults.values())
    return Point(
        at=round(after.at, 2),
        received=rate("received"),
        written=rate("written"),
        duplicate=rate("duplicate"),
        quarantined=rate("quarantined"),
        deleted=rate("deleted"),
        faults=round(max(0.0, faults) / span_s, 1),
        lag_p50=_rounded(lag_quantile(before.lag, after.lag, 0.5)),
        lag_p95=_rounded(lag_quantile(before.lag, after.lag, 0.95)),
        held=after.gauges.get("in_flight_messages"),
        visible=fresh("queue_visible_messages", "queue"),
        oldest_age=_rounded(fresh("queue_oldest_age_seconds", "queue")),
        dead_letters=fresh("dlq_visible_messages", "dead_letters"),
        busy={name: busy(name, stage) for name, stage in after.stages.items()},
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


class Moment(msgspec.Struct):
    """What clients are sent: the snapshot, and the point of the last second."""

    snapshot: Snapshot
    point: Point


class Track:
    """The moments of one pipeline: the last one, and the points that are kept."""

    def __init__(self, first: Snapshot, changed: threading.Condition, every_s: float) -> None:
        points_max = max(60, int(POINTS_MAX * EVERY_S / max(EVERY_S, every_s)))
        self.every_s = every_s
        """Seconds between two moments."""
        self._changed = changed
        self._points: deque[Point] = deque(maxlen=points_max)
        self.moment = Moment(first, point_between(first, first))
        self.closed = False

    def history(self) -> list[Point]:
        """Return the points that are kept, oldest first."""
        with self._changed:
            return list(self._points)

    def wait(self, seen: Moment | None, timeout_s: float) -> Moment | None:
        """Return the next moment after `seen`; None at the timeout, or once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self.moment is not seen, timeout_s)
            return None if self.closed or self.moment is seen else self.moment

    def add(self, after: Snapshot) -> None:
        """Add the present moment, with the condition held."""
        point = point_between(self.moment.snapshot, after)
        self._points.append(point)
        self.moment = Moment(after, point)


TakeSnapshots = Callable[[], Mapping[str, Snapshot]]
"""Returns the present moment of each pipeline, by name."""


class Recorder:
    """Takes snapshots until it is closed; keeps a track of each pipeline."""

    def __init__(self, take: TakeSnapshots, *, every_s: float = 0.0) -> None:
        """`every_s`: seconds between two snapshots; 0: 1, and longer for more than ten pipelines.

        They always cost one core about the same share, and the points the same memory.
        """
        self._take = take
        self._changed = threading.Condition()
        self.closed = False
        first = take()
        self._every_s = every_s or EVERY_S * max(1.0, len(first) / _PIPELINES_AT_ONCE)
        self.tracks: dict[str, Track] = {}
        """By name of the pipeline; read only."""
        self._follow(first)
        self._thread = threading.Thread(target=self._record, name="recorder", daemon=True)
        self._thread.start()

    @property
    def only(self) -> Track:
        """The track of the only pipeline."""
        [track] = self.tracks.values()
        return track

    def close(self) -> None:
        """Stop recording, and wake the threads that wait."""
        with self._changed:
            self.closed = True
            for track in self.tracks.values():
                track.closed = True
            self._changed.notify_all()
        self._thread.join()

    def moments(self) -> dict[str, Moment]:
        """Return the last moment of each pipeline, by name."""
        with self._changed:
            return {name: track.moment for name, track in self.tracks.items()}

    def wait(self, timeout_s: float) -> dict[str, Moment] | None:
        """Return the next moments of all; None at the timeout, or once it is closed."""
        with self._changed:
            if not self._changed.wait(timeout_s) or self.closed:
                return None
        return self.moments()

    def _follow(self, taken: Mapping[str, Snapshot]) -> None:
        for name in [name for name in self.tracks if name not in taken]:
            self.tracks.pop(name).closed = True
        for name, snapshot in taken.items():
            if track := self.tracks.get(name):
                track.add(snapshot)
            else:
                self.tracks[name] = Track(snapshot, self._changed, self._every_s)

    def _record(self) -> None:
        due = time.monotonic() + self._every_s
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self.closed, max(0.0, due - time.monotonic())):
                    return
            due = max(due + self._every_s, time.monotonic())
            try:
                taken = self._take()
            except Exception as error:  # noqa: BLE001  one failed snapshot must not end the recording
                log.warning("no snapshot", code=type(error).__name__)
                continue
            with self._changed:
                self._follow(taken)
                self._changed.notify_all()


@contextmanager
def recording(take: TakeSnapshots, *, wanted: bool = True) -> Iterator[Recorder | None]:
    """Record for as long as the block runs; yield None if it is not wanted."""
    recorder = Recorder(take) if wanted else None
    try:
        yield recorder
    finally:
        if recorder:
            recorder.close()

"""Liveness: whether the process makes progress, judged by the age of its last poll and write.

A process is not unhealthy because its database or queue is away: a restart would bring neither
back, and would give up the leases it holds. It is unhealthy if no poll was answered or failed, or
if a write is under way and none was committed or failed, for longer than any single step may take.
While messages are settled it is never unhealthy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from sqs2pg.settings import Settings, write_limit_s

MARGIN_S = 60.0
"""Added to the longest single step: for backoff, garbage collection, a slow machine."""


class Liveness:
    """When the pipeline last polled and wrote. It writes this; the status thread reads it."""

    def __init__(self, settings: Settings) -> None:
        now = time.monotonic()
        self.polled = now
        """time.monotonic() of the last poll that was answered, or that failed."""
        self.wrote = now
        """time.monotonic() of the last batch that was committed, that failed, or that was begun
        while no other was under way."""
        self.settled = -math.inf
        """time.monotonic() when a message of a batch was last settled."""
        self.paused = False
        """Whether receiving is paused because the database is away."""
        self.pipeline_paused = False
        """Whether the pipeline is paused on record: no poll is due."""
        self._under_way: dict[object, float] = {}  # when each batch was begun
        self._poll_max_s = settings.source.wait_time_s + MARGIN_S
        self._write_max_s = write_limit_s(settings.sink.statement_timeout_s) + MARGIN_S

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Note that a writer has a batch under way, its retries included, while the block runs."""
        now, batch = time.monotonic(), object()
        if not self._under_way:
            self.wrote = now
        self._under_way[batch] = now
        try:
            yield
        finally:
            del self._under_way[batch]

    def under_way_s(self) -> float:
        """Return how long the batches under way have taken so far, all together, in seconds."""
        now = time.monotonic()
        return sum(now - began for began in list(self._under_way.values()))

    def waiting_s(self) -> float:
        """Return for how long batches are under way and none has ended or failed, in seconds."""
        return time.monotonic() - self.wrote if self._under_way else 0.0

    def tried(self, *, settled: bool) -> None:
        """Note that a try of a batch ended, and whether it settled any message."""
        self.wrote = time.monotonic()
        if settled:
            self.settled = self.wrote

    def resume(self) -> None:
        """Note that receiving goes on, if it was paused: from now on polls are due again."""
        if self.paused:
            self.paused = False
            self.polled = time.monotonic()

    def pipeline_resumed(self) -> None:
        """Note that the pipeline is paused on record no longer: from now on polls are due again."""
        if self.pipeline_paused:
            self.pipeline_paused = False
            self.polled = time.monotonic()

    def report(self) -> LivenessReport:
        """Return how old the last poll and the last write are, with their bounds."""
        now = time.monotonic()
        poll_s, write_s = now - self.polled, now - self.wrote
        writing = bool(self._under_way)
        writes_go_on = writing and write_s <= self._write_max_s
        # If the budget is used up, polls wait for writes and may stand still.
        polls_go_on = poll_s <= self._poll_max_s or self.paused or writes_go_on
        polls_go_on = polls_go_on or self.pipeline_paused
        return LivenessReport(
            ok=(polls_go_on and (writes_go_on or not writing)) or now - self.settled <= MARGIN_S,
            last_poll_s=round(poll_s, 1),
            last_poll_max_s=self._poll_max_s,
            last_write_s=round(write_s, 1) if writing else 0.0,
            last_write_max_s=self._write_max_s,
            receiving_paused=self.paused,
            paused=self.pipeline_paused,
        )

    def health(self) -> tuple[bool, bytes]:
        """Return whether the process makes progress, and the report as JSON."""
        report = self.report()
        return report.ok, msgspec.json.encode(report)


class ReadinessCheck(msgspec.Struct, frozen=True):
    """One check of /readyz. `detail` is a fixed text of ours or a fault code."""

    ok: bool
    detail: str = ""


class LivenessReport(msgspec.Struct, frozen=True):
    """The answer of /livez. Ages in seconds; `last_write_s` is 0 while no write is under way."""

    ok: bool
    last_poll_s: float
    last_poll_max_s: float
    last_write_s: float
    last_write_max_s: float
    receiving_paused: bool
    """Because the database is away."""
    paused: bool
    """On record: by an operator, or by itself."""

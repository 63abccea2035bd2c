"""Liveness: whether the process makes progress, judged by the age of its last poll and write.

A process is not unhealthy because its database or queue is away: a restart would bring neither
back, and would give up the leases it holds. It is unhealthy if no poll was answered or failed, or
if a write is under way and none was committed or failed, for longer than any single step may take.
"""

from __future__ import annotations

import time

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
        self.writing = 0
        """How many batches are under way."""
        self.paused = False
        """Whether receiving is paused because the database is away."""
        self._poll_max_s = settings.source.wait_time_s + MARGIN_S
        self._write_max_s = write_limit_s(settings.sink.statement_timeout_s) + MARGIN_S

    def begin_write(self) -> None:
        """Note that a writer begins a batch."""
        if not self.writing:
            self.wrote = time.monotonic()
        self.writing += 1

    def report(self) -> LivenessReport:
        """Return how old the last poll and the last write are, with their bounds."""
        now = time.monotonic()
        poll_s, write_s = now - self.polled, now - self.wrote
        writes_go_on = self.writing > 0 and write_s <= self._write_max_s
        # If the budget is used up, polls wait for writes and may stand still.
        polls_go_on = poll_s <= self._poll_max_s or self.paused or writes_go_on
        return LivenessReport(
            ok=polls_go_on and (writes_go_on or not self.writing),
            last_poll_s=round(poll_s, 1),
            last_poll_max_s=self._poll_max_s,
            last_write_s=round(write_s, 1) if self.writing else 0.0,
            last_write_max_s=self._write_max_s,
            receiving_paused=self.paused,
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

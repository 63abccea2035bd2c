"""Liveness: whether the process still gets on with its work, by the age of what it last did.

A database or a queue that is away does not make it unhealthy: starting again would not bring
either back, and would give up the leases it holds. What does is silence: no poll answered or
tried, or messages in hand and no write ended or tried, for longer than any single step may take.
"""

from __future__ import annotations

import time

import msgspec

from sqs2pg.settings import Settings, write_limit_s

MARGIN_S = 60.0
"""On top of the longest single step: backoff, garbage, a slow machine."""


class Pulse:
    """When the process last did what; written by the pipeline, read by the status thread."""

    def __init__(self, settings: Settings) -> None:
        now = time.monotonic()
        self.polled = now
        """A poll was answered, or failed and was put off."""
        self.wrote = now
        """A batch was committed, or failed and was put off, or begun with no other under way."""
        self.writing = 0
        """Batches under way."""
        self.paused = False
        """Receiving is paused, because the database is away."""
        self._poll_max_s = settings.source.wait_time_s + MARGIN_S
        self._write_max_s = write_limit_s(settings.sink.statement_timeout_s) + MARGIN_S

    def begin_write(self) -> None:
        """A writer takes up a batch."""
        if not self.writing:
            self.wrote = time.monotonic()
        self.writing += 1

    def check(self) -> Report:
        """Return how old the last poll and the last write are, against their bounds."""
        now = time.monotonic()
        poll_s, write_s = now - self.polled, now - self.wrote
        writes_go_on = self.writing > 0 and write_s <= self._write_max_s
        # With the budget used up polls wait for writes, and may well stand still.
        polls_go_on = poll_s <= self._poll_max_s or self.paused or writes_go_on
        return Report(
            ok=polls_go_on and (writes_go_on or not self.writing),
            last_poll_s=round(poll_s, 1),
            last_poll_max_s=self._poll_max_s,
            last_write_s=round(write_s, 1) if self.writing else 0.0,
            last_write_max_s=self._write_max_s,
            receiving_paused=self.paused,
        )

    def health(self) -> tuple[bool, bytes]:
        """Return whether the process is well, and the report as JSON."""
        report = self.check()
        return report.ok, msgspec.json.encode(report)


class Check(msgspec.Struct, frozen=True):
    """One answer of /readyz; the detail is in our words, or a code."""

    ok: bool
    detail: str = ""


class Report(msgspec.Struct, frozen=True):
    """The answer of /livez; ages in seconds, that of the last write 0 where none is under way."""

    ok: bool
    last_poll_s: float
    last_poll_max_s: float
    last_write_s: float
    last_write_max_s: float
    receiving_paused: bool

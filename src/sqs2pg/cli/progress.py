"""Progress of a long command: a live line on a terminal, log lines off it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from sqs2pg.mask.brute_force import duration

if TYPE_CHECKING:
    from rich.progress import Progress

_EVERY_S = 5.0
_REFRESH_S = 0.2
_RATE_OVER_S = 5.0
_IDLE_TURNS = 12
"""Off a terminal, one line in so many turns where nothing has changed: once a minute."""
_BAR_WIDTH = 12

log = structlog.get_logger(__name__)


class RecentRate:
    """The rate of the last seconds, from counts as they are read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])

    def __call__(self, done: int) -> float:
        """Note how many are done now; return how many a second were, over about five seconds."""
        now = self._clock()
        self._seen.append((now, done))
        # One reading from before the window stays: the rate is from there to now.
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RATE_OVER_S:
            self._seen.popleft()
        began, before = self._seen[0]
        return max(0.0, (done - before) / max(0.001, now - began))


class Ticker:
    """Shows `done` of `total`, the rate of the last seconds and a few counts, until closed.

    `read` returns the state: how many are done, how many in all (None: not known), and counts
    by name. It is called a few times a second on a terminal, every five seconds off one. There a
    line goes to the log, or to `say`; while nothing changes, one a minute.
    """

    def __init__(
        self,
        label: str,
        read: Callable[[], tuple[int, int | None, dict[str, int]]],
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._label = label
        self._read = read
        self._say = say
        self._task: asyncio.Task[None] | None = None
        self._rate = RecentRate()

    async def __aenter__(self) -> Self:
        show = self._show_live if sys.stderr.isatty() else self._show_lines
        self._task = asyncio.create_task(show())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _show_lines(self) -> None:
        told, unchanged = None, 0
        while True:
            await asyncio.sleep(_EVERY_S)
            state = done, total, counts = self._read()
            rate = self._rate(done)
            # The first line of an idle time tells that the rate is 0 now.
            unchanged = unchanged + 1 if (state, rate) == told else 0
            if unchanged % _IDLE_TURNS:
                continue
            told = state, rate
            if self._say:
                self._say(f"{self._label} {state_text(done, total, counts, rate)}")
                continue
            left = {} if total is None else {"left": max(0, total - done)}
            log.info(self._label, count=done, messages_per_second=round(rate, 1), **left, **counts)

    async def _show_live(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        # A bar without a total would only move to and fro, and take the counts' place.
        bar = [] if self._read()[1] is None else [BarColumn(bar_width=_BAR_WIDTH)]
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            *bar,
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # a result for a pipe must not go to the console
        ) as progress:
            task = progress.add_task(self._label, total=None, state="")
            try:
                while True:
                    self._paint(progress, task)
                    await asyncio.sleep(_REFRESH_S)
            finally:
                self._paint(progress, task)

    def _paint(self, progress: Progress, task: object) -> None:
        done, total, counts = self._read()
        state = state_text(done, total, counts, self._rate(done))
        progress.update(task, completed=done, total=total, state=state)  # type: ignore[arg-type]


def state_text(done: int, total: int | None, counts: dict[str, int], rate: float) -> str:
    """Return the state in words; `rate` is per second."""
    shown_rate = f"{rate:,.1f}" if 0.05 <= rate < 10 else f"{rate:,.0f}"  # 0 is an idle time
    parts = [f"{done:,} done" if total is None else f"{done:,} of {total:,}", f"{shown_rate}/s"]
    parts += [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count]
    more = 0 if total is None else max(0, total - done)
    if more and rate:
        parts.append(f"about {duration(more / rate)} left")
    return ", ".join(parts)

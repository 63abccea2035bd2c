"""Progress of a long command: a live line on a terminal, log lines off it."""

from __future__ import annotations

import asyncio
import sys
import time
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

log = structlog.get_logger(__name__)


class Ticker:
    """Shows `done` of `total`, the rate and a few counts, until closed.

    `read` returns the state: how many are done, how many in all (None: not known), and counts
    by name. It is called a few times a second on a terminal, every five seconds off one.
    """

    def __init__(
        self, label: str, read: Callable[[], tuple[int, int | None, dict[str, int]]]
    ) -> None:
        self._label = label
        self._read = read
        self._task: asyncio.Task[None] | None = None
        self._began = time.monotonic()

    async def __aenter__(self) -> Self:
        show = self._show_live if sys.stderr.isatty() else self._log_lines
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

    async def _log_lines(self) -> None:
        before = 0
        while True:
            await asyncio.sleep(_EVERY_S)
            done, total, counts = self._read()
            left = {} if total is None else {"left": max(0, total - done)}
            rate = round((done - before) / _EVERY_S, 1)
            log.info(self._label, count=done, messages_per_second=rate, **left, **counts)
            before = done

    async def _show_live(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
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
        rate = done / max(0.001, time.monotonic() - self._began)
        left = ""
        if total is not None:
            more = max(0, total - done)
            left = f", {more:,} left" + (f", about {duration(more / rate)}" if rate else "")
        state = f"{done:,} done{left}, {rate:,.0f}/s  " + " ".join(
            f"{name} {count:,}" for name, count in counts.items() if count
        )
        progress.update(task, completed=done, total=total, state=state)  # type: ignore[arg-type]

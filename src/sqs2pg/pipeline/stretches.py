"""A consumer that pauses: it consumes in stretches, each from a resume to the next pause.

A pause ends a stretch as a stop ends the process: no new poll is sent, what is held is settled
within the grace period, and the rest is released. Then nothing is held, no lease runs, and only the
upkeep of the books goes on until the pipeline is resumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal

from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.books_upkeep import Upkeep, keep_books
from sqs2pg.pipeline.consumer import LAST_S, Consumer
from sqs2pg.pipeline.pause_watch import PauseWatch, Reader
from sqs2pg.pipeline.totals import Totals
from sqs2pg.postgres.pauses import Pause
from sqs2pg.telemetry.metrics import Metrics

_FIRST_LOOKS = 3
"""How often a start tries to read whether the pipeline is paused."""
_LOOK_AGAIN_S = 0.2
"""By how much the wait after each of them grows, seconds."""


class Stretches:
    """Runs one consumer after the other, over the same queue, sinks and counts."""

    def __init__(
        self,
        make: Callable[[Consumer | None], Consumer],
        watch: PauseWatch,
        reader: Callable[[], Reader],
        upkeep: Upkeep,
        metrics: Metrics,
        grace_s: float,
    ) -> None:
        """`make` returns a consumer whose counts go on from those of the one given.

        `reader`: what reads the pause while nothing is consumed. `grace_s`: `shutdown_grace_s`.
        """
        self._make = make
        self._watch = watch
        self._reader = reader
        self._upkeep = upkeep
        self._metrics = metrics
        self._grace_s = grace_s
        self._stopping = asyncio.Event()
        self._stopped_at = 0.0
        self.waits = False
        """Whether it is paused and holds nothing. Read only."""
        self.consumer = make(None)
        """The one of this stretch, or of the last one. Read only."""

    def stop(self) -> None:
        """End receiving; `run` returns when the messages held are settled or released."""
        if not self._stopping.is_set():
            self._stopped_at = time.monotonic()
        self._stopping.set()
        self.consumer.stop()

    @property
    def pause(self) -> Pause | None:
        """The pause in force, as this process knows it."""
        return self._watch.pause

    @property
    def pause_read_at(self) -> float:
        """time.monotonic() when the pause was last read."""
        return self._watch.read_at

    def time_left_s(self) -> float:
        """Return what is left of the grace period, in seconds; little, but never nothing."""
        if not self.waits:
            return self.consumer.time_left_s()
        if not self._stopping.is_set():
            return self._grace_s
        return max(LAST_S, self._stopped_at + self._grace_s - time.monotonic())

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Consume until `stop`, or until the queue has been empty for `drain_settle_s` seconds.

        Raises as `Consumer.run`, and FatalFault `paused` where a drain meets a pause: it would not
        end.
        """
        await self._look_first()
        while True:
            self._watch.changed.clear()
            paused = self._watch.pause is not None
            if not paused:
                paused = await self._consume(drain_settle_s)
            if not paused or self._stopping.is_set():
                return self.consumer.totals
            if drain_settle_s is not None:
                raise paused_drain(self._watch.pause)
            await self._wait()
            if self._stopping.is_set():
                return self.consumer.totals
            self.consumer = self._make(self.consumer)

    async def _look_first(self) -> None:
        """Read whether it is paused before anything is received."""
        for attempt in range(_FIRST_LOOKS):
            if await self._watch.look_first(self._reader()) or self._stopping.is_set():
                return
            await asyncio.sleep(attempt * _LOOK_AGAIN_S)

    async def _consume(self, drain_settle_s: float | None) -> bool:
        """Consume to the end of the stretch; return whether a pause ended it."""
        run = asyncio.create_task(self.consumer.run(drain_settle_s=drain_settle_s))
        changed = asyncio.create_task(self._watch.changed.wait())
        try:
            await asyncio.wait([run, changed], return_when=asyncio.FIRST_COMPLETED)
            if paused := not (run.done() or self._stopping.is_set()):
                self.consumer.pause()
                changed = await self._await_end(run)
            await run
            return paused
        finally:
            run.cancel()
            changed.cancel()
            await asyncio.wait([run, changed])

    async def _await_end(self, run: asyncio.Task[Totals]) -> asyncio.Task[Literal[True]]:
        """Wait for the end of a stretch that is paused; hurry if the pipeline is resumed meanwhile.

        Returns a task that the caller ends.
        """
        self._watch.changed.clear()
        changed = asyncio.create_task(self._watch.changed.wait())
        await asyncio.wait([run, changed], return_when=asyncio.FIRST_COMPLETED)
        self.consumer.stop()
        return changed

    async def _wait(self) -> None:
        """Wait until the pipeline is resumed, or a stop is requested."""
        self.waits = True
        watch = self._watch
        try:
            async with asyncio.TaskGroup() as group:
                books = group.create_task(keep_books(self._upkeep, self._metrics))
                while watch.pause is not None and not self._stopping.is_set():
                    if watch.is_due():
                        await watch.look(self._reader())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(watch.wait_s()):
                            await self._stopping.wait()
                books.cancel()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self.waits = self._stopping.is_set()


def paused_drain(pause: Pause | None = None) -> FatalFault:
    """Return the fault of a drain that meets a pause: it would not end."""
    since = f" since {pause.since_text}, {pause.cause}" if pause else ""
    return FatalFault(
        f"the pipeline is paused{since}; the queue is not drained",
        code="paused",
        hint="`sqs2pg resume` ends the pause; then run the same command again",
    )

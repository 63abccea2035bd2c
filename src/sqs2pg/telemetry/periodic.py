"""Periodic readings of what surrounds the pipeline, such as queue and server: each has a slow loop.

Place in the flow: beside it, in the event loop. Readings set gauges. A reading that fails or hangs
is counted, logged and tried again sooner. It delays neither the pipeline nor another reading, and
never ends the process. A slow one that works is done less often, and so is one that has nothing new
to find.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Self

import structlog

from sqs2pg.errors import Sqs2pgError, Stage
from sqs2pg.telemetry.metrics import Metrics

LIMIT_S = 30.0
"""Limit on one reading, seconds."""
END_S = 3.0
"""Limit on the end: on the readings under way, and on those that are done once more, seconds."""
AGAIN_S = 2.0
"""Wait after a failed reading, seconds: short, so that alerts clear soon after the fault."""
SLOW_S = 5.0
"""A reading that takes longer is shown as late, before it is given up."""
_EASE = 10  # a reading that works takes at most a tenth of the time
EARLY_S = 2.0
"""The least time between two readings where the second one is wanted early, seconds."""
LOOK_S = 0.5
"""How often to look whether a reading is wanted early, seconds."""
REST_S = 60.0
"""The most time between two readings while nothing happens, unless `every_s` is longer."""
RESTS = 6.0
"""How many times `every_s` that is at most."""

log = structlog.get_logger(__name__)


class PeriodicReading(NamedTuple):
    """Something that is read every `every_s` seconds."""

    what: str
    """Its name: the label of `watch_timestamp_seconds`."""
    every_s: float
    read: Callable[[], Awaitable[None]]
    at_end: bool = False
    """Whether it is done once more at the end."""
    wanted_early: Callable[[], bool] | None = None
    """Whether there is reason to read before the time is over; None: there never is."""
    at_rest: Callable[[], bool] | None = None
    """Whether nothing happens that the reading could find: then the next one waits for twice as
    long as this one did, up to REST_S, and comes early once something happens. None: never."""

    def next_s(self, waited_s: float) -> float:
        """Return how long to wait for the next reading, `waited_s` having been the wait before."""
        if self.at_rest is None or not self.at_rest():
            return self.every_s
        return max(self.every_s, min(REST_S, RESTS * self.every_s, 2 * waited_s))

    def is_wanted(self, wait_s: float) -> bool:
        """Whether to read before a wait of `wait_s` is over."""
        if wait_s > self.every_s and self.at_rest is not None and not self.at_rest():
            return True
        return self.wanted_early is not None and self.wanted_early()


class PeriodicReadings:
    """Reads for as long as its block runs: `async with readings: …`."""

    def __init__(
        self,
        readings: Sequence[PeriodicReading],
        metrics: Metrics,
        time_left_s: Callable[[], float] = lambda: END_S,
    ) -> None:
        """`time_left_s`: how long the end may take at most, asked at the end."""
        self._readings = readings
        self._time_left_s = time_left_s
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []
        # By reading, time.monotonic(): when one that is under way began, when the last one worked.
        self._begun: dict[str, float] = {}
        self._worked: dict[str, float] = {}
        self._failing: set[str] = set()
        self._waits: dict[str, float] = {}  # how long the wait for the next one is
        self._ending = False

    async def __aenter__(self) -> Self:
        self._ending = False
        self._tasks = [asyncio.create_task(self._repeat(reading)) for reading in self._readings]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._ending = True
        limit_s = min(END_S, self._time_left_s())
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        limit_s = min(END_S, self._time_left_s())
        last = [self._read(reading, limit_s) for reading in self._readings if reading.at_end]
        await asyncio.gather(*last)

    def stale_s(self) -> dict[str, float]:
        """Return for how many seconds readings have not worked: those that fail or take long.

        The numbers that they read are as old as that. May be called from another thread.
        """
        now = time.monotonic()
        late = {what for what, began in list(self._begun.items()) if now - began > SLOW_S}
        return {
            what: round(now - self._worked[what], 1)
            for what in sorted(late.union(self._failing))
            if what in self._worked  # "not read yet" is said elsewhere
        }

    def resting_s(self) -> dict[str, float]:
        """Return how old the numbers of the readings are that rest, seconds.

        May be called from another thread.
        """
        now, every_s = time.monotonic(), {one.what: one.every_s for one in self._readings}
        return {
            what: round(now - self._worked[what], 1)
            for what, wait_s in sorted(self._waits.copy().items())
            if wait_s > every_s[what] and what in self._worked
        }

    async def _repeat(self, reading: PeriodicReading) -> None:
        rest_s = reading.every_s
        while True:
            began = time.monotonic()
            ok = await self._read(reading)
            if self._ending:
                return  # the reading took the cancellation: asyncio.wait_for of 3.11 may
            took_s = time.monotonic() - began
            ease_s = _EASE * took_s if ok else 0.0
            rest_s = reading.next_s(rest_s) if ok else reading.every_s
            self._waits[reading.what] = rest_s
            wait_s = max(rest_s, ease_s) if ok else min(AGAIN_S, reading.every_s)
            # Spread out, so that fifty pipelines started together do not all ask at once.
            wait_s *= random.uniform(0.9, 1.1)  # noqa: S311  not a secret
            await _pause(reading, rest_s, wait_s, max(EARLY_S, ease_s))

    async def _read(self, reading: PeriodicReading, limit_s: float | None = None) -> bool:
        self._begun[reading.what] = time.monotonic()
        try:
            async with asyncio.timeout(limit_s or LIMIT_S):
                await reading.read()
        except Sqs2pgError as fault:
            code = fault.code
        except TimeoutError:
            code = "reading_timeout"
        except Exception as error:  # noqa: BLE001  a failed reading must not end the pipeline
            code = f"unexpected_{type(error).__name__}"
        else:
            self._metrics.watched.labels(reading.what).set(time.time())
            self._worked[reading.what] = time.monotonic()
            self._failing.discard(reading.what)
            return True
        finally:
            self._begun.pop(reading.what, None)
        self._failing.add(reading.what)
        self._metrics.count_fault(Stage.STATUS, code)
        log.warning("reading failed; it will be tried again", where=reading.what, code=code)
        return False


async def _pause(reading: PeriodicReading, rest_s: float, wait_s: float, least_s: float) -> None:
    """Wait until a reading is due, or wanted early; at least for `least_s`.

    `rest_s` is what `next_s` returned, `wait_s` what was made of it.
    """
    due = time.monotonic() + wait_s
    await asyncio.sleep(min(wait_s, least_s))
    looks = reading.wanted_early is not None or rest_s > reading.every_s
    while (left_s := due - time.monotonic()) > 0:
        if not looks:
            await asyncio.sleep(left_s)
        elif reading.is_wanted(rest_s):
            return
        else:
            await asyncio.sleep(min(left_s, LOOK_S))

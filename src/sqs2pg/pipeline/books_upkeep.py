"""The hourly upkeep of the books, for as long as a pipeline runs, paused or not."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from sqs2pg.errors import TransientFault
from sqs2pg.telemetry.metrics import Metrics

UPKEEP_EVERY_S = 3600.0
BEGIN_AFTER_S = 0.1
"""How long after a start upkeep begins: the first poll goes before it."""

Upkeep = Callable[[], Awaitable[None]]
"""One turn of the books' hourly upkeep. Raises TransientFault."""

log = structlog.get_logger(__name__)


class SharedUpkeep:
    """The upkeep of one database's books, which the pipelines of a process do for each other.

    Each one asks at each of its turns. Who is the first does what is about the whole database; the
    others leave it out, until the next hour or until it failed.
    """

    def __init__(self) -> None:
        self._begun_at: float | None = None  # time.monotonic()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Yield whether to do the whole. Where the block raises, the next one is to do it."""
        now = time.monotonic()
        if self._begun_at is not None and now - self._begun_at < UPKEEP_EVERY_S / 2:
            yield False
            return
        self._begun_at = now
        try:
            yield True
        except BaseException:
            self._begun_at = None
            raise


async def keep_books(upkeep: Upkeep, metrics: Metrics) -> None:
    """Do the upkeep until cancelled; after a failure the next turn comes sooner."""
    await asyncio.sleep(BEGIN_AFTER_S)
    while True:
        wait_s = UPKEEP_EVERY_S
        try:
            await upkeep()
        except TransientFault as fault:
            metrics.count_fault(fault.stage, fault.code)
            log.warning("upkeep failed; it will be tried again", code=fault.code)
            wait_s /= 12
        # Spread, so that fifty pipelines started together do not do it together.
        await asyncio.sleep(wait_s * random.uniform(0.9, 1.1))  # noqa: S311  not a secret

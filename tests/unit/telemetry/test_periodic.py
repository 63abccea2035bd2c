"""Periodic readings end with their block, whatever a reading makes of its cancellation."""

from __future__ import annotations

import asyncio

from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import PeriodicReading, PeriodicReadings


async def test_a_reading_that_takes_the_cancellation_for_itself_ends_all_the_same() -> None:
    begun = asyncio.Event()

    async def read() -> None:
        # As asyncio.wait_for of Python 3.11 does if its answer has just come.
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    readings = PeriodicReadings([PeriodicReading("queue", 3600.0, read)], Metrics())
    async with asyncio.timeout(10):
        async with readings:
            await begun.wait()

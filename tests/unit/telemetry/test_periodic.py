"""Periodic readings end with their block, whatever a reading makes of its cancellation."""

from __future__ import annotations

import asyncio

import pytest

from sqs2pg.telemetry import periodic
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


def test_a_reading_rests_longer_each_time_and_not_without_bounds() -> None:
    rests = True
    reading = PeriodicReading("queue", 10.0, nothing, at_rest=lambda: rests)
    waits = [reading.every_s]
    for _ in range(4):
        waits.append(reading.next_s(waits[-1]))
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]
    assert not reading.is_wanted(60.0)
    rests = False
    assert reading.is_wanted(60.0), "something happens: at once"
    assert not reading.is_wanted(10.0), "it comes at its usual time"
    assert reading.next_s(60.0) == 10.0
    often, seldom = reading._replace(every_s=1.0), reading._replace(every_s=100.0)
    rests = True
    assert (often.next_s(6.0), seldom.next_s(100.0)) == (6.0, 100.0)
    assert reading._replace(at_rest=None).next_s(60.0) == 10.0


async def test_a_reading_that_rests_says_its_age_and_comes_early_when_something_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("EARLY_S", "LOOK_S"):
        monkeypatch.setattr(periodic, name, 0.01)
    rests, read = True, asyncio.Event()

    async def note() -> None:
        read.set()

    reading = PeriodicReading("queue", 30.0, note, at_rest=lambda: rests)
    other = PeriodicReading("credentials", 30.0, nothing)
    readings = PeriodicReadings([reading, other], Metrics())
    async with asyncio.timeout(10), readings:
        await read.wait()
        while not readings.resting_s():
            await asyncio.sleep(0)
        assert list(readings.resting_s()) == ["queue"]
        assert 0 <= readings.resting_s()["queue"] < 10
        read.clear()
        rests = False
        await read.wait()
        while readings.resting_s():
            await asyncio.sleep(0)


async def nothing() -> None:
    """Read nothing."""

"""`run --ray ADDRESS`: the driver of a fleet of consumers, as one command."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.consumer import Totals
from sqs2pg.runners import ray_fleet
from sqs2pg.settings import Settings
from sqs2pg.sqs.client import SqsClient

logger = structlog.get_logger(__name__)


async def run_fleet(
    settings: Settings,
    config: Path | None,
    address: str,
    *,
    settle_s: float | None = None,
    drain_timeout_s: float | None = None,
) -> Totals:
    """Run a fleet until it is stopped or, with `settle_s`, the queue has been empty so long.

    SIGTERM and SIGINT drain it; a second one leaves at once, and its actors end. Raises FatalFault
    when the queue is not empty after `drain_timeout_s`, and what a consumer ended by.
    """
    ray_fleet.join(address)
    client = SqsClient.from_environment()
    fleet = ray_fleet.Fleet(settings, config, client)
    late = False

    def too_late() -> None:
        nonlocal late
        late = True
        fleet.stop()

    loop = asyncio.get_running_loop()
    timer = loop.call_later(drain_timeout_s, too_late) if drain_timeout_s else None
    try:
        with _stopping_on_signals(fleet):
            async with Ticker("consuming", lambda: _state(fleet)):
                totals = await fleet.run(drain_settle_s=settle_s)
    finally:
        if timer:
            timer.cancel()
        await client.close()
        ray_fleet.leave()
    if late:
        raise FatalFault(
            f"the queue was not empty after {drain_timeout_s:g} s",
            code="drain_timeout",
            hint="give it longer, raise ray.consumers_max, or look for what keeps sending",
        )
    return totals


def _state(fleet: ray_fleet.Fleet) -> tuple[int, int | None, dict[str, int]]:
    totals = fleet.totals()
    counts = {name: getattr(totals, name) for name in ("written", "duplicate", "quarantined")}
    return totals.settled, None, counts | {"workers": sum(fleet.nodes.values())}


@contextmanager
def _stopping_on_signals(fleet: ray_fleet.Fleet) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    stopping = False

    def stop(number: int) -> None:
        nonlocal stopping
        if stopping:
            os._exit(1)  # asked twice: at once; what is in hand comes back by its lease
        stopping = True
        logger.info("stopping", signal=signal.Signals(number).name)
        fleet.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

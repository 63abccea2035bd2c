"""The hourly upkeep of the books, for as long as a pipeline runs, paused or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from sqs2pg.errors import TransientFault
from sqs2pg.telemetry.metrics import Metrics

UPKEEP_EVERY_S = 3600.0
BEGIN_AFTER_S = 0.1
"""How long after a start upkeep begins: the first poll goes before it."""

Upkeep = Callable[[], Awaitable[None]]
"""One turn of the books' hourly upkeep. Raises TransientFault."""

log = structlog.get_logger(__name__)


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

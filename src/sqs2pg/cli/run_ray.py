"""`run --ray ADDRESS`: the driver of a fleet of consumers, as one command."""

from __future__ import annotations

from pathlib import Path

from sqs2pg.cli.run_process import Drain, run_process, settled
from sqs2pg.pipeline.totals import Totals
from sqs2pg.runners import ray_fleet
from sqs2pg.runners.queue_client import queue_client
from sqs2pg.settings import Settings


async def run_fleet(
    settings: Settings, config: Path | None, address: str, *, drain: Drain | None = None
) -> Totals:
    """Run a fleet until it is stopped or, with `drain`, the queue is empty.

    SIGTERM and SIGINT drain it; a second signal leaves at once, and its actors end. Raises as
    `run_process`, and what ended a consumer.
    """
    ray_fleet.join(address)
    try:
        async with queue_client() as client:
            fleet = ray_fleet.FleetDriver(settings, config, client)
            return await run_process(
                fleet,
                drain=settled(drain, settings.source.drain_settle_s, client.endpoint_host),
                progress=lambda: {"workers": sum(fleet.nodes.values())},
            )
    finally:
        ray_fleet.leave()

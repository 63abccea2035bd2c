"""`sqs2pg run`: consume the queue."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog

from sqs2pg.cli import live_view
from sqs2pg.cli.options import config_option, json_option, print_json, run_async, verbose_option
from sqs2pg.cli.progress import Ticker
from sqs2pg.cli.run_workers import run_workers
from sqs2pg.errors import FatalFault
from sqs2pg.keys.provider_development import is_loopback
from sqs2pg.pipeline.consumer import Totals
from sqs2pg.postgres import migrate
from sqs2pg.runners.connect import connected
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings, load
from sqs2pg.sqs.client import SqsClient
from sqs2pg.status.access import Access
from sqs2pg.status.fleet import noted
from sqs2pg.status.recorder import recording
from sqs2pg.status.server import status_server
from sqs2pg.telemetry import log

_SAME_REQUEST_S = 10.0
"""A worker asked to stop twice within this was asked once: by the terminal, and by its parent.

Long enough for a parent on a busy machine; who asks twice gets the parent's SIGKILL meanwhile.
"""

logger = structlog.get_logger(__name__)


@click.command()
@config_option
@click.option("--drain", is_flag=True, help="Exit 0 when the queue is empty.")
@click.option(
    "--drain-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Exit 1 when it is not empty by then.",
)
@click.option("--workers", default="1", show_default=True, help="Processes; `auto`: one a core.")
@click.option("--ray", metavar="ADDRESS", help="Over a Ray cluster: `auto`, host:port, ray://….")
@click.option("--local", is_flag=True, help="Start embedded servers and use them.")
@click.option("--status-file", type=click.Path(path_type=Path), hidden=True)
@json_option
@verbose_option
def run(
    config: Path | None,
    drain: bool,
    drain_timeout_s: float | None,
    workers: str,
    ray: str | None,
    local: bool,
    status_file: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Consume the queue until stopped, or until it is empty with --drain."""
    log.configure(verbose=verbose)
    count = _worker_count(workers)
    if ray and (local or count > 1):
        raise click.UsageError(
            "--ray goes without --local and --workers: see [ray] in the settings"
        )
    with _servers() if local else contextlib.nullcontext():
        settings = load(config)
        if local:
            run_async(prepare_local(settings))
        if ray:
            totals = run_async(_consume_over(ray, settings, config, drain, drain_timeout_s))
        elif count > 1:
            totals = run_workers(
                count,
                config=config,
                drain=drain,
                drain_timeout_s=drain_timeout_s,
                settings=settings,
                verbose=verbose,
            )
        else:
            totals = run_async(
                consume(
                    settings,
                    drain=drain,
                    drain_timeout_s=drain_timeout_s,
                    status_file=status_file,
                    view=live_view.wanted(),
                    verbose=verbose,
                )
            )
    if as_json:
        print_json(as_flat(totals))
    elif drain:
        print(summary(totals))
    return 0


async def _consume_over(
    address: str, settings: Settings, config: Path | None, drain: bool, timeout_s: float | None
) -> Totals:
    from sqs2pg.cli.run_ray import run_fleet

    settle_s = None
    if drain:
        client = SqsClient.from_environment()
        settle_s = drain_settle_s(settings, client)
        await client.close()
    return await run_fleet(
        settings,
        config,
        address,
        settle_s=settle_s,
        drain_timeout_s=timeout_s if drain else None,
    )


def as_flat(totals: Totals) -> dict[str, Any]:
    """Return totals as the flat object that `--json` prints."""
    flat = msgspec.to_builtins(totals)
    del flat["busy_seconds"]
    return {**flat, "messages_per_second": totals.messages_per_second}


def summary(totals: Totals) -> str:
    """Return totals in one line for people."""
    return (
        f"received {totals.received:,}: written {totals.written:,}, duplicate "
        f"{totals.duplicate:,}, quarantined {totals.quarantined:,}, released {totals.released:,} "
        f"in {totals.seconds:,.1f} s ({totals.messages_per_second:,.0f} messages/s)"
    )


async def consume(
    settings: Settings,
    *,
    drain: bool = False,
    drain_timeout_s: float | None = None,
    status_file: Path | None = None,
    view: bool = False,
    verbose: bool = False,
    started: Callable[[str], None] | None = None,
) -> Totals:
    """Run one consumer in this process until it is stopped or the queue is empty.

    SIGTERM and SIGINT stop it; a second one leaves at once, in a worker only when it is no echo of
    the first. Raises FatalFault when the queue is not empty after `drain_timeout_s`. `status_file`
    is where a worker of several notes its address. With `view` the live view is shown. `started` is
    told the status address.
    """
    async with Pipeline(settings) as ready:
        _spare_the_collector()
        logger.info("consuming", queue=settings.source.queue, table=settings.sink.table)
        late = False

        def too_late() -> None:
            nonlocal late
            late = True
            ready.consumer.stop()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(drain_timeout_s, too_late) if drain and drain_timeout_s else None
        settle_s = drain_settle_s(settings, ready.client) if drain else None
        # Of several workers their parent records.
        record = status_file is None and bool(settings.status.bind or view)
        with (
            _stopping_on_signals(ready, worker=status_file is not None),
            recording(ready.snapshot, wanted=record) as recorder,
            status_server(
                settings.status.bind,
                ready.metrics.registry,
                ready.consumer.pulse.health,
                ready=ready.probes.ready,
                access=Access.of(settings.status),
                take=ready.snapshot,
                recorder=recorder,
            ) as address,
            noted(status_file, address),
        ):
            if started:
                started(address)
            async with ready.periodic:
                if view and recorder:
                    ready.journal.batch_lines = verbose
                    with live_view.live_view(recorder, verbose=verbose):
                        totals = await ready.consumer.run(drain_settle_s=settle_s)
                else:
                    async with Ticker("consuming", lambda: _state(ready)):
                        totals = await ready.consumer.run(drain_settle_s=settle_s)
            ready.journal.flush(end=True)
            await ready.probes.leave()
        if timer:
            timer.cancel()
        logger.info("stopped", **as_flat(totals))
        if late:
            raise FatalFault(
                f"the queue was not empty after {drain_timeout_s:g} s ({summary(totals)})",
                code="drain_timeout",
                hint="give it longer, more --workers, or look for what keeps sending",
            )
        return totals


def _spare_the_collector() -> None:
    """Keep the cyclic collector from walking what lives as long as the process.

    A batch makes thousands of objects and no cycles; with the default threshold of 700 the
    collector ran dozens of times a batch. Measured at a sixth of the CPU a message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def drain_settle_s(settings: Settings, client: SqsClient) -> float:
    """Return how long the queue must look empty: AWS's counts lag by up to a minute."""
    if settings.source.drain_settle_s is not None:
        return settings.source.drain_settle_s
    return 1.0 if is_loopback(client.endpoint_host) else 60.0


def _state(ready: Pipeline) -> tuple[int, int | None, dict[str, int]]:
    totals = ready.consumer.totals
    counts = {name: getattr(totals, name) for name in ("written", "duplicate", "quarantined")}
    return totals.settled, None, counts


@contextlib.contextmanager
def _stopping_on_signals(ready: Pipeline, *, worker: bool) -> Iterator[None]:
    """Stop on a signal. A `worker` may get one from its process group and from its parent."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    asked: float | None = None

    def stop(number: int) -> None:
        nonlocal asked
        if asked is not None:
            if worker and loop.time() - asked < _SAME_REQUEST_S:
                return
            os._exit(1)  # asked twice: at once; what is in hand comes back by its lease
        asked = loop.time()
        logger.info("stopping", signal=signal.Signals(number).name)
        ready.consumer.stop()

    for number in signals:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
            if worker and asked is not None:
                # Its end is near and its totals are not out: the echo must not kill it now.
                signal.signal(number, signal.SIG_IGN)


def _worker_count(workers: str) -> int:
    if workers == "auto":
        return len(os.sched_getaffinity(0))
    if not workers.isdigit() or not 1 <= int(workers) <= 256:
        raise click.UsageError("--workers takes a number from 1 to 256, or `auto`")
    return int(workers)


@contextlib.contextmanager
def _servers() -> Iterator[None]:
    from sqs2pg.cli.local_servers import local_environment

    with local_environment(keep_file=True):
        yield


async def prepare_local(settings: Settings) -> None:
    """Make the queue and migrate the database of embedded servers that have just started."""
    client = SqsClient.from_environment()
    try:
        await client.create_queue(
            settings.source.queue,
            {"VisibilityTimeout": str(settings.source.visibility_timeout_s)},
        )
    finally:
        await client.close()
    async with connected(settings) as session:
        await migrate.migrate(session, settings)

"""`sqs2pg run`: consume the queue."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from sqs2pg.cli.options import (
    LOCAL_KINDS,
    config_option,
    counted,
    json_option,
    load_settings,
    print_json,
    read_settings,
    run_async,
    verbose_option,
)
from sqs2pg.errors import FatalFault
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.cli.embedded import Servers
    from sqs2pg.cli.run_process import Drain
    from sqs2pg.pipeline.totals import Totals

logger = structlog.get_logger(__name__)


@click.command()
@config_option
@click.option(
    "--drain", is_flag=True, help="Exit 0 when the queue is empty, 1 if isolated messages are left."
)
@click.option(
    "--drain-timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Exit 1 if it is not empty by then.",
)
@click.option("--workers", default="1", show_default=True, help="Processes; `auto`: one per core.")
@click.option("--ray", metavar="ADDRESS", help="Over a Ray cluster: `auto`, host:port, ray://….")
@click.option(
    "--local",
    is_flag=False,
    flag_value="full",
    type=click.Choice(LOCAL_KINDS),
    help="Start embedded servers and use them; `=fast`: a queue server with SQS only, for rates.",
)
@click.option("--status-file", type=click.Path(path_type=Path), hidden=True)
@json_option
@verbose_option
def run(
    config: Path | None,
    drain: bool,
    drain_timeout_s: float | None,
    workers: str,
    ray: str | None,
    local: str | None,
    status_file: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Consume the queue until stopped, or until it is empty with --drain.

    SIGTERM stops it in good order. SIGHUP has it read its settings again.
    """
    # Until it consumes there is nothing to read again; the default would end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    count = _worker_count(workers)
    if ray and (local or count > 1):
        raise click.UsageError("--ray goes without --local and --workers: see [ray] in settings")
    from sqs2pg.cli.run_process import Drain

    with _local_servers(local) if local else contextlib.nullcontext() as servers:
        settings = load_settings(config, verbose=verbose)
        if local:
            from sqs2pg.cli.embedded.local_environment import prepare

            run_async(prepare(settings))
        # Each of several workers finds out for itself.
        until_empty = Drain(drain_timeout_s) if drain and count == 1 else None
        if ray:
            totals = run_async(_run_over(ray, settings, config, until_empty))
        elif count > 1:
            from sqs2pg.cli.run_workers import run_workers

            start = partial(run_workers, config=config, settings=settings, verbose=verbose)
            totals = run_async(start(count, drain=drain, drain_timeout_s=drain_timeout_s))
        else:
            from sqs2pg.cli.live_view import wanted
            from sqs2pg.cli.run_pipeline import consume

            one = consume(
                settings,
                drain=until_empty,
                address_file=status_file,
                view=wanted(),
                verbose=verbose,
                read=partial(read_settings, config),
                exits=not local,
            )
            totals = run_async(_beside(servers, one) if servers and local == "full" else one)
    _report(totals, drain=drain, as_json=as_json, is_worker=status_file is not None)
    return 0


@contextlib.contextmanager
def _local_servers(kind: str) -> Iterator[Servers]:
    """Start embedded servers and point this process at them, until closed."""
    from sqs2pg.cli.embedded.local_environment import local_environment, source_command

    with local_environment(keep_file=True, fast=kind == "fast") as servers:
        print(f"servers are up; `{source_command()}` points a shell at them", file=sys.stderr)
        yield servers


async def _beside(servers: Servers, work: Coroutine[Any, Any, Totals]) -> Totals:
    """Do the work; log once if the local queue server turns out to be the limit."""
    from sqs2pg.cli.embedded.server_load import telling_of_limit

    def tell(_load: object) -> None:
        logger.info(
            "the local queue server is the limit now: it is busy, and sqs2pg waits for it; "
            "`run --local=fast` starts a faster one"
        )

    assert servers.sqs is not None
    return await telling_of_limit(work, servers.sqs.pid, tell)


def _report(totals: Totals, *, drain: bool, as_json: bool, is_worker: bool) -> None:
    """Print what was done. Raises FatalFault if a drain has left isolated messages."""
    from sqs2pg.cli.run_process import as_flat, summary

    if as_json:
        # Several workers may have met the same message: their parent needs to know which.
        names = {"isolated": totals.isolated} if is_worker else {}
        print_json(as_flat(totals) | names)
    elif drain:
        print(summary(totals))
    # One of several workers leaves this to its parent: the others go on.
    if drain and totals.isolated and not is_worker:
        raise FatalFault(
            counted(
                len(totals.isolated),
                "message is left that PostgreSQL does not take",
                "messages are left that PostgreSQL does not take",
            ),
            code="isolated_messages",
            hint="the log names them (`messages are isolated`), with SQLSTATE and table; correct "
            "the cause and run again",
        )


async def _run_over(
    address: str, settings: Settings, config: Path | None, drain: Drain | None
) -> Totals:
    from sqs2pg.cli.run_ray import run_fleet  # only here: Ray takes seconds to import

    if drain:
        drain.hint = "give it longer, raise ray.consumers_max, or look for what keeps sending"
    return await run_fleet(settings, config, address, drain=drain)


def _worker_count(workers: str) -> int:
    if workers == "auto":
        return len(os.sched_getaffinity(0))
    if not workers.isdigit() or not 1 <= int(workers) <= 256:
        raise click.UsageError("--workers takes a number from 1 to 256, or `auto`")
    return int(workers)

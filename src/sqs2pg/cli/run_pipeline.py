"""`run` and `demo`: one pipeline in this process."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import structlog

from sqs2pg.cli import print_error
from sqs2pg.cli.run_process import Drain, StatusOutput, run_process, settled
from sqs2pg.pipeline.totals import Totals
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.runners.reload import ReloadingPipeline
from sqs2pg.settings import Settings
from sqs2pg.telemetry import log

_ECHO_S = 10.0
"""A second request to stop within this time is the first one again: the terminal sends it to the
worker, and so does the worker's parent.

Long enough for a parent on a busy machine. A second request to the parent makes it send SIGKILL.
"""

logger = structlog.get_logger(__name__)


def _print_refused(what: str, hint: str, code: str) -> None:
    print_error(what, hint, code=code)


async def consume(
    settings: Settings,
    *,
    drain: Drain | None = None,
    address_file: Path | None = None,
    view: bool = False,
    verbose: bool = False,
    started: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = None,
    read: Callable[[], Settings] | None = None,
    exits: bool = False,
) -> Totals:
    """Run one pipeline in this process until it is stopped or, with `drain`, the queue is empty.

    `address_file`, `view`, `verbose` and `started` are those of `StatusOutput`; a process with an
    `address_file` is one of several workers. `say` takes the progress off a terminal in place of
    the log, which then has no lines of batches and quarantined messages unless it is `verbose`.
    `read` returns the settings anew, for SIGHUP. `exits`: the process ends after it, at the latest
    a second after the grace period. Raises as `Pipeline` and `run_process`.
    """
    worker = address_file is not None

    def opened(pipeline: Pipeline) -> None:
        if read:
            log.follow(pipeline.settings.log, verbose=verbose)
        if view or say:
            pipeline.batch_log.batch_lines = verbose
        if say:
            pipeline.batch_log.fault_lines = verbose

    made = ReloadingPipeline(
        settings, read or (lambda: settings), refused=_print_refused, opened=opened
    )
    async with made as pipeline:
        gc.freeze()  # the cyclic collector need not walk what lives as long as the process
        logger.info("consuming", queue=settings.source.queue, table=settings.sink.table)
        return await run_process(
            pipeline,
            status=StatusOutput(
                pipeline,
                settings.status,
                address_file=address_file,
                view=view,
                started=started,
            ),
            drain=settled(drain, settings, pipeline.current.client.endpoint_host),
            progress=None if view else dict,
            say=say,
            echo_s=_ECHO_S if worker else 0.0,
            logs_end=True,
            reload=pipeline.request_reload if read else None,
            exit_within_s=settings.shutdown_grace_s if exits else None,
        )

"""`run` and `demo`: the pipelines of this process, one or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sqs2pg.cli import print_error
from sqs2pg.cli.run_process import Drain, StatusOutput, run_process, settled
from sqs2pg.pipeline.totals import Totals
from sqs2pg.postgres.tap import Tap, TappedRow
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.runners.pipelines import Pipelines, Read
from sqs2pg.settings import Settings
from sqs2pg.telemetry import log

_ECHO_S = 10.0
"""A second request to stop within this time is the first one again: the terminal sends it to the
worker, and so does the worker's parent.

Long enough for a parent on a busy machine. A second request to the parent makes it send SIGKILL.
"""


class Failure(NamedTuple):
    """What ended one of several pipelines for good: its fault's code and exit code."""

    code: str
    exit_code: int


class Ended(NamedTuple):
    """What the pipelines of a process did."""

    totals: Totals
    """Of all together."""
    several: bool = False
    each: Mapping[str, Totals] = MappingProxyType({})
    """Of each of several, by name."""
    faults: Mapping[str, Failure] = MappingProxyType({})
    """Those of several that failed for good, by name."""


async def consume(
    settings: Settings,
    found: Mapping[Path | None, Settings] | None = None,
    *,
    several: bool = False,
    drain: Drain | None = None,
    address_file: Path | None = None,
    view: bool = False,
    verbose: bool = False,
    started: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = None,
    read: Read | None = None,
    exits: bool = False,
) -> Ended:
    """Run pipelines in this process until it is stopped or, with `drain`, their queues are empty.

    `settings` are those of the only pipeline, or of any one of several: what belongs to the process
    is the same in all. `found` and `several` as `Pipelines` takes them.
    `address_file`, `view`, `verbose` and `started` are those of `StatusOutput`; a process with an
    `address_file` is one of several workers. `say` takes the progress off a terminal in place of
    the log, which then has no lines of batches and quarantined messages unless it is `verbose`.
    `read` returns the settings anew, for SIGHUP. `exits`: the process ends after it, at the latest
    a second after the grace period. Raises as `Pipelines` and `run_process`.
    """
    worker = address_file is not None
    taps: dict[str, Tap] = {}

    def opened(pipeline: Pipeline) -> None:
        if settings.status.tap:
            tap = taps.setdefault(pipeline.about.pipeline, Tap())
            for processor in pipeline.processors:
                processor.sink.tap = tap
        if read:
            log.follow(pipeline.settings.log, verbose=verbose)
        if view or say:
            pipeline.batch_log.batch_lines = verbose
        if say:
            pipeline.batch_log.fault_lines = verbose

    def tapped(name: str | None, since: float) -> list[TappedRow] | None:
        tap = taps.get(name) if name is not None else next(iter(taps.values()), None)
        return tap.read(since) if tap else None

    def refused(what: str, hint: str, code: str) -> None:
        print_error(what, hint, code=code)

    made = Pipelines(
        {None: settings} if found is None else found,
        several=several,
        process=settings.process,
        read=read,
        refused=refused,
        opened=opened,
    )
    async with made as pipelines:
        totals = await run_process(
            pipelines,
            status=StatusOutput(
                pipelines,
                settings.status,
                address_file=address_file,
                view=view,
                started=started,
                tapped=tapped if settings.status.tap else None,
            ),
            drain=settled(
                drain,
                None if several else settings.source.drain_settle_s,
                pipelines.endpoint_host,
            ),
            progress=None if view else dict,
            say=say,
            echo_s=_ECHO_S if worker else 0.0,
            logs_end=True,
            reload=pipelines.request_reload if read else None,
            exit_within_s=settings.shutdown_grace_s if exits else None,
        )
        faults = {name: Failure(f.code, f.exit_code) for name, f in pipelines.faults.items()}
        return Ended(totals, several, pipelines.each() if several else {}, faults)

"""`sqs2pg backfill`: archived records through the same path as the queue's messages."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

import click
import msgspec

from sqs2pg.cli.options import (
    config_option,
    counted,
    json_option,
    load_settings,
    print_json,
    run_async,
    verbose_option,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import FatalFault
from sqs2pg.settings import ArchiveFormat, Settings

if TYPE_CHECKING:
    from sqs2pg.pipeline.backfill import Done
    from sqs2pg.runners.backfill_workers import WorkerPipes
    from sqs2pg.sqs.s3 import ObjectStore

STDIN = "-"
WORKERS_MAX = 64
"""Each has two connections to PostgreSQL, and an archive in memory only in part."""


@click.command()
@config_option
@click.argument("paths", metavar="PATH…", nargs=-1, required=True)
@click.option(
    "--date",
    "day",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="Day of lines without a time; else the archive's own.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(ArchiveFormat)),
    help="Else archive.format; `auto`: by the first bytes; CSV by its name.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, WORKERS_MAX),
    default=1,
    show_default=True,
    help="Processes; each writes one archive at a time.",
)
@click.option("--ray", metavar="ADDRESS", help="Over a Ray cluster: `auto`, host:port, ray://….")
@json_option
@verbose_option
def backfill(
    config: Path | None,
    paths: tuple[str, ...],
    day: datetime | None,
    form: ArchiveFormat | None,
    workers: int,
    ray: str | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Write archived records: files, folders, s3:// prefixes, or `-` for standard input.

    JSON lines, arrays, documents one after the other, CSV with a header, and Parquet; plain, gzip
    or zstd.

    A run that was stopped, in whatever way, goes on where it ended when you repeat it. Lines that
    also came over the queue are written twice unless ledger.dedupe_key is set.
    """
    began = time.monotonic()
    chosen = day.replace(tzinfo=UTC).date() if day else None
    settings = load_settings(config, verbose=verbose)
    if ray and (workers > 1 or STDIN in paths):
        raise click.UsageError("--ray goes without --workers and without `-`")
    store = _store_for(paths)
    if ray:
        over = run_async(_run_over(ray, settings, config, paths, chosen, form))
        if over is None:
            return 128 + signal.SIGTERM
        done = over
    elif workers > 1:
        from sqs2pg.runners import assembly, backfill_workers  # noqa: F401  each worker needs it

        forked = backfill_workers.fork_workers(workers)
        if forked is None:
            run_async(_serve(settings, store, chosen, form))
            return 0
        done = run_async(_run_workers(forked, paths, store))
    else:
        done = run_async(_run(settings, paths, chosen, form))
    seconds = round(time.monotonic() - began, 3)
    rate = round(done.lines / seconds, 1) if seconds else 0.0
    if as_json:
        flat = msgspec.to_builtins(done)
        print_json({**flat, "seconds": seconds, "lines_per_second": rate})
    else:
        print(
            f"{counted(done.lines, 'line')} of {counted(done.files, 'file')}: "
            f"written {done.written:,}, duplicate {done.duplicate:,}, "
            f"quarantined {done.quarantined:,} in {seconds:,.3f} s "
            f"({rate:,.0f} lines/s); done before: {done.skipped:,}"
        )
    if done.left:
        raise FatalFault(
            counted(
                done.left,
                "line is left behind that PostgreSQL does not take",
                "lines are left behind that PostgreSQL does not take",
            ),
            code="lines_left",
            hint="the log names them (`a line is left behind`), with SQLSTATE and table; correct "
            "the cause and run the same command again: it tries them first",
        )
    return 0


async def _run(
    settings: Settings, paths: tuple[str, ...], day: date | None, form: ArchiveFormat | None
) -> Done:
    from sqs2pg.runners.assembly import assemble_backfill

    async with assemble_backfill(settings) as begin:
        gc.freeze()  # the cyclic collector need not walk what lives as long as the process
        work = begin(day=day, store=_store_for(paths), format=form)
        async with Ticker("backfilling", lambda: _state(work)):
            return await work.run(paths)


async def _run_workers(
    forked: list[WorkerPipes], paths: tuple[str, ...], store: ObjectStore | None
) -> Done:
    from sqs2pg.runners.backfill_workers import BackfillWorkers

    work = BackfillWorkers(forked, store=store)
    async with Ticker("backfilling", lambda: _state(work)):
        return await work.run(paths)


async def _serve(
    settings: Settings, store: ObjectStore | None, day: date | None, form: ArchiveFormat | None
) -> None:
    """Write what the parent names: one of `--workers`."""
    from sqs2pg.runners.assembly import assemble_backfill
    from sqs2pg.runners.backfill_workers import serve

    async with assemble_backfill(settings) as begin:
        await serve(begin(day=day, store=store, format=form))


async def _run_over(
    address: str,
    settings: Settings,
    config: Path | None,
    paths: tuple[str, ...],
    day: date | None,
    form: ArchiveFormat | None,
) -> Done | None:
    """Return what was done; None if SIGTERM ended it. Ray's own handler would print a traceback."""
    from sqs2pg.runners import ray_backfill, ray_fleet

    ray_fleet.join(address)
    loop = asyncio.get_running_loop()
    try:
        work = ray_backfill.BackfillDriver(
            settings, config, day=day, store=_store_for(paths), format=form
        )
        running = asyncio.ensure_future(work.run(paths))
        loop.add_signal_handler(signal.SIGTERM, running.cancel)
        async with Ticker("backfilling", lambda: _state(work)):
            await asyncio.wait([running])
        return None if running.cancelled() else running.result()
    except asyncio.CancelledError:  # by SIGINT
        running.cancel()
        await asyncio.wait([running])
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        ray_fleet.leave()


def _store_for(paths: tuple[str, ...]) -> ObjectStore | None:
    if not any(path.startswith("s3://") for path in paths):
        return None
    from sqs2pg.sqs.s3 import ObjectStore  # loads botocore

    return ObjectStore()


class _Work(Protocol):
    """A backfill under way, here or over a cluster."""

    bytes_total: int

    @property
    def bytes_done(self) -> int: ...

    @property
    def done(self) -> Done: ...


def _state(work: _Work) -> tuple[int, int | None, dict[str, int]]:
    """Return the lines so far, and an estimate of all lines from the share of bytes read."""
    counts = work.done
    done = counts.lines + counts.resumed
    share = work.bytes_done / work.bytes_total if work.bytes_total else 0.0
    total = round(done / share) if share > 0 else None
    return done, total, {"quarantined": counts.quarantined}

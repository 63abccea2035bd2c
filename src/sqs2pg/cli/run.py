"""`sqs2pg run`: consume the queue."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from sqs2pg.cli.options import (
    LOCAL_KINDS,
    configs_option,
    counted,
    json_option,
    load_by_file,
    named_pipeline,
    print_json,
    run_async,
    verbose_option,
)
from sqs2pg.cli.several import raise_if_failed
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.settings import Settings, chosen, is_several, load, load_named, load_pipelines

if TYPE_CHECKING:
    from sqs2pg.cli.embedded import Servers
    from sqs2pg.cli.run_pipeline import Ended
    from sqs2pg.cli.run_process import Drain

logger = structlog.get_logger(__name__)


@click.command()
@configs_option
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
@click.option("--share-file", type=click.Path(path_type=Path), hidden=True)
@json_option
@verbose_option
def run(
    configs: tuple[Path, ...],
    drain: bool,
    drain_timeout_s: float | None,
    workers: str,
    ray: str | None,
    local: str | None,
    status_file: Path | None,
    share_file: Path | None,
    as_json: bool,
    verbose: bool,
) -> int:
    """Consume the queue until stopped, or until it is empty with --drain.

    With a folder, or several files, each file is a pipeline of this process, with its own queue.
    SIGTERM stops it in good order. SIGHUP has it read its settings again.
    """
    # Until it consumes there is nothing to read again; the default would end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    count = _worker_count(workers)
    if ray and (local or count > 1):
        raise click.UsageError("--ray goes without --local and --workers: see [ray] in settings")
    from sqs2pg.cli.run_process import Drain

    with (
        _local_servers(local) if local else contextlib.nullcontext() as servers,
        _totals_printed(as_json=as_json),
    ):
        files, name = chosen(configs), named_pipeline()
        several = is_several(files) and not name
        if share_file:
            found = _unrefused(files, verbose=verbose)
        else:
            found = load_by_file(configs, verbose=verbose)
        every = list(found.values())
        if servers:
            from sqs2pg.cli.embedded import write_env_file
            from sqs2pg.cli.embedded.local_environment import development_key, prepare

            write_env_file(servers, more=development_key(every))
            for settings in every:
                run_async(prepare(settings))
        # Each of several workers finds out for itself.
        until_empty = Drain(drain_timeout_s) if drain and count == 1 else None
        read = partial(_read, files, name, share_file)
        if ray:
            ended = run_async(_run_over(ray, every, files, until_empty))
        elif count > 1:
            from sqs2pg.cli.run_workers import run_workers

            start = partial(run_workers, files=files, several=several, verbose=verbose)
            ended = run_async(start(count, every, drain=drain, drain_timeout_s=drain_timeout_s))
        else:
            from sqs2pg.cli.live_view import wanted
            from sqs2pg.cli.run_pipeline import consume

            one = consume(
                every[0],
                _share_of(found, _read_share(share_file)) if several else None,
                several=several,
                drain=until_empty,
                address_file=status_file,
                view=wanted() and not several,
                verbose=verbose,
                read=read,
                exits=not local,
            )
            queues = [settings.source.queue for settings in every]
            ended = run_async(_beside(servers, queues, one) if servers and local == "full" else one)
    _report(ended, drain=drain, as_json=as_json, is_worker=status_file is not None)
    return 0


@contextlib.contextmanager
def _totals_printed(*, as_json: bool) -> Iterator[None]:
    """Print what was done in the block if a drain took too long, as after any other drain."""
    from sqs2pg.cli.run_process import DrainTimeoutFault, as_flat

    try:
        yield
    except DrainTimeoutFault as late:
        if as_json:
            print_json(as_flat(late.totals))
        raise


def _read(
    files: Sequence[Path],
    name: str,
    share_file: Path | None,
    unusable: Callable[[Path, SettingsError], None],
) -> Mapping[Path | None, Settings]:
    """Return the settings anew: of one pipeline, or of all, less those of other workers."""
    if name or not is_several(files):
        file = files[0] if len(files) == 1 else None
        settings = load_named(files, name) if name else next(iter(load_pipelines(files).values()))
        return {file: settings}
    share = _read_share(share_file)
    unread: dict[Path, SettingsError] = {}
    every = load_pipelines(files, unusable=unread.__setitem__)
    for file, error in unread.items():
        # Files that no worker knows yet are their parent's to report.
        if share is None or str(file) in share.values():
            unusable(file, error)
    return _share_of(every, share)


def _read_share(share_file: Path | None) -> dict[str, str] | None:
    """Return the file of each pipeline of this worker, by name; None where it has all."""
    return json.loads(share_file.read_text()) if share_file else None


def _share_of(
    every: Mapping[Path | None, Settings], share: Mapping[str, str] | None
) -> Mapping[Path | None, Settings]:
    """Return the settings of this worker's pipelines."""
    return {f: one for f, one in every.items() if share is None or one.pipeline_name in share}


def _unrefused(files: Sequence[Path], *, verbose: bool) -> dict[Path | None, Settings]:
    """Return the settings of all pipelines for one of several workers: a file that its parent has
    refused since the start must not end it.
    """
    from sqs2pg.telemetry import log

    found = load_pipelines(files, unusable=_ignore)
    if not found:
        raise SettingsError("no settings file can be read", hint="the log of the parent says why")
    log.follow(next(iter(found.values())).log, verbose=verbose)
    return found


def _ignore(_file: Path, _error: SettingsError) -> None:
    pass


@contextlib.contextmanager
def _local_servers(kind: str) -> Iterator[Servers]:
    """Start embedded servers and point this process at them, until closed."""
    from sqs2pg.cli.embedded.local_environment import local_environment, source_command

    with local_environment(keep_file=True, fast=kind == "fast") as servers:
        print(f"servers are up; `{source_command()}` points a shell at them", file=sys.stderr)
        yield servers


async def _beside(
    servers: Servers, queues: Sequence[str], work: Coroutine[Any, Any, Ended]
) -> Ended:
    """Do the work; log once if the local queue server turns out to be the limit."""
    from sqs2pg.cli.embedded.local_environment import messages_wait
    from sqs2pg.cli.embedded.server_load import telling_of_limit

    def tell(_load: object) -> None:
        logger.info(
            "the local queue server is the limit now: it is busy, and sqs2pg waits for it; "
            "`run --local=fast` starts a faster one"
        )

    assert servers.sqs is not None
    return await telling_of_limit(work, servers.sqs.pid, tell, partial(messages_wait, queues))


def _report(ended: Ended, *, drain: bool, as_json: bool, is_worker: bool) -> None:
    """Print what was done. Raises FatalFault if a drain has left isolated messages, or if some of
    several pipelines failed for good.
    """
    from sqs2pg.cli.run_process import as_flat, summary

    totals = ended.totals
    if is_worker:
        # Several workers may have met the same message: their parent needs to know which.
        each = {name: as_flat(one) | {"isolated": one.isolated} for name, one in ended.each.items()}
        more = {"pipelines": each, "faults": ended.faults} if ended.several else {}
        print_json(as_flat(totals) | {"isolated": totals.isolated} | more)
        return  # the rest is its parent's: the others go on
    if as_json:
        each_flat = [
            {"pipeline": name, **as_flat(one)}
            | ({"error": ended.faults[name].code} if name in ended.faults else {})
            for name, one in ended.each.items()
        ]
        print_json(as_flat(totals) | ({"pipelines": each_flat} if ended.several else {}))
    elif drain:
        for name, one in ended.each.items():
            print(f"{name}: {summary(one)}")
        print(f"{'in all: ' if ended.several else ''}{summary(totals)}")
    raise_if_failed(ended.faults)
    if drain and totals.isolated:
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
    address: str, every: Sequence[Settings], files: Sequence[Path], drain: Drain | None
) -> Ended:
    from sqs2pg.cli.run_pipeline import Ended
    from sqs2pg.cli.run_ray import run_fleet  # only here: Ray takes seconds to import

    if len(every) > 1:
        raise SettingsError(
            "--ray runs one pipeline", hint="name it with --pipeline NAME; one job per pipeline"
        )
    if drain:
        drain.hint = "give it longer, raise ray.consumers_max, or look for what keeps sending"
    [settings] = every
    file = files[0] if files else None
    if is_several(files):
        # Each consumer reads the file by itself, on whatever machine it runs.
        found = load_pipelines(files).items()
        [file] = [f for f, one in found if one.pipeline_name == settings.pipeline_name]
        settings = load(file)
    return Ended(await run_fleet(settings, file, address, drain=drain))


def _worker_count(workers: str) -> int:
    if workers == "auto":
        return len(os.sched_getaffinity(0))
    if not workers.isdigit() or not 1 <= int(workers) <= 256:
        raise click.UsageError("--workers takes a number from 1 to 256, or `auto`")
    return int(workers)

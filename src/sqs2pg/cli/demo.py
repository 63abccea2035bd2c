"""`sqs2pg demo`: the main job from end to end on embedded servers."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sqs2pg.cli.demo_settings import (
    as_variables,
    demo_settings,
    for_shells,
    on_free_port,
    taken_from,
)
from sqs2pg.cli.embedded import Servers
from sqs2pg.cli.embedded.local_environment import (
    local_environment,
    messages_wait,
    prepare,
    source_command,
)
from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.cli.embedded.server_load import Load, telling_of_limit
from sqs2pg.cli.options import (
    LOCAL_KINDS,
    aligned,
    config_option,
    counted,
    json_option,
    print_json,
    run_async,
    verbose_option,
)
from sqs2pg.cli.send import send_bodies
from sqs2pg.cli.verify import check, print_report
from sqs2pg.errors import FatalFault
from sqs2pg.settings import Settings
from sqs2pg.telemetry import log

if TYPE_CHECKING:
    from rich.console import Console

    from sqs2pg.pipeline.totals import Totals
    from sqs2pg.postgres import verify as verification

_SENDING = "the logins were sent"
_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of SIGINT."""

_SAMPLE = """SELECT left(user_id, 8) || '…', device_type, masked_ip, masked_device_id, locale,
       app_version, create_date FROM {table} ORDER BY ctid LIMIT 5"""
_DEVICES = """SELECT masked_device_id, count(*) FROM {table} WHERE masked_device_id IS NOT NULL
GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT 5"""
_DEVICE_COUNTS = """SELECT count(*), count(*) FILTER (WHERE logins > 1)
FROM (SELECT count(*) AS logins FROM {table} WHERE masked_device_id IS NOT NULL
      GROUP BY masked_device_id) AS devices"""


class _Course(msgspec.Struct):
    """How far the demo has come: what an interruption says."""

    messages: int
    sent: int = 0
    stage: str = "the servers started"
    ended: str = ""
    """What became of the messages, once it is known."""

    def interrupted(self) -> FatalFault:
        """Return what to raise for Ctrl-C. It claims nothing that is not known."""
        if self.stage == _SENDING:
            done = f"at least {self.sent:,} of {counted(self.messages, 'login')} were sent"
        elif self.sent:
            done = f"all {counted(self.sent, 'login')} were sent{self.ended}"
        else:
            done = "nothing was sent"
        fault = FatalFault(
            f"stopped while {self.stage}: {done}",
            code="stopped",
            hint="the servers are stopped and their data is gone; run it again, and let it end",
        )
        fault.exit_code = _INTERRUPTED
        return fault


@click.command()
@config_option
@click.option("--messages", default=2000, show_default=True, type=click.IntRange(1, 1_000_000))
@click.option("--seed", type=int, help="Seed of the generated logins, to repeat them.")
@click.option("--chaos", is_flag=True, help="Kill the consumer midway (-9) and start it again.")
@click.option("--recover", is_flag=True, help="With the vault: reveal a value, forget a person.")
@click.option(
    "--local",
    type=click.Choice(LOCAL_KINDS),
    default="full",
    show_default=True,
    help="The queue server: an emulator of SQS and S3, or one with SQS only that is fast.",
)
@click.option("--keep", is_flag=True, help="Leave servers and status page up until Ctrl-C.")
@json_option
@verbose_option
def demo(
    config: Path | None,
    messages: int,
    seed: int | None,
    chaos: bool,
    recover: bool,
    local: str,
    keep: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Start embedded servers, send logins, drain, verify and show the result.

    It looks for no settings file. From a file given with -c it takes the names, the table and the
    batches; the file's mapping must be that of the generated logins.
    """
    from sqs2pg.cli.demo_recovery import show_recovery
    from sqs2pg.cli.run_process import as_flat

    if verbose:
        log.configure(level="debug")
    taken = taken_from(config) if config else {}
    settings = demo_settings(taken, recover=recover)
    say = _quiet if as_json else partial(print, flush=True)
    course = _Course(messages)
    plan = _Plan(settings, taken, say, course, chaos=chaos, verbose=verbose)
    try:
        began = time.monotonic()
        say("starting PostgreSQL and an SQS server on loopback …")
        more = for_shells(settings, taken)
        with local_environment(keep_file=keep, fast=local == "fast", more=more) as servers:
            if recover:  # for the consumer that --chaos starts, too
                os.environ["SQS2PG_VAULT__ENABLED"] = "true"
            say(
                f"both are up after {time.monotonic() - began:.1f} s; making queue, keys and tables"
            )
            totals, report = _send_and_drain(plan, servers, seed)
            course.stage = "the result was shown"
            ok = report.ok and report.written + report.quarantined == course.sent
            course.ended = f", {report.written:,} written and {report.quarantined:,} quarantined"
            if not as_json:
                run_async(_show(settings, totals, report))
                ended = f"written {report.written:,} + quarantined {report.quarantined:,}"
                print(f"\nsent {course.sent:,} = {ended}: {'yes' if ok else 'NO'}", flush=True)
            if recover:
                run_async(show_recovery(settings, say))
                report = run_async(check(settings))
                ok = ok and report.ok
                say(f"\nafter all that the books {'balance' if report.ok else 'DO NOT balance'}")
            if keep:
                _keep(plan)
    except KeyboardInterrupt:
        raise course.interrupted() from None
    if as_json:
        print_json({"sent": course.sent, **as_flat(totals)})
    if not ok:
        raise _unbalanced()
    return 0


class _Plan(msgspec.Struct):
    """What the steps of a demo share."""

    settings: Settings
    taken: dict[str, Any]
    say: Callable[[str], None]
    course: _Course
    chaos: bool
    verbose: bool


def _send_and_drain(
    plan: _Plan, servers: Servers, seed: int | None
) -> tuple[Totals, verification.VerifyReport]:
    """Send the logins and drain the queue; return what was done, and what the books say.

    Raises FatalFault if a signal ended the drain early.
    """
    from sqs2pg.cli.run_pipeline import consume
    from sqs2pg.cli.run_process import Drain

    settings, say, course = plan.settings, plan.say, plan.course
    course.stage = "the tables were made"
    run_async(prepare(settings))
    course.stage = _SENDING
    say(f"sending {counted(course.messages, 'login')}, about one in fifty malformed …")
    run_async(_send(settings, course, seed, say))
    began = time.monotonic()
    if plan.chaos:
        course.stage = "the consumer to be killed ran"
        _kill_consumer(settings, course.sent, plan.taken, say)
    else:
        say("draining the queue …")
    before = time.monotonic() - began
    course.stage = "the queue was drained"
    drain = Drain()
    work = consume(on_free_port(settings), drain=drain, verbose=plan.verbose, say=say)
    assert servers.sqs is not None
    tell = partial(_tell_of_limit, say)
    waiting = partial(messages_wait, [settings.source.queue])
    totals = run_async(telling_of_limit(work, servers.sqs.pid, tell, waiting)).totals
    course.stage = "the books were checked"
    report = run_async(check(settings))
    if drain.stopped and report.ok:
        raise _stopped(course.sent, report)
    if plan.chaos:  # the killed consumer's counts are lost; take them from the books
        totals.written, totals.quarantined = report.written, report.quarantined
        totals.received = totals.settled + totals.released
        totals.seconds = round(totals.seconds + before, 3)
        totals.busy_seconds = round(totals.busy_seconds + before, 3)
    return totals, report


def _tell_of_limit(say: Callable[[str], None], load: Load) -> None:
    say(
        f"the SQS server is the limit now: it is busy {min(1.0, load.server):.0%} of the time and "
        f"sqs2pg {load.ours:.0%}. An emulator's receives take longer the more messages wait; "
        "`--local=fast` starts a faster one."
    )


def _unbalanced() -> FatalFault:
    return FatalFault(
        "the books do not balance", code="verify", hint="run `sqs2pg demo --keep`, then verify"
    )


def _stopped(sent: int, report: verification.VerifyReport) -> FatalFault:
    """Return what to raise where a signal came before the queue was empty."""
    done = report.written + report.quarantined
    rest = "; the others were still on the queue" if done < sent else ""
    return FatalFault(
        f"stopped early: {done:,} of {counted(sent, 'message')} are written or quarantined, each "
        f"once{rest}",
        code="stopped",
        hint="the servers are stopped and their data is gone; run it again, and let it end",
    )


def _kill_consumer(settings: Settings, sent: int, taken: dict[str, Any], say: Any) -> None:
    """Start a consumer and kill it when some of the messages are written."""
    from sqs2pg.cli.demo_chaos import kill_midway

    say("starting a consumer, to kill it midway …")
    before = run_async(kill_midway(settings, sent, as_variables(taken)))
    say(f"killed with SIGKILL, {counted(before, 'message')} written, some not yet deleted")
    say("starting it again; what it held comes back when its leases end, in 5 s …")


def _quiet(*_: Any) -> None:
    """Print nothing: with --json stdout holds the result alone."""


async def _send(
    settings: Settings, course: _Course, seed: int | None, say: Callable[[str], None]
) -> None:
    def sent(count: int) -> None:
        course.sent = count

    count = course.messages
    result = await send_bodies(settings, logins(count, seed=seed), count, told=sent, say=say)
    if result.refused:
        raise FatalFault("the embedded queue refused messages", code="send_refused")
    course.sent = result.sent


async def _show(settings: Settings, totals: Totals, report: verification.VerifyReport) -> None:
    from rich.console import Console

    from sqs2pg.cli.run_process import summary
    from sqs2pg.postgres.identifiers import quote_table
    from sqs2pg.runners.connect import connected

    table = quote_table(settings.sink.table)
    async with connected(settings) as session:
        sample = await session.execute(_SAMPLE.format(table=table))
        devices = await session.execute(_DEVICES.format(table=table))
        [(distinct, recurring)] = await session.execute(_DEVICE_COUNTS.format(table=table))
        reasons = await session.execute(
            "SELECT reason, count(*) FROM sqs2pg.quarantine GROUP BY 1 ORDER BY 2 DESC, 1"
        )
    console = Console()
    names = (
        "user_id",
        "device_type",
        "masked_ip",
        "masked_device_id",
        "locale",
        "app_version",
        "create_date",
    )
    _print_table(console, f"{settings.sink.table}, as analysts see it:", names, sample)
    _print_table(
        console,
        f"logins by masked device ({recurring:,} of {distinct:,} devices came back):",
        ("masked_device_id", "logins"),
        devices,
    )
    _print_table(console, "quarantined, by reason:", ("reason", "messages"), reasons)
    print()
    print(summary(totals))
    print_report(report)


def _print_table(
    console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> None:
    from rich.table import Table

    cells = [["NULL" if value is None else str(value) for value in row] for row in rows]
    print(f"\n{title}", flush=True)
    if not console.is_terminal:
        print("\n".join(aligned([columns, *cells])), flush=True)
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _keep(plan: _Plan) -> None:
    """Go on consuming until stopped, so that the status page is live."""
    from sqs2pg.cli.run_pipeline import consume
    from sqs2pg.postgres.identifiers import quote_table

    plan.course.stage = "the servers stayed up"
    say = plan.say
    table = quote_table(plan.settings.sink.table)

    def started(address: str) -> None:
        say("\nThe servers stay up until you press Ctrl-C here.")
        say(f"status page: {address}")
        say("\nIn another shell, in any folder:\n")
        say(f"  {source_command()}")
        say("\nThen send more and watch them arrive, look at the rows, and look at the queue:\n")
        say("  sqs2pg send --count 5000")
        say(f"  sqs2pg top {address}")
        query = f"SELECT * FROM {table} LIMIT 5"
        say(f"  psql -c {shlex.quote(query)}")
        say('  aws --endpoint-url "$AWS_ENDPOINT_URL" sqs list-queues\n')

    settings = on_free_port(plan.settings)
    run_async(consume(settings, verbose=plan.verbose, started=started, say=say))
    say("stopped: the servers and their data are gone")

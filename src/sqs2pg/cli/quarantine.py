"""`sqs2pg quarantine list | show | replay | purge`: the quarantine for its operators.

Must never do: show a body without `--unseal` and a reason on record.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    MOMENT,
    CommandGroup,
    config_option,
    counted,
    json_option,
    load_settings,
    print_json,
    run_async,
    terminal_text,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.cli.quarantine_amend import amend
from sqs2pg.cli.quarantine_export import export
from sqs2pg.cli.quarantine_groups import GROUPS, print_groups
from sqs2pg.cli.quarantine_options import (
    all_option,
    code_option,
    include_replayed_option,
    number_argument,
    numbers_argument,
)
from sqs2pg.cli.quarantine_table import print_table, short_time, whole_time
from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.pipeline.replay import Replayed
    from sqs2pg.postgres.quarantine import Entry, Purged, Selection
    from sqs2pg.postgres.quarantine_groups import Group

_ENTRIES = ("quarantine entry", "quarantine entries")


@click.group(cls=CommandGroup)
def quarantine() -> None:
    """List, show, replay, amend, export and purge messages that were set aside."""


quarantine.add_command(amend)
quarantine.add_command(export)


@quarantine.command("list")
@config_option
@code_option
@click.option(
    "--since",
    type=MOMENT,
    metavar="TIME",
    help="Only entries set aside from then on; UTC unless it says otherwise.",
)
@click.option("--message-id", metavar="ID", help="Only entries of this SQS message.")
@include_replayed_option
@click.option(
    "--group-by",
    type=click.Choice(GROUPS),
    help="How many there are of each detail, code, table or day, since when, and a sample's id.",
)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@json_option
def list_(
    config: Path | None,
    code: str | None,
    since: datetime | None,
    message_id: str | None,
    include_replayed: bool,
    group_by: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List open entries, newest first, and how many there are by reason; or groups of them."""
    from sqs2pg.postgres.quarantine import Selection

    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    selection = Selection(
        reason=code, message_id=message_id, since=since, open_only=not include_replayed
    )
    if group_by:
        groups = run_async(_grouped(load_settings(config), selection, group_by, limit))
        print_groups(groups, group_by, as_json=as_json)
        return
    found, by_reason = run_async(_list(load_settings(config), selection, limit))
    if as_json:
        print_json([_listed(entry) for entry in found])
        return
    _print_entries(found, include_replayed=include_replayed)
    for name, count in by_reason.items():
        print(f"{count:>8,}  {name}")
    total = sum(by_reason.values())
    more = f", {len(found):,} of them shown" if len(found) < total else ""
    print(f"{total:>8,}  in all{more}")


def _print_entries(found: Sequence[Entry], *, include_replayed: bool) -> None:
    wide = [["id", "message id", "reason", "detail", "attempts", "received at"]]
    wide[0] += ["replayed at"] if include_replayed else []
    narrow = [["id", "message id", "reason", "since (UTC)"]]
    below = []
    for entry in found:
        known = [str(entry.id), entry.message_id, entry.reason]
        row = [*known, entry.detail, str(entry.attempts), whole_time(entry.received_at)]
        wide.append(row + ([whole_time(entry.replayed_at)] if include_replayed else []))
        narrow.append([*known, short_time(entry.received_at)])
        more = [entry.detail] if entry.detail else []
        more += [counted(entry.attempts, "attempt")] if entry.attempts > 1 else []
        more += [f"replayed {short_time(entry.replayed_at)}"] if entry.replayed_at else []
        below.append(", ".join(more))
    print_table(wide, narrow, below)


@quarantine.command()
@number_argument
@config_option
@click.option("--unseal", is_flag=True, help="Print only the body; an audited act.")
@click.option("--reason", metavar="TEXT", help="Why it is opened; required with --unseal.")
@click.option("--ticket", metavar="T", help="A reference to the request, such as a ticket.")
@json_option
def show(
    config: Path | None,
    number: int,
    unseal: bool,
    reason: str | None,
    ticket: str | None,
    as_json: bool,
) -> None:
    """Show what is known of one entry; its body only with --unseal."""
    if unseal and not (reason or "").strip():
        raise click.UsageError("--unseal needs --reason TEXT, which goes to the audit")
    if not unseal and (reason is not None or ticket is not None):
        raise click.UsageError("--reason and --ticket go with --unseal")
    settings = load_settings(config)
    if unseal:
        body = run_async(_unseal(settings, number, reason or "", ticket or ""))
        if as_json:
            print_json({"id": number, "body": body})
        else:
            _print_body(body)
        return
    tree = msgspec.to_builtins(run_async(_show(settings, number)))
    if as_json:
        print_json(tree)
    else:
        for name, value in tree.items():
            print(
                f"{name.replace('_', ' '):14} {'-' if value is None else terminal_text(str(value))}"
            )


@quarantine.command()
@numbers_argument
@config_option
@code_option
@all_option
@json_option
def replay(
    config: Path | None,
    numbers: tuple[int, ...],
    code: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Process entries again: by id, by reason code, or all open ones.

    Entries that fail again stay in the quarantine with their new reason. Safe to interrupt and to
    repeat.
    """
    from sqs2pg.postgres.quarantine import Selection

    if sum((bool(numbers), code is not None, everything)) != 1:
        raise click.UsageError("say which: ids, or --code CODE, or --all")
    selection = Selection(ids=numbers, reason=_checked(code))
    report = run_async(replay_selected(load_settings(config), selection))
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        print(
            f"replayed {report.replayed:,}, still bad {report.still_bad:,}, "
            f"already done {report.already_done:,}"
        )


@quarantine.command()
@numbers_argument
@config_option
@code_option
@click.option(
    "--older-than-days",
    metavar="N",
    type=click.IntRange(1, 36_500),
    help="Entries set aside more than N days ago.",
)
@all_option
@click.option("--yes", is_flag=True, help="Delete them; without it they are only counted.")
@json_option
def purge(
    config: Path | None,
    numbers: tuple[int, ...],
    code: str | None,
    older_than_days: int | None,
    everything: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete entries and their bodies for good, replayed ones too: by id, by filter, or all."""
    from sqs2pg.postgres.quarantine import Selection

    filtered = code is not None or older_than_days is not None
    if sum((bool(numbers), filtered, everything)) != 1:
        raise click.UsageError("say which: ids, or --code CODE and --older-than-days N, or --all")
    selection = Selection(ids=numbers, reason=_checked(code), older_than_days=older_than_days)
    report = run_async(_purge(load_settings(config), selection, yes=yes))
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        print(f"purged {report.purged:,}, {report.never_replayed:,} of them never replayed")


async def _list(
    settings: Settings, selection: Selection, limit: int
) -> tuple[list[Entry], dict[str, int]]:
    from sqs2pg.postgres import quarantine as work
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, pipeline):
        found = await work.entries(session, pipeline, selection, limit=limit)
        return found, await work.counts(session, pipeline, selection)


async def _grouped(settings: Settings, selection: Selection, by: str, limit: int) -> list[Group]:
    from sqs2pg.postgres import quarantine_groups as work
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, pipeline):
        return await work.groups(session, pipeline, selection, by, limit=limit)


async def _show(settings: Settings, number: int) -> Entry:
    from sqs2pg.postgres import quarantine as work
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, pipeline):
        return await work.entry(session, pipeline, number)


async def _unseal(settings: Settings, number: int, reason: str, ticket: str) -> str:
    from sqs2pg.postgres import quarantine as work
    from sqs2pg.runners.connect import database_and_keys

    async with database_and_keys(settings) as (session, pipeline, keyring):
        return await work.unseal(session, pipeline, number, keyring, reason=reason, ticket=ticket)


async def replay_selected(settings: Settings, selection: Selection) -> Replayed:
    """Replay the selected messages, with a progress line. Raises as `Replayer.run`."""
    from sqs2pg.runners.assembly import assemble_replay
    from sqs2pg.runners.connect import database_and_keys

    async with database_and_keys(settings) as (session, pipeline, keyring):
        replayer = await assemble_replay(session, settings, keyring, pipeline)

        def state() -> tuple[int, int | None, dict[str, int]]:
            report = replayer.report
            done = report.replayed + report.still_bad + report.already_done
            counts = {"replayed": report.replayed, "still_bad": report.still_bad}
            return done, replayer.total, counts

        async with Ticker("replaying", state):
            return await replayer.run(selection)


async def _purge(settings: Settings, selection: Selection, *, yes: bool) -> Purged:
    from sqs2pg.postgres import quarantine as work
    from sqs2pg.postgres.quarantine import Purged
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, pipeline):
        extent = await work.measure(session, pipeline, selection)
        if not yes:
            raise SettingsError(
                f"this would delete {counted(extent.entries, *_ENTRIES)} for good, "
                f"{extent.open:,} of them never replayed",
                code="not_confirmed",
                hint="add --yes to do it",
            )
        report = Purged()

        def state() -> tuple[int, int | None, dict[str, int]]:
            return report.purged, extent.entries, {}

        async with Ticker("purging", state):
            return await work.purge(
                session, pipeline, selection, report=report, last_id=extent.last_id
            )


def _checked(code: str | None) -> str | None:
    """Check the form of a reason code, which goes into the audit unchanged."""
    if code is not None and not (code.isidentifier() and len(code) <= 64):
        raise click.UsageError("--code takes a reason code, such as missing_field")
    return code


def _listed(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "message_id": entry.message_id,
        "reason": entry.reason,
        "detail": entry.detail,
        "table": entry.table,
        "attempts": entry.attempts,
        "received_at": entry.received_at.isoformat(),
        "replayed_at": entry.replayed_at and entry.replayed_at.isoformat(),
    }


def _print_body(body: str) -> None:
    """Print a body unchanged into a pipe; on a terminal with its control characters escaped."""
    if sys.stdout.isatty():
        shown = (c if c.isprintable() or c in "\n\t" else _escaped(c) for c in body)
        print("".join(shown))
    else:
        sys.stdout.buffer.write(body.encode("utf-8", "surrogatepass"))
        sys.stdout.buffer.flush()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

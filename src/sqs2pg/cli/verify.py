"""`sqs2pg verify`: compare the books, through `postgres/verify.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    MOMENT,
    configs_option,
    counted,
    json_option,
    load_all,
    needing_role,
    print_json,
    run_async,
)
from sqs2pg.cli.several import for_each, raise_if_failed
from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.postgres import verify as work
    from sqs2pg.postgres.accepted_rows import AcceptedRows
    from sqs2pg.postgres.audit import Anchor


@click.command()
@configs_option
@click.option(
    "--since",
    type=MOMENT,
    metavar="TIME",
    help="Compare only messages sent from then on; UTC unless it says otherwise.",
)
@click.option("--anchor", help="SEQUENCE:HASH from the log: the audit must still hold it.")
@click.option("--audit", is_flag=True, help="Verify only the audit; an auditor's role is enough.")
@click.option(
    "--deep",
    is_flag=True,
    help="Also compare which rows the tables hold, by key and version, where a digest is kept.",
)
@click.option(
    "--accept",
    is_flag=True,
    help="Record that others changed the tables' rows on purpose; compare from there on.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes to the audit.")
@click.option("--ticket", default="", metavar="T", help="A reference, such as a ticket.")
@click.option("--table", default="", metavar="NAME", help="With --accept: only this table.")
@json_option
def verify(
    configs: tuple[Path, ...],
    since: datetime | None,
    anchor: str | None,
    audit: bool,
    deep: bool,
    accept: bool,
    reason: str,
    ticket: str,
    table: str,
    as_json: bool,
) -> int:
    """Reconcile ledger, tally, quarantine and target; exit 1 on any difference.

    A difference between a table and the books that others made on purpose is recorded with --accept
    --reason TEXT, an audited act. The books themselves are then compared as ever.
    """
    if audit and since is not None:
        raise click.UsageError("--audit goes through the whole chain: leave out --since")
    if deep and (audit or since is not None):
        raise click.UsageError("--deep goes through whole tables: leave out --audit and --since")
    if accept and (audit or since is not None):
        raise click.UsageError("--accept takes whole tables: leave out --audit and --since")
    if accept and not reason:
        raise click.UsageError("--accept goes with --reason TEXT: who changed the rows, and why")
    if not accept and (reason or ticket or table):
        raise click.UsageError("--reason, --ticket and --table go with --accept")
    refused: dict[Path, SettingsError] = {}
    found = load_all(configs, refused=refused)
    if audit:
        # The audit is the database's: of several pipelines of one database, one answers for all.
        audits = {
            one.pipeline_name: partial(_verify_audit, one, anchor, as_json=as_json)
            for one in _one_per_database(found)
        }
        codes, failed = for_each(audits, refused)
        raise_if_failed(failed)
        return max(codes.values())
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    if accept and len(found) + len(refused) > 1:
        raise SettingsError("--accept goes with one pipeline", hint="name it with --pipeline NAME")
    accepted = run_async(accept_difference(found[0], reason, ticket, table)) if accept else []
    reports, failed = _compare(found, refused, since, anchor, deep=deep)
    for report in reports.values():
        report.accepted = accepted
    _show(reports, failed, as_json=as_json)
    raise_if_failed(failed)
    return 0 if all(report.ok for report in reports.values()) else 1


def _compare(
    found: Sequence[Settings],
    refused: Mapping[Path, SettingsError],
    since: datetime | None,
    anchor: str | None,
    *,
    deep: bool,
) -> tuple[dict[str, work.VerifyReport], dict[str, Sqs2pgError]]:
    """Verify each pipeline; return the reports, and the errors of those that could not be."""
    undigested: list[SettingsError] = []

    def compare(settings: Settings) -> work.VerifyReport:
        try:
            return run_async(check(settings, since, anchor, deep=deep))
        except SettingsError as error:
            if error.code != "no_digest" or len(found) + len(refused) == 1:
                raise
            # Another pipeline keeps a digest, or may: this one must not end the command.
            report = run_async(check(settings, since, anchor))
            report.notes.append(error.what)
            undigested.append(error)
            return report

    acts = {one.pipeline_name: partial(compare, one) for one in found}
    reports, failed = for_each(acts, refused)
    if undigested and len(undigested) == len(reports):
        raise undigested[0]
    return reports, failed


def _show(
    reports: Mapping[str, work.VerifyReport],
    failed: Mapping[str, Sqs2pgError],
    *,
    as_json: bool,
) -> None:
    """Print one report as ever; of several, each with its pipeline's name."""
    flat = [
        {"pipeline": name, "ok": one.ok, **msgspec.to_builtins(one)}
        for name, one in reports.items()
    ]
    flat += [{"pipeline": name, "ok": False, "error": one.code} for name, one in failed.items()]
    if as_json and len(flat) == 1:
        del flat[0]["pipeline"]
        print_json(flat[0])
    elif as_json:
        print_json({"ok": all(one["ok"] for one in flat), "pipelines": flat})
    else:
        for name, report in reports.items():
            if len(flat) > 1:
                print(f"{name}:")
            print_report(report)
        for name, error in failed.items():
            print(f"{name}:\nnot compared: {error.code}")


def _one_per_database(found: Sequence[Settings]) -> list[Settings]:
    return list({settings.sink.dsn: settings for settings in reversed(found)}.values())


def _verify_audit(settings: Settings, anchor: str | None, *, as_json: bool) -> int:
    with needing_role("sqs2pg_auditor"):
        head, differences = run_async(_check_audit(settings, anchor))
    ok = not differences
    if as_json:
        print_json(
            {"ok": ok, "acts": head.sequence, "anchor": str(head), "differences": differences}
        )
    else:
        for difference in differences:
            print(f"difference: {difference}")
        print(f"{counted(head.sequence, 'act')}; the newest one's anchor is {head}")
        print("the chain holds" if ok else "the chain does not hold")
    return 0 if ok else 1


async def _check_audit(settings: Settings, anchor: str | None) -> tuple[Anchor, list[str]]:
    from sqs2pg.postgres.audit import check_chain, head
    from sqs2pg.runners.connect import connected

    async with connected(settings) as session:
        return await head(session), await check_chain(session, anchor)


def print_report(report: work.VerifyReport) -> None:
    """Print a report for people."""
    print(
        f"written {report.written:,}  quarantined {report.quarantined:,}  "
        f"extra deliveries {report.duplicate:,}"
    )
    for one in report.accepted:
        print(f"accepted: {one}")
    for note in report.notes:
        print(f"note: {note}")
    for difference in report.differences:
        print(f"difference: {difference}")
    print("the books balance" if report.ok else "the books do not balance")


async def check(
    settings: Settings,
    since: datetime | None = None,
    anchor: str | None = None,
    *,
    deep: bool = False,
) -> work.VerifyReport:
    """Verify the settings' pipeline."""
    from sqs2pg.postgres import verify as work
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, pipeline):
        dedupe = bool(settings.ledger.dedupe_key)
        return await work.verify(
            session, pipeline, since=since, dedupe=dedupe, anchor=anchor, deep=deep
        )


async def accept_difference(
    settings: Settings, reason: str, ticket: str, table: str
) -> list[AcceptedRows]:
    """Accept what the tables of the settings' pipeline hold, as `accept_rows` does."""
    from sqs2pg.postgres.accepted_rows import accept_rows
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, pipeline):
        return await accept_rows(session, pipeline, reason=reason, ticket=ticket, table=table)

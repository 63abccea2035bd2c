"""`sqs2pg verify`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from sqs2pg import assembly
from sqs2pg import verify as work
from sqs2pg.cli.options import config_option, json_option, print_json, run_async
from sqs2pg.settings import Settings, load


@click.command()
@config_option
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]),
    help="Compare only messages sent from then on; UTC unless it says otherwise.",
)
@click.option("--anchor", help="SEQUENCE:HASH from the log: the audit must still hold it.")
@json_option
def verify(config: Path | None, since: datetime | None, anchor: str | None, as_json: bool) -> int:
    """Reconcile ledger, tally, quarantine and target; exit 1 on any difference."""
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    report = run_async(check(load(config), since, anchor))
    if as_json:
        print_json({"ok": report.ok, **msgspec.to_builtins(report)})
    else:
        print_report(report)
    return 0 if report.ok else 1


def print_report(report: work.Report) -> None:
    """Print a report for people."""
    print(
        f"written {report.written:,}  quarantined {report.quarantined:,}  "
        f"extra deliveries {report.duplicate:,}"
    )
    for difference in report.differences:
        print(f"difference: {difference}")
    print("the books balance" if report.ok else "the books do not balance")


async def check(
    settings: Settings, since: datetime | None = None, anchor: str | None = None
) -> work.Report:
    """Verify the settings' pipeline."""
    async with assembly.database(settings) as (session, pipeline):
        dedupe = bool(settings.ledger.dedupe_key)
        return await work.verify(session, pipeline, since=since, dedupe=dedupe, anchor=anchor)

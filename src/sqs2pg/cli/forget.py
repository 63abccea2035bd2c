"""`sqs2pg forget`: erase a person, through `vault/erase.py`.

Must never do: print or log a person's id.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from sqs2pg.cli.options import config_option, json_option, print_json, run_async, stdin_lines
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings, load

if TYPE_CHECKING:
    from sqs2pg.vault.erase import Erased

PEOPLE_MAX = 100_000
"""The most ids that are read from stdin."""


@click.command()
@click.argument("user_id")
@config_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes to the audit.")
@click.option(
    "--ticket", default="", metavar="T", help="A reference to the request, such as a ticket."
)
@click.option("--delete-rows", is_flag=True, help="Remove the rows instead of clearing them.")
@json_option
def forget(
    user_id: str,
    config: Path | None,
    reason: str,
    ticket: str,
    delete_rows: bool,
    as_json: bool,
) -> None:
    """Erase a person; with - all those whose ids stdin gives, one per line. An audited act.

    Their keys are destroyed and the values that they sealed are removed. Their rows lose their
    tokens and get a random user id. It may be repeated; if it was interrupted, run it again.
    """
    settings = load(config)
    ids = stdin_lines(most=PEOPLE_MAX) if user_id == "-" else [user_id]
    if not all(ids):
        raise SettingsError("a user id is empty", hint="give one id per line")
    report = run_async(erase_people(settings, ids, reason, ticket, delete_rows=delete_rows))
    remains = _remains(report, settings)
    if as_json:
        print_json({**_flat(report, settings), "remains": remains})
        return
    people = "person" if report.subjects == 1 else "people"
    rows = f"{report.rows_deleted:,} deleted" if delete_rows else f"{report.rows_changed:,} cleared"
    print(
        f"erased {report.subjects:,} {people}: {report.keys_destroyed:,} keys destroyed, "
        f"{report.values_removed:,} values removed, rows {rows}, "
        f"{report.quarantine_removed:,} quarantined bodies removed"
    )
    print("what remains, and where:")
    for line in remains:
        print(f"- {line}")


async def erase_people(
    settings: Settings, ids: list[str], reason: str, ticket: str, *, delete_rows: bool
) -> Erased:
    """Erase the people with these ids, with a progress line. Raises as `Eraser.run`."""
    from sqs2pg.runners.compile_subjects import person_columns_of, references_of
    from sqs2pg.runners.connect import database_and_keys
    from sqs2pg.vault.erase import Eraser
    from sqs2pg.vault.reference_key import reference_key

    async with database_and_keys(settings) as (session, pipeline, keyring):
        targets = person_columns_of(settings, keyring)
        reference = references_of(settings, await reference_key(session, keyring))
        eraser = Eraser(session, pipeline, targets, reference, delete_rows=delete_rows)

        def state() -> tuple[int, int | None, dict[str, int]]:
            report = eraser.report
            rows = report.rows_changed + report.rows_deleted
            return report.subjects, len(ids), {"rows": rows, "pages": eraser.pages}

        async with Ticker("erasing", state):
            return await eraser.run(ids, reason, ticket)


def _flat(report: Erased, settings: Settings) -> dict[str, Any]:
    tree: dict[str, Any] = msgspec.to_builtins(report)
    del tree["quarantine_unreadable_newest"]
    tree["quarantine_unreadable_until"] = _until(report, settings)
    return tree


def _until(report: Erased, settings: Settings) -> str | None:
    newest = report.quarantine_unreadable_newest
    days = timedelta(days=settings.quarantine.retention_days)
    return f"{newest + days:%Y-%m-%d}" if newest else None


def _remains(report: Erased, settings: Settings) -> list[str]:
    """Return what this erasure cannot reach."""
    lines = []
    if report.quarantine_unreadable:
        lines.append(
            f"{report.quarantine_unreadable:,} quarantined bodies, sealed, that do not say whose "
            f"they are; the last is purged on {_until(report, settings)}"
        )
    return [
        *lines,
        "messages in flight on the queue: their rows will be new ones; forget again afterwards",
        "backups and WAL archives made before, which hold values and wrapped keys: let them expire",
        "replicas, until they have replayed this; dead row versions, until VACUUM",
        "copies that were made elsewhere of rows or revealed values",
    ]

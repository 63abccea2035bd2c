"""`sqs2pg forget`: erase a person, through `vault/erase.py`.

Must never do: print or log a person's id.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sqs2pg.cli import certificate, erasure_report
from sqs2pg.cli.named_ids import ids_of
from sqs2pg.cli.options import (
    config_option,
    json_option,
    load_settings,
    print_json,
    run_async,
    ticket_option,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.vault.erase import Eraser


@click.command()
@click.argument("user_id")
@config_option
@click.option(
    "--reason",
    metavar="TEXT",
    help="Why; it goes to the audit.  [required without --dry-run]",
)
@ticket_option
@click.option("--delete-rows", is_flag=True, help="Remove the rows instead of clearing them.")
@click.option("--dry-run", is_flag=True, help="Only look for the people; change nothing.")
@click.option("--exact", is_flag=True, help="Take ids as they are: with quotes, white space, all.")
@click.option(
    "--certificate",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what was erased and what remains, as JSON and as text.",
)
@json_option
def forget(
    user_id: str,
    config: Path | None,
    reason: str | None,
    ticket: str,
    delete_rows: bool,
    dry_run: bool,
    exact: bool,
    file: Path | None,
    as_json: bool,
) -> None:
    """Erase a person; with - all those whose ids stdin gives, one per line. An audited act.

    Their keys are destroyed and the values that they sealed are removed. Their rows lose their
    tokens and get a random user id. It may be repeated; if it was interrupted, run it again. Exit
    code 1: nobody was found, or rows about them kept coming.
    """
    if reason is None and not dry_run:
        raise click.UsageError("Missing option '--reason'.")
    if file and dry_run:
        raise click.UsageError("--certificate and --dry-run: nothing is erased to certify")
    settings = load_settings(config)
    ids = ids_of(user_id, _headers(settings), exact=exact)
    began_at = datetime.now(UTC)
    with certificate.reserved(file):
        work = erase_people(
            settings, ids, reason or "", ticket, delete_rows=delete_rows, dry_run=dry_run
        )
        eraser = run_async(work)
    report = eraser.report
    if file:
        certificate.write(file, report, settings, eraser.database, began_at)
    lines = erasure_report.line_numbers(ids, eraser.not_found) if user_id == "-" else list[int]()
    if as_json:
        print_json(erasure_report.flat(report, settings, lines, dry_run=dry_run))
    else:
        print(erasure_report.text(report, settings, lines, dry_run=dry_run))
    if not report.found or report.rows_left:
        raise SystemExit(1)


async def erase_people(
    settings: Settings,
    ids: list[str],
    reason: str,
    ticket: str,
    *,
    delete_rows: bool = False,
    dry_run: bool = False,
) -> Eraser:
    """Erase the people with these ids, with a progress line; return the eraser with its report.

    Raises as `Eraser.run`, or `Eraser.search` for a dry run.
    """
    from sqs2pg.runners.compile_subjects import person_columns_of, references_of
    from sqs2pg.runners.connect import database_and_keys
    from sqs2pg.vault.erase import Eraser
    from sqs2pg.vault.reference_key import reference_key

    async with database_and_keys(settings) as (session, pipeline, keyring):
        key = await reference_key(session, keyring)
        targets = person_columns_of(settings, keyring, key)
        reference = references_of(settings, key)
        eraser = Eraser(session, pipeline, targets, reference, delete_rows=delete_rows)

        def state() -> tuple[int, int | None, dict[str, int]]:
            report = eraser.report
            rows = report.rows_changed + report.rows_deleted
            return report.subjects, len(ids), {"rows": rows, "pages": eraser.pages}

        async with Ticker("searching" if dry_run else "erasing", state):
            if dry_run:
                await eraser.search(ids)
            else:
                await eraser.run(ids, reason, ticket)
        return eraser


def _headers(settings: Settings) -> set[str]:
    """Return what a column of ids may be called: the field, and its columns in the targets."""
    subject = settings.vault.subject
    columns = {field.column for field in settings.fields if field.first_source == subject}
    return {subject, "user_id", "userid", "user id", "id", *columns}

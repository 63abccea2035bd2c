"""`sqs2pg quarantine export`: entries with their bodies to a file, sealed unless asked otherwise.

Must never do: write a body anywhere but to the named file, which only its owner may read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

from sqs2pg.cli.options import (
    config_option,
    counted,
    json_option,
    load_settings,
    needing_role,
    print_json,
    run_async,
)
from sqs2pg.cli.quarantine_options import all_option, include_replayed_option, numbers_argument
from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.postgres.quarantine import Selection
    from sqs2pg.postgres.quarantine_export import Exported


class Chosen(msgspec.Struct, frozen=True):
    """What is exported, and how."""

    selection: Selection
    file: Path
    unsealed: bool
    reason: str
    ticket: str


@click.command("export")
@numbers_argument
@config_option
@click.option(  # without --reason, which says here why bodies are opened
    "--code", metavar="CODE", help="Entries with this reason code."
)
@all_option
@include_replayed_option
@click.option(
    "--file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to; it must not exist, and only you may read it.",
)
@click.option("--unsealed", is_flag=True, help="With the bodies in clear; an audited act.")
@click.option("--reason", metavar="TEXT", help="Why they are opened; required with --unsealed.")
@click.option("--ticket", metavar="T", help="A reference to the request, such as a ticket.")
@json_option
def export(
    numbers: tuple[int, ...],
    config: Path | None,
    code: str | None,
    everything: bool,
    include_replayed: bool,
    file: Path,
    unsealed: bool,
    reason: str | None,
    ticket: str | None,
    as_json: bool,
) -> None:
    """Write entries to a new file, one JSON object per line: by id, or open ones by code, or all.

    Bodies stay sealed, unless --unsealed says why they are opened. That is a reveal: it needs the
    role sqs2pg_revealer and the keys, and counts against the values of the hour.
    """
    from sqs2pg.postgres.quarantine import Selection

    if sum((bool(numbers), code is not None, everything)) != 1:
        raise click.UsageError("say which: ids, or --code CODE, or --all")
    if unsealed and not (reason or "").strip():
        raise click.UsageError("--unsealed needs --reason TEXT, which goes to the audit")
    if not unsealed and (reason is not None or ticket is not None):
        raise click.UsageError("--reason and --ticket go with --unsealed; a code is --code CODE")
    selection = Selection(ids=numbers, reason=code, open_only=not (numbers or include_replayed))
    chosen = Chosen(selection, file, unsealed, reason or "", ticket or "")
    with needing_role("sqs2pg_revealer"):
        report = run_async(export_selected(load_settings(config), chosen))
    if as_json:
        print_json(msgspec.to_builtins(report) | {"unsealed": unsealed, "file": str(file)})
        return
    how = "in clear" if unsealed else "sealed"
    print(f"exported {counted(report.exported, 'entry', 'entries')}, {how}, to {file}")
    if report.unopened:
        bodies = counted(report.unopened, "body does", "bodies do")
        print(f"{bodies} not open: damaged, or sealed under a root that the keyring lacks")


async def export_selected(settings: Settings, chosen: Chosen) -> Exported:
    """Write the file; it is removed again where something fails. Raises as the lines do."""
    from sqs2pg.postgres import quarantine_export as work
    from sqs2pg.postgres.quarantine import measure
    from sqs2pg.runners.connect import database, database_and_keys

    report = work.Exported()
    if not chosen.unsealed:
        async with database(settings) as (session, number):
            await measure(session, number, chosen.selection)
            with _new_file(chosen.file) as out:
                async for line in work.sealed_lines(session, number, chosen.selection, report):
                    print(line, file=out)
        return report
    async with database_and_keys(settings) as (session, number, keyring):
        await measure(session, number, chosen.selection)
        with _new_file(chosen.file) as out:
            async for line in work.unsealed_lines(
                session,
                number,
                chosen.selection,
                report,
                keyring,
                reason=chosen.reason,
                ticket=chosen.ticket,
            ):
                print(line, file=out)
    return report


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """Make a file that only its owner may read; remove it if the block fails."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise SettingsError(
            f"{path} exists already", code="file_exists", hint="give a new --file"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be made: {error.strerror}",
            code="file_unwritable",
            hint="check the folder and its permissions",
        ) from None
    try:
        with open(number, "w", encoding="ascii") as out:  # noqa: PTH123  a descriptor
            yield out
            out.flush()
            os.fsync(number)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SettingsError(
                f"{path} cannot be written: {error.strerror}",
                code="file_unwritable",
                hint="check the disk and its quota; the file was removed",
            ) from None
        raise

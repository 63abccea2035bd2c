"""`sqs2pg quarantine amend`: replay one entry with a mended body, on record."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    config_option,
    json_option,
    load_settings,
    print_json,
    run_async,
    ticket_option,
)
from sqs2pg.cli.quarantine_options import number_argument
from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.pipeline.amend import Amended


@click.command()
@number_argument
@config_option
@click.option("--body", required=True, metavar="FILE", help="The mended body; - reads stdin.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes to the audit.")
@ticket_option
@json_option
def amend(
    number: int, config: Path | None, body: str, reason: str, ticket: str, as_json: bool
) -> None:
    """Write an entry's message with the mended body in FILE, once; an audited act.

    The message keeps its id, its attributes and its times. A body that is still bad changes
    nothing. `quarantine show ID --unseal` prints the body to mend.
    """
    from sqs2pg.pipeline.amend import BODY_BYTES_MAX

    settings = load_settings(config)
    text = _body_of(body, BODY_BYTES_MAX)
    done = run_async(amend_entry(settings, number, text, reason, ticket))
    if as_json:
        print_json(msgspec.to_builtins(done))
    else:
        print(f"amended: message {done.message_id} is written (audit {done.audit})")


async def amend_entry(
    settings: Settings, number: int, body: str, reason: str, ticket: str = ""
) -> Amended:
    """Amend one entry. Raises as `Amender.amend`."""
    from sqs2pg.runners.assembly import assemble_amend
    from sqs2pg.runners.connect import database_and_keys

    async with database_and_keys(settings) as (session, pipeline, keyring):
        amender = await assemble_amend(session, settings, keyring, pipeline)
        return await amender.amend(number, body, reason=reason, ticket=ticket)


def _body_of(file: str, most: int) -> str:
    """Return the mended body. Raises SettingsError, which quotes nothing of it."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(most + 1)
        else:
            with Path(file).open("rb") as stream:
                content = stream.read(most + 1)
    except OSError as error:
        raise SettingsError(
            f"the mended body {file} cannot be read: {error.strerror}",
            code="body_unreadable",
            hint="give the file with --body FILE, or - for stdin",
        ) from None
    if not content or len(content) > most:
        size = "is empty" if not content else f"has more than {most:,} bytes"
        raise SettingsError(
            f"the mended body {size}", code="body_unreadable", hint="give the whole message body"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise SettingsError(
            "the mended body is not UTF-8 text",
            code="body_unreadable",
            hint="save it as UTF-8, as `quarantine show ID --unseal` has printed it",
        ) from None

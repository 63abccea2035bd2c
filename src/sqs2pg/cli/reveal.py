"""`sqs2pg reveal`: show the value behind a token, or a person's values, through `vault/reveal.py`.

Must never do: write a value anywhere but to stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.named_ids import stdin_ids
from sqs2pg.cli.options import (
    config_option,
    json_option,
    load_settings,
    needing_role,
    print_json,
    run_async,
    terminal_text,
    ticket_option,
)
from sqs2pg.cli.person_report import show_person
from sqs2pg.mapping.subject import stored_form
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.vault.person_data import PersonData
    from sqs2pg.vault.reveal import Revealed

LIMIT_MAX = 1_000
"""Values of one request, at most; the database refuses more."""
USER_LIMIT = 20
"""Values shown of a person unless --limit says otherwise."""


@click.command()
@click.argument("token", required=False)
@config_option
@click.option("--user", metavar="USER_ID", help="Only values of this person; - reads stdin.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIMIT_MAX),
    help=f"Values at most: 1 of a token, {USER_LIMIT} of a person.",
)
@click.option(
    "--all", "everything", is_flag=True, help="With --user: all that is held on the person."
)
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes to the audit.")
@ticket_option
@json_option
def reveal(
    token: str | None,
    config: Path | None,
    user: str | None,
    limit: int | None,
    everything: bool,
    reason: str,
    ticket: str,
    as_json: bool,
) -> None:
    """Open the value behind a TOKEN, or a person's values with --user. An audited act.

    Only the value goes to stdout. Mind where you redirect it. With --all it is the person's rows by
    table, sealed values, quarantined messages and acts of the audit, for an access request.
    """
    if token is None and user is None:
        raise click.UsageError("say what: a TOKEN, or --user USER_ID, or both")
    if everything and (user is None or token is not None or limit is not None):
        raise click.UsageError("--all goes with --user alone: neither TOKEN nor --limit")
    settings = load_settings(config)
    if user == "-":
        [user] = stdin_ids(most=1)
    if everything:
        assert user is not None
        show_person(run_async(reveal_everything(settings, user, reason, ticket)), as_json=as_json)
        return
    many = limit is not None or token is None
    chosen = limit or (1 if token is not None else USER_LIMIT)
    with needing_role("sqs2pg_revealer"):
        found = run_async(reveal_values(settings, token, user, chosen, reason, ticket))
    if as_json:
        listed = [msgspec.to_builtins(one) for one in found]
        print_json(listed if many else listed[0])
        return
    for one in found:
        shown = terminal_text(one.value)
        print(f"{one.field}\t{one.token}\t{shown}" if many else shown)
    if user is None:
        for one in found:
            print(_whose(settings, one), file=sys.stderr)


async def reveal_values(
    settings: Settings,
    token: str | None,
    user: str | None,
    limit: int,
    reason: str,
    ticket: str,
) -> list[Revealed]:
    """Return what the command shows. Raises as `sqs2pg.vault.reveal.reveal`."""
    from sqs2pg.runners.connect import database_and_keys
    from sqs2pg.vault import reveal as work

    async with database_and_keys(settings) as (session, _, keyring):
        return await work.reveal(
            session,
            keyring,
            token=token,
            user=user,
            limit=limit,
            reason=reason,
            ticket=ticket,
            named=stored_form(settings.fields, settings.vault.subject),
            like_values=any(f.recover and f.mask == "fpe_ff1" for f in settings.fields),
        )


async def reveal_everything(settings: Settings, user: str, reason: str, ticket: str) -> PersonData:
    """Return all that is held on a person. Raises as `person_data.reveal_person`."""
    from sqs2pg.runners.compile_subjects import person_columns_of
    from sqs2pg.runners.connect import database_and_keys
    from sqs2pg.vault import person_data

    async with database_and_keys(settings) as (session, _, keyring):
        return await person_data.reveal_person(
            session,
            keyring,
            user,
            person_columns_of(settings, keyring),
            reason=reason,
            ticket=ticket,
            named=stored_form(settings.fields, settings.vault.subject),
        )


def _whose(settings: Settings, one: Revealed) -> str:
    """Return whose value it is: by id on a terminal if the target holds the id in clear, else by
    reference, since stderr may be a log.
    """
    subject = settings.vault.subject
    in_clear = any(f.first_source == subject and f.mask == "keep" for f in settings.fields)
    named = in_clear and sys.stderr.isatty() and one.subject.isprintable()
    name = one.subject if named else f"the subject {one.reference}"
    others = f", one of {one.shared_by:,} people who share this token" if one.shared_by > 1 else ""
    more = "; --user picks one of them, --limit shows more" if others else ""
    return f"{one.field} of {name}{others}{more} (audit {one.audit})"

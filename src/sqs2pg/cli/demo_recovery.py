"""`sqs2pg demo --recover`: reveal one value, forget one person, show the refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqs2pg.cli.options import counted
from sqs2pg.errors import FatalFault, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.runners.compile_subjects import person_columns_of, recoverable_columns, references_of
from sqs2pg.runners.connect import database_and_keys
from sqs2pg.settings import Settings
from sqs2pg.vault.erase import Eraser
from sqs2pg.vault.reference_key import reference_key
from sqs2pg.vault.reveal import reveal

Say = Callable[[str], Any]

_KEPT = "SELECT (SELECT count(*) FROM pii.subject_key), (SELECT count(*) FROM pii.value)"
# Somebody with several logins, and somebody else who is not erased.
_PEOPLE = """SELECT user_id, max(masked_ip), max(masked_device_id), count(*) FROM {table}
WHERE masked_ip IS NOT NULL AND masked_device_id IS NOT NULL GROUP BY user_id
ORDER BY 4 DESC, 1 LIMIT 2"""


async def show_recovery(settings: Settings, say: Say) -> None:
    """Show what the vault is for, on the demo's own rows. Raises FatalFault if it does not work."""
    async with database_and_keys(settings) as (session, pipeline, keyring):
        [(people, values)] = await session.execute(_KEPT)
        say(
            f"\nthe vault: {counted(values, 'sealed value')} of "
            f"{counted(people, 'person', 'people')}, a data key for each"
        )
        table = quote_table(settings.targets[0].table)
        found = await session.execute(_PEOPLE.format(table=table))
        if len(found) < 2:
            say("too few people to show more: send more messages")
            return
        (one, ip, _, logins), (other, _, device, _) = found
        say(f"\n$ sqs2pg reveal {ip} --reason demo")
        say(await _reveal(session, keyring, settings, ip))
        reference = references_of(settings, await reference_key(session, keyring))
        eraser = Eraser(session, pipeline, person_columns_of(settings, keyring), reference)
        say(f"\n$ sqs2pg forget {one[:8]}… --reason demo    # {counted(logins, 'login')}")
        report = await eraser.run([one], "demo")
        say(
            f"erased 1 person: {counted(report.keys_destroyed, 'key')} destroyed, "
            f"{counted(report.values_removed, 'value')} removed, "
            f"{counted(report.rows_changed, 'row')} cleared"
        )
        say(f"\n$ sqs2pg reveal --user {one[:8]}… --reason demo")
        try:
            await reveal(session, keyring, user=one, limit=10, reason="demo")
        except Sqs2pgError as refused:
            if refused.code != "erased":
                raise
            say(f"error: {refused.what}")
        else:
            raise FatalFault("a value of an erased person was revealed", code="demo_recover")
        say(f"\n$ sqs2pg reveal {device} --reason demo    # of somebody else")
        say(await _reveal(session, keyring, settings, device, user=other))


async def _reveal(
    session: Session, keyring: Keyring, settings: Settings, token: str, user: str | None = None
) -> str:
    """Return a token's value, after checking that masking it gives the same token."""
    [found] = await reveal(session, keyring, token=token, user=user, reason="demo")
    [column] = [
        column for column in recoverable_columns(settings, keyring) if column.field == found.field
    ]
    if column.masks[keyring.active("pseudonym")](found.value) != token:
        raise FatalFault("a revealed value has another token", code="demo_recover")
    return found.value

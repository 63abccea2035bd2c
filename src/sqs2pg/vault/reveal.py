"""Reveal: the values behind a token, or of a person, in clear. The request is on record first.

Two transactions. The first one requests: it commits the audit row with the reason, durably. The
second one fetches: the database gives ciphertexts and wrapped keys only for a request that this
role has committed within the last ten minutes. The vault root, which opens them, is in this process
and never in the database.

Must never do: log or store a value; put one into an error.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.convert import Converter, text
from sqs2pg.postgres import audit
from sqs2pg.postgres.audit import Anchor
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.crypto import (
    KeyEncryptionKeys,
    open_subject,
    open_value,
    reference_of,
    subject_references,
)
from sqs2pg.vault.reference_key import reference_key

TOKEN_CHARACTERS_MAX = 1_024

_TOKEN = re.compile(r"[ved][1-9][0-9]{0,3}_[A-Za-z0-9_-]+\Z|[0-9a-f]{64}\Z")
"""A token of a mask with a version, or of `sha256`."""

_REQUEST = "SELECT granted, sequence, hash FROM pii.request_reveal(%s, %s::uuid, %s, %s, %s)"
FETCH = """SELECT subject, generation, field, token, sealed, wrapped_key, key_version,
       sealed_subject, shared_by FROM pii.fetch_reveal(%s)"""
"""The values of a request; one parameter: its sequence."""
_ERASED = "SELECT pii.erased_at(%s::uuid)"


class Revealed(msgspec.Struct, frozen=True):
    """One value in clear, and whose it is."""

    field: str
    token: str
    value: str
    subject: str
    """The person, as the field of `vault.subject` named them."""
    reference: str
    shared_by: int
    """People for whom this token of this field is stored."""
    audit: int
    """The sequence of the request's row in the audit."""

    def __repr__(self) -> str:
        return f"Revealed({self.field})"

    def __rich_repr__(self) -> Any:
        yield self.field


async def reveal(
    session: Session,
    keyring: Keyring,
    *,
    token: str | None = None,
    user: str | None = None,
    limit: int = 1,
    reason: str,
    ticket: str = "",
    named: Converter = text,
    like_values: bool = False,
) -> list[Revealed]:
    """Return up to `limit` (1 to 1,000) values: of a token, of a person, or of a person's token.

    Give `token` or `user` or both. `named` normalises `user` to the form in which the vault knows
    people (`mapping/subject.py`). `like_values`: a token may look like a value (`fpe_ff1`).
    Otherwise a token that does not look like one is refused before it is on record, since it may be
    an address or somebody's name.

    Raises SettingsError for a request that cannot be recorded, KeyFault where a key is missing,
    FatalFault where the role lacks the privilege, has used up its values of this hour
    (`rate_limited`), the person was erased (`erased`), or nothing is sealed (`not_sealed`).
    """
    reason, ticket = audit.stated_reason(reason, ticket, hint="say why the value is revealed")
    if token is not None:
        audit.operator_text("the token", token, TOKEN_CHARACTERS_MAX)
        if not like_values and not _TOKEN.match(token):
            raise SettingsError(
                "TOKEN does not look like a token; nothing was asked for, and nothing recorded",
                code="not_a_token",
                hint="copy it from the masked column: v1_ and 32 hexadecimal digits. A person's "
                "values are revealed with --user; masks of fpe_ff1 with their own settings (-c)",
            )
    keyring.active("vault")  # without it nothing would be opened
    reference = await reference_of_user(session, keyring, user, named) if user is not None else None
    anchor = await request(
        session, _REQUEST, [token, reference, limit, reason, ticket], act="reveal"
    )
    with explained():
        rows = await session.execute(FETCH, [anchor.sequence])
    if not rows:
        raise await _nothing(session, reference)
    keks = KeyEncryptionKeys(keyring)
    return [open_revealed(keks, row, anchor.sequence) for row in rows]


async def request(session: Session, statement: str, parameters: list[Any], *, act: str) -> Anchor:
    """Commit a request; return its anchor. Raises FatalFault `rate_limited` among others."""
    people = act == "reveal_all"
    what, setting = ("people", "people") if people else ("values", "reveals")
    return await audit.request(
        session,
        statement,
        parameters,
        act=act,
        refused="reveal_refused",
        spent=f"revealed as many {what}",
        setting=f"{setting}_per_hour_max",
    )


async def reference_of_user(session: Session, keyring: Keyring, user: str, named: Converter) -> str:
    """Return a person's reference. Raises SettingsError where no person can have such an id."""
    key = await reference_key(session, keyring, make=False)
    reference = subject_references(key)
    hint = "give the id as the messages have it"
    return reference_of(lambda id_: reference(named(id_)), user, hint=hint)


async def erased_at(session: Session, reference: str) -> datetime | None:
    """Return when a person was erased, unless they have come back. Raises psycopg.Error."""
    [(erased,)] = await session.execute(_ERASED, [reference])
    return erased if isinstance(erased, datetime) else None


async def _nothing(session: Session, reference: str | None) -> FatalFault:
    """Return why there is nothing. The request stays in the audit all the same."""
    erased: datetime | None = None
    if reference is not None:
        with explained():
            erased = await erased_at(session, reference)
    if erased is not None:
        return FatalFault(
            f"this person was erased on {erased:%Y-%m-%d}: nothing of theirs can be revealed",
            code="erased",
            hint="the key of their values was destroyed; no backup of the keys brings it back",
        )
    return FatalFault(
        "no value is sealed for that",
        code="not_sealed",
        hint="values are kept where vault.enabled was on when they came, for fields with "
        "recover = true, until their person is erased",
    )


def open_revealed(keks: KeyEncryptionKeys, row: tuple[Any, ...], sequence: int) -> Revealed:
    """Open one row of FETCH. `sequence` is the request's. Raises Sqs2pgError, KeyFault."""
    number, generation, field, token, sealed, wrapped, version, who, shared_by = row
    assert isinstance(number, UUID)
    subject = number.hex
    keks[version]  # raises KeyFault
    data_key = keks.open_data_key(version, wrapped, subject, generation)
    return Revealed(
        field=field,
        token=token,
        value=open_value(data_key, sealed, field, token, subject),
        subject=open_subject(data_key, who, subject),
        reference=subject,
        shared_by=shared_by,
        audit=sequence,
    )

"""All that is held on one person, for an access request (GDPR art. 15). On record first.

Rows by table, sealed values, quarantined bodies, and the acts of the audit that name the person.
One request, committed durably with its reason, allows one person's data for ten minutes; how many
people a login may ask for in an hour has a limit of its own. The database gives ciphertexts, which
are opened here, and rows, which it finds by the texts that stand for the person. These come in by
COPY: as parameters the server could log them.

Must never do: log or store a value; put one into an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from sqs2pg.errors import FatalFault, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.convert import Converter
from sqs2pg.mapping.copy_text import escaped
from sqs2pg.postgres import audit
from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.quarantine import open_attributes, open_body
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.vault.crypto import KeyEncryptionKeys
from sqs2pg.vault.reveal import (
    FETCH,
    Revealed,
    erased_at,
    open_revealed,
    reference_of_user,
    request,
)
from sqs2pg.vault.target_rows import PersonColumns, spellings, with_column_types

ROWS_MAX = 10_000
"""Rows of one table, values, bodies and acts, each at most; the database refuses more."""

_REQUEST = "SELECT granted, sequence, hash FROM pii.request_person(%s::uuid, %s, %s, %s)"
_NAMES = "COPY pii.requested_name (request, target, spelling) FROM STDIN"
_ROWS = "SELECT target, found::text FROM pii.fetch_person_rows(%s)"
_BODIES = """SELECT id, pipeline, key::text, message_id, reason, received_at, sealed_under, body,
       attributes FROM pii.fetch_person_bodies(%s)"""
_ACTS = "SELECT sequence, at, role, act, subject, reason, ticket FROM pii.fetch_person_acts(%s)"


class Body(msgspec.Struct, frozen=True):
    """One quarantined message about the person, opened."""

    id: int
    pipeline: str
    message_id: str
    reason: str
    received_at: datetime
    body: str
    attributes: dict[str, Any] | None

    def __repr__(self) -> str:
        return f"Body({self.id})"


class Act(msgspec.Struct, frozen=True):
    """One act of the audit that names the person's reference, or one of their tokens."""

    sequence: int
    at: datetime
    role: str
    act: str
    subject: str
    reason: str
    ticket: str


class PersonData(msgspec.Struct):
    """All that is held on one person."""

    reference: str
    audit: int
    """The sequence of the request's row in the audit."""
    erased_at: datetime | None
    """When the person was erased, unless they have come back since."""
    rows: dict[str, list[dict[str, Any]]] = {}
    """By table, `schema.table`."""
    values: list[Revealed] = []
    quarantine: list[Body] = []
    acts: list[Act] = []
    unopened: int = 0
    """Values and bodies that are damaged, or whose root is not in the keyring."""
    cut_off: list[str] = []
    """Of what there may be more than ROWS_MAX: tables, `values`, `quarantine`, `acts`."""

    def __repr__(self) -> str:
        return f"PersonData({self.reference})"

    @property
    def anything(self) -> bool:
        """Whether anything but acts is held."""
        return bool(self.values or self.quarantine or self.unopened or any(self.rows.values()))


async def reveal_person(
    session: Session,
    keyring: Keyring,
    user: str,
    targets: Sequence[PersonColumns],
    *,
    reason: str,
    ticket: str = "",
    named: Converter,
) -> PersonData:
    """Return all that is held on the person whom messages name `user`.

    `named` normalises the id, as `reveal` takes it. Raises SettingsError for a request that cannot
    be recorded, KeyFault where references cannot be made, FatalFault where the role lacks the
    privilege or has asked for as many people within the hour as it may (`rate_limited`).
    """
    reason, ticket = audit.stated_reason(reason, ticket, hint="say why the data are shown")
    reference = await reference_of_user(session, keyring, user, named)
    anchor = await request(
        session, _REQUEST, [reference, ROWS_MAX, reason, ticket], act="reveal_all"
    )
    with explained():
        found = PersonData(reference, anchor.sequence, await erased_at(session, reference))
        await _name(session, found.audit, user, targets)
        for table, row in await session.execute(_ROWS, [found.audit]):
            found.rows.setdefault(table, []).append(msgspec.json.decode(row))
        values = await session.execute(FETCH, [found.audit])
        bodies = await session.execute(_BODIES, [found.audit])
        acts = await session.execute(_ACTS, [found.audit])
    _open_values(found, KeyEncryptionKeys(keyring), values)
    _open_bodies(found, keyring, bodies)
    found.acts = [Act(*act) for act in acts]
    counts = {table: len(rows) for table, rows in found.rows.items()}
    counts |= {"values": len(values), "quarantine": len(bodies), "acts": len(acts)}
    found.cut_off = [what for what, count in counts.items() if count >= ROWS_MAX]
    return found


async def _name(session: Session, number: int, user: str, targets: Sequence[PersonColumns]) -> None:
    """Give the database the texts that stand for the person in the targets."""
    lines = []
    for target in targets:
        table = await resolve_table(session, target.table) or target.table
        typed = await with_column_types(session, target)
        lines += [
            f"{number}\t{escaped(table)}\t{escaped(text)}\n" for _, text in spellings(typed, [user])
        ]
    await session.copy(_NAMES, "".join(lines))


def _open_values(found: PersonData, keks: KeyEncryptionKeys, rows: list[tuple[Any, ...]]) -> None:
    for row in rows:
        try:
            found.values.append(open_revealed(keks, row, found.audit))
        except Sqs2pgError:
            found.unopened += 1


def _open_bodies(found: PersonData, keyring: Keyring, rows: list[tuple[Any, ...]]) -> None:
    for id_, pipeline, key, message_id, reason, received_at, label, body, attributes in rows:
        try:
            text = open_body(keyring, key, message_id, label, body)
            more = open_attributes(keyring, key, message_id, label, attributes)
        except Sqs2pgError:
            found.unopened += 1
            continue
        shown = None if more is None else msgspec.to_builtins(more)
        found.quarantine.append(Body(id_, pipeline, message_id, reason, received_at, text, shown))


def nothing_held(found: PersonData) -> FatalFault:
    """Return the fault of a person on whom nothing is held."""
    if found.erased_at is not None:
        return FatalFault(
            f"this person was erased on {found.erased_at:%Y-%m-%d}: nothing is held on them",
            code="erased",
            hint="the audit's acts about them are shown",
        )
    return FatalFault(
        "nothing is held on that person",
        code="not_held",
        hint="give the id as the messages have it; the request is on record all the same",
    )

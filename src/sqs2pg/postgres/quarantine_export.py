"""Entries of the quarantine with their bodies, for a file: sealed, or unsealed on record.

An unsealed body is given as a reveal is: a request with its reason is committed first, counted
against the values of the hour, and the bodies are fetched for it by the same login within ten
minutes. Opening them takes the keyring, which is not in the database.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres import audit
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.quarantine import (
    COLUMNS,
    Entry,
    Selection,
    open_attributes,
    open_body,
)
from sqs2pg.postgres.sqlstate import explained

FORMAT = "sqs2pg/1/quarantine"
PAGE = 200
"""Entries in memory at once."""

_NEXT = """SELECT {columns} FROM sqs2pg.quarantine q
WHERE q.pipeline = %s AND q.id > %s{which} ORDER BY q.id LIMIT %s"""
_SEALED = f"{COLUMNS}, q.key::text, q.subject::text, q.body, q.attributes"
_REQUEST = "SELECT granted, sequence, hash FROM pii.request_bodies(%s, %s, %s)"
_BODIES = """SELECT id, key::text, message_id, sealed_under, body, attributes
FROM pii.fetch_bodies(%s)"""


class Exported(msgspec.Struct):
    """What an export has written so far."""

    exported: int = 0
    unopened: int = 0
    """Bodies that are damaged, or whose key is not in the keyring. Their entries have none."""


async def sealed_lines(
    session: Session, pipeline: int, selection: Selection, report: Exported
) -> AsyncIterator[str]:
    """Yield the entries of a selection by id, one JSON object per line, as they are sealed.

    Raises FatalFault where the database refuses.
    """
    async for page in _pages(session, pipeline, selection, _SEALED):
        for *columns, key, subject, body, attributes in page:
            entry = Entry(*columns)
            report.exported += 1
            yield _line(
                entry,
                {
                    "sealed": True,
                    "key": key,
                    "sealed_under": entry.sealed_under,
                    "subject": subject,
                    "body": _base64(body),
                    "attributes": _base64(attributes),
                },
            )


async def unsealed_lines(
    session: Session,
    pipeline: int,
    selection: Selection,
    report: Exported,
    keyring: Keyring,
    *,
    reason: str,
    ticket: str,
) -> AsyncIterator[str]:
    """Yield the entries of a selection by id with their bodies in clear, each page on record.

    Raises SettingsError for a reason that cannot be recorded, FatalFault where the role lacks the
    privilege or has used up its values of this hour (`rate_limited`).
    """
    reason, ticket = audit.stated_reason(reason, ticket, hint="say why the bodies are opened")
    async for page in _pages(session, pipeline, selection, COLUMNS):
        entries = {entry.id: entry for entry in (Entry(*row) for row in page)}
        for id_, *sealed in await _fetch(session, [*entries], reason, ticket):
            report.exported += 1
            yield _line(entries[id_], _opened(keyring, sealed, report))


async def _pages(
    session: Session, pipeline: int, selection: Selection, columns: str
) -> AsyncIterator[list[tuple[Any, ...]]]:
    """Yield the entries of a selection by id, in pages that are not empty.

    `columns` begin with the id.
    """
    which, values = selection.where()
    statement = _NEXT.format(columns=columns, which=which)
    after = 0
    while True:
        with explained():
            rows = await session.execute(statement, [pipeline, after, *values, PAGE])
        if rows:
            after = rows[-1][0]
            yield rows
        if len(rows) < PAGE:
            return


async def _fetch(
    session: Session, ids: list[int], reason: str, ticket: str
) -> list[tuple[Any, ...]]:
    """Put a request for bodies on record, and return them, sealed."""
    anchor = await audit.request(
        session,
        _REQUEST,
        [ids, reason, ticket],
        act="unseal",
        refused="unseal_refused",
        spent="opened as many bodies and values",
        setting="reveals_per_hour_max",
    )
    with explained():
        return await session.execute(_BODIES, [anchor.sequence])


def _opened(keyring: Keyring, sealed: list[Any], report: Exported) -> dict[str, object]:
    key, message_id, label, body, attributes = sealed
    try:
        text = open_body(keyring, key, message_id, label, body)
        kept = open_attributes(keyring, key, message_id, label, attributes)
    except Sqs2pgError as error:
        report.unopened += 1
        return {"sealed": False, "body": None, "attributes": None, "unopened": error.code}
    return {"sealed": False, "body": text, "attributes": kept and msgspec.to_builtins(kept)}


def _line(entry: Entry, more: Mapping[str, object]) -> str:
    return json.dumps(
        {
            "format": FORMAT,
            "id": entry.id,
            "message_id": entry.message_id,
            "reason": entry.reason,
            "detail": entry.detail,
            "table": entry.table,
            "attempts": entry.attempts,
            "sent_at": _instant(entry.sent_at),
            "received_at": _instant(entry.received_at),
            "replayed_at": entry.replayed_at and _instant(entry.replayed_at),
            **more,
        },
        separators=(",", ":"),
    )


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")

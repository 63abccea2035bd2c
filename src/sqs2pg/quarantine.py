"""Set a message aside: seal its body, and read the quarantine table back.

Reasons are codes and details are names; the body is sealed under its own derived key before it
comes near SQL, so that neither the table nor the server's log can quote it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import psycopg

from sqs2pg.database import Session
from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.seal import seal
from sqs2pg.message import DeadLetter, Message
from sqs2pg.migrate import explain
from sqs2pg.process import Seal

_LIST = """SELECT id, message_id, reason, detail, attempts, received_at, sent_at, replayed_at,
       octet_length(body), sealed_under
FROM sqs2pg.quarantine WHERE pipeline = %s"""


class Entry(msgspec.Struct, frozen=True):
    """One row of the quarantine, without its body."""

    id: int
    message_id: str
    reason: str
    detail: str
    attempts: int
    received_at: datetime
    sent_at: datetime
    replayed_at: datetime | None
    body_bytes: int
    """Of the sealed body."""
    sealed_under: str


def sealer(keyring: Keyring) -> Seal:
    """Return the function that seals a message's body under the keyring's quarantine key."""
    label, key = keyring.quarantine_key()

    def seal_message(ledger_key: str, message: Message, fault: PermanentFault) -> DeadLetter:
        body = message.body.encode("utf-8", "surrogatepass")
        return DeadLetter(
            key=ledger_key,
            message_id=message.message_id,
            reason=fault.code,
            detail=fault.detail,
            attempts=message.attributes.approximate_receive_count,
            sent_timestamp=message.attributes.sent_timestamp,
            sealed_body=seal(key, body, associated_data(ledger_key, message.message_id)),
            sealed_under=label,
        )

    return seal_message


def associated_data(ledger_key: str, message_id: str) -> tuple[bytes, ...]:
    """Return what a sealed body is bound to: it opens in its own row only."""
    return (b"sqs2pg/1/quarantine", ledger_key.encode(), message_id.encode())


async def entries(
    session: Session,
    pipeline: int,
    *,
    reason: str | None = None,
    include_replayed: bool = False,
    limit: int = 100,
) -> list[Entry]:
    """Return the newest entries first, at most `limit`."""
    query, values = _LIST, [pipeline]
    parameters: list[Any] = list(values)
    if reason:
        query += " AND reason = %s"
        parameters.append(reason)
    if not include_replayed:
        query += " AND replayed_at IS NULL"
    return await _read(session, query + " ORDER BY id DESC LIMIT %s", [*parameters, limit])


async def entry(session: Session, pipeline: int, number: int) -> Entry:
    """Return one entry. Raises SettingsError where there is none of that number."""
    found = await _read(session, _LIST + " AND id = %s", [pipeline, number])
    if not found:
        raise SettingsError(
            f"the quarantine has no entry {number}", hint="`sqs2pg quarantine list` shows them"
        )
    return found[0]


async def counts(session: Session, pipeline: int) -> dict[str, int]:
    """Return how many entries are open, by reason."""
    try:
        rows = await session.execute(
            "SELECT reason, count(*) FROM sqs2pg.quarantine"
            " WHERE pipeline = %s AND replayed_at IS NULL GROUP BY reason ORDER BY 2 DESC, 1",
            [pipeline],
        )
    except psycopg.Error as error:
        raise explain(error) from None
    return {row[0]: row[1] for row in rows}


async def _read(session: Session, query: str, parameters: list[Any]) -> list[Entry]:
    try:
        return [Entry(*row) for row in await session.execute(query, parameters)]
    except psycopg.Error as error:
        raise explain(error) from None

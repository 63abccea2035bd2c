"""The audit: record an act on sealed data, and prove that the record was not rewritten.

Beside the flow of messages: reveals, unseals, erasures, replays, purges and key acts are recorded
here. Each row's hash covers its fields and the hash of the row before it. The chain alone shows a
clumsy change. An *anchor*, which is the sequence and hash of a row, noted outside the database,
also shows a chain that was rewritten. So the anchor of every act goes to the log.

Promises: an act is committed durably before `record` returns. Must never do: put a value of a
message into an act; its subject is ids and counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec
import structlog

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.keys.aead import associated
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained

logger = structlog.get_logger(__name__)

REASON_CHARACTERS_MAX = 500
TICKET_CHARACTERS_MAX = 100
DIFFERENCES_MAX = 20
"""Differences that are reported one by one; a chain broken early would name every row after it."""

_FORMAT = b"sqs2pg/1/audit"
_GENESIS = bytes(32)  # the hash before the first row
_PAGE = 1_000
_ANCHOR = re.compile(r"([0-9]{1,18}):([0-9a-fA-F]{64})\Z")

_RECORD = "SELECT sequence, hash FROM sqs2pg.record_act(%s, %s, %s, %s)"
_HEAD = "SELECT sequence, hash FROM sqs2pg.audit_head"
_HASH = "SELECT hash FROM sqs2pg.audit WHERE sequence = %s"
_ROWS = """SELECT sequence,
       CASE WHEN isfinite(at) THEN (extract(epoch FROM at) * 1000000)::bigint END,
       role, act, subject, reason, ticket, previous_hash, hash
FROM sqs2pg.audit WHERE sequence > %s AND sequence <= %s ORDER BY sequence LIMIT %s"""
# One statement, one snapshot: an act that is recorded meanwhile also moves the head.
_BEYOND = """SELECT count(*) FROM sqs2pg.audit a
WHERE a.sequence > coalesce((SELECT max(h.sequence) FROM sqs2pg.audit_head h), 0)
OR a.sequence < 1"""


class Anchor(msgspec.Struct, frozen=True):
    """The sequence and hash of a row of the audit; as text `SEQUENCE:HASH`."""

    sequence: int
    """From 1; 0 is the anchor of the empty audit."""
    hash: bytes

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the anchor of `SEQUENCE:HASH`. Raises SettingsError for anything else."""
        match = _ANCHOR.match(text.strip())
        if match is None:
            raise SettingsError(
                "the anchor is not of the form SEQUENCE:HASH",
                code="bad_anchor",
                hint="copy it from the log line of an audited act: a number, a colon, and 64 "
                "hexadecimal digits",
            )
        return cls(int(match[1]), bytes.fromhex(match[2]))


async def record(
    session: Session, act: str, *, subject: str, reason: str = "", ticket: str = ""
) -> Anchor:
    """Record an act, committed durably, and log its anchor; return the anchor.

    Call it outside a transaction. `act` is snake_case, at most 32 characters. `subject` is ids and
    counts, at most 500 characters. `reason` and `ticket` are the operator's own words, checked by
    `stated_reason`. Raises FatalFault where the act cannot be recorded: do not go on then.
    """
    with explained():
        anchor = await append(session, act, subject=subject, reason=reason, ticket=ticket)
    announce(act, anchor)
    return anchor


async def append(
    session: Session, act: str, *, subject: str, reason: str = "", ticket: str = ""
) -> Anchor:
    """Record an act in the caller's transaction, which then commits durably.

    Call it last, because other acts wait until COMMIT, and call `announce` after COMMIT. Raises
    psycopg.Error.
    """
    [(sequence, digest)] = await session.execute(_RECORD, [act, subject, reason, ticket])
    return Anchor(sequence, digest)


def announce(act: str, anchor: Anchor) -> None:
    """Log the anchor of a committed act, where the owner of the database cannot change it."""
    logger.info("audited", act=act, anchor=str(anchor))


async def request(
    session: Session,
    statement: str,
    parameters: list[Any],
    *,
    act: str,
    refused: str,
    spent: str,
    setting: str,
) -> Anchor:
    """Commit a request that counts against what a role may ask for within the hour.

    `statement` records it as `act`, or as `refused` where that is spent, and says whether it was
    granted, with the audit's new head. Return that as the request's anchor. Raises FatalFault
    `rate_limited` where it was refused: `spent` is what the role has done, and `setting` is the
    bound in the section `vault`.
    """
    with explained():
        [(granted, sequence, digest)] = await session.execute(statement, parameters)
    anchor = Anchor(sequence, digest)
    announce(act if granted else refused, anchor)
    if not granted:
        raise FatalFault(
            f"this role has {spent} within the hour as it may",
            code="rate_limited",
            hint=f"wait, or have the owner raise vault.{setting} and migrate",
        )
    return anchor


def stated_reason(reason: str, ticket: str, *, hint: str) -> tuple[str, str]:
    """Return the operator's reason and ticket as they are recorded; the reason is required.

    `hint` says what the reason is for. Raises SettingsError.
    """
    reason = operator_text("the reason", reason, REASON_CHARACTERS_MAX)
    ticket = operator_text("the ticket", ticket, TICKET_CHARACTERS_MAX)
    if not reason:
        raise SettingsError("the reason is empty", hint=hint)
    return reason, ticket


def operator_text(name: str, text: str, limit: int) -> str:
    """Return a reason or ticket as it is recorded: one line, trimmed, at most `limit` characters.

    Raises SettingsError, which does not quote it.
    """
    text = text.strip()
    if len(text) > limit:
        raise SettingsError(
            f"{name} has {len(text):,} characters", hint=f"at most {limit} characters are kept"
        )
    if not text.isprintable():
        raise SettingsError(
            f"{name} has control characters", hint="give one line of printable text"
        )
    return text


async def head(session: Session) -> Anchor:
    """Return the anchor of the newest act; sequence 0 where nothing was audited yet.

    Raises FatalFault where the audit cannot be read.
    """
    with explained():
        rows = await session.execute(_HEAD)
    return Anchor(*rows[0]) if rows else Anchor(0, _GENESIS)


async def check_chain(session: Session, anchor: str | None = None) -> list[str]:
    """Recompute the chain from its first row; return what is wrong with it, in words.

    Without an anchor this shows rows that were edited, removed or moved by somebody who did not
    rewrite every row after them. With one (`SEQUENCE:HASH`, as logged) it also shows a chain that
    was rewritten or cut short at or before the anchor. Empty where nothing is wrong. At most
    `DIFFERENCES_MAX` differences are reported one by one. May run inside or outside a transaction.

    Raises SettingsError for an anchor of another form, FatalFault where the audit cannot be read.
    """
    wanted = Anchor.parse(anchor) if anchor else None
    found: list[str] = []
    more = 0
    with explained():
        async for difference in _differences(session, wanted):
            if len(found) < DIFFERENCES_MAX:
                found.append(f"audit: {difference}")
            else:
                more += 1
    return [*found, f"audit: {more:,} more differences"] if more else found


async def _differences(session: Session, wanted: Anchor | None) -> AsyncIterator[str]:
    # The anchor first: the caller asked for it, and the list may be cut short.
    if wanted is not None and wanted.sequence > 0:
        rows = await session.execute(_HASH, [wanted.sequence])
        if not rows:
            yield f"row {wanted.sequence}, which the anchor names, is missing"
        elif rows[0][0] != wanted.hash:
            yield f"row {wanted.sequence} is not the one the anchor names"
    top = await head(session)
    before = Anchor(0, _GENESIS)
    async for row in _rows(session, top.sequence):
        sequence, *_, previous, digest = row
        if sequence != before.sequence + 1:
            yield f"rows {before.sequence + 1} to {sequence - 1} are missing"
        elif previous != before.hash:
            yield f"row {sequence} does not follow the row before it"
        # Computed here, because somebody who edits rows in the database can edit functions too.
        if digest != _hash(row):
            yield f"row {sequence} was changed after it was recorded"
        before = Anchor(sequence, digest)
    if before.sequence != top.sequence:
        yield f"rows {before.sequence + 1} to {top.sequence} are missing"
    elif before.hash != top.hash:
        yield f"row {top.sequence} is not the one that the head names"
    [(beyond,)] = await session.execute(_BEYOND)
    if beyond:
        yield f"{beyond:,} rows are outside the chain"


async def _rows(session: Session, last: int) -> AsyncIterator[tuple[Any, ...]]:
    """Yield the rows up to `last` in order, one page in memory at a time."""
    after = 0
    while page := await session.execute(_ROWS, [after, last, _PAGE]):
        for row in page:
            yield row
        after = page[-1][0]


def _hash(row: tuple[Any, ...]) -> bytes:
    *fields, previous, _ = row
    covered = [_FORMAT, *(str(field).encode() for field in fields), bytes(previous)]
    return hashlib.sha256(associated(covered)).digest()

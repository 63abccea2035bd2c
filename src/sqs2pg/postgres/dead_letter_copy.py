"""Dead letters on their way into the quarantine: sealed, and as the rows of a COPY.

A body is sealed before it comes near SQL, so that neither the table nor the server's log can quote
it. Those of a batch are sealed together, by the native code where it can.

Promises: no two bodies are sealed under one key and nonce; each is bound to its ledger key and
message id. What reads the quarantine is `quarantine.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.keys.aead import SharedKey, associated
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.subject import SubjectReader
from sqs2pg.message import SYSTEM_ATTRIBUTES, DeadLetter, Message, MessageAttribute
from sqs2pg.native import extension
from sqs2pg.postgres.binary_arrays import COPY_END, COPY_HEAD
from sqs2pg.postgres.connection import Session
from sqs2pg.settings import SYSTEM

COPY = (
    "COPY sqs2pg.quarantine (key, message_id, pipeline, reason, detail, target, attempts, sent_at,"
    " body, sealed_under, subject, attributes) FROM STDIN (FORMAT binary)"
)
BODIES = b"sqs2pg/1/quarantine"
ATTRIBUTES = b"sqs2pg/1/quarantine/attributes"

_IN_COLUMNS = ("SentTimestamp", "ApproximateReceiveCount")
"""What an entry has columns for."""
_KEPT = {name: of for name, of in SYSTEM_ATTRIBUTES.items() if name not in _IN_COLUMNS}
_kept_of = attrgetter(*_KEPT.values())
_ALIKE_MAX = 1_000
_LENGTH, _PIPELINE = struct.Struct("!i"), struct.Struct("!ih")
_NUMBERS = struct.Struct("!iiiqi")
"""Deliveries and time, each after its length, and the length of the body."""
_UUID_LENGTH, _NULL = _LENGTH.pack(16), _LENGTH.pack(-1)
_KEY_HEAD = struct.pack("!h", COPY.count(",") + 1) + _UUID_LENGTH
_EPOCH_US = 946_684_800_000_000  # PostgreSQL's, 2000-01-01, since 1970
_NOTHING_KEPT = (None,) * len(_KEPT)


class FaultyMessage(NamedTuple):
    """A message that goes to the quarantine."""

    key: str
    """Its ledger key."""
    message: Message
    fault: PermanentFault


class Seal(Protocol):
    """Seals messages for the quarantine."""

    def __call__(self, faulty: Sequence[FaultyMessage], /) -> list[DeadLetter]:
        """Return the dead letter of each."""


def sealer(keyring: Keyring, subject_of: SubjectReader | None = None, table: str = "") -> Seal:
    """Return the function that seals messages under the keyring's quarantine key.

    `subject_of` finds the reference of the person a body is about, so that an erasure finds the
    body. `table`: the only one that rows can be for.
    """
    label, key = keyring.quarantine_key()
    prepared = SharedKey(key, extension())

    def seal(faulty: Sequence[FaultyMessage]) -> list[DeadLetter]:
        bodies = [one.message.body.encode("utf-8", "surrogatepass") for one in faulty]
        places = [(one.key, one.message.message_id) for one in faulty]
        sealed = prepared.seal_all(associated((BODIES,)), places, bodies)
        return [
            DeadLetter(
                key=key,
                message_id=message.message_id,
                reason=fault.code,
                detail=fault.detail,
                table=fault.table or table,
                attempts=message.attributes.approximate_receive_count,
                sent_timestamp=message.attributes.sent_timestamp,
                sealed_body=body,
                sealed_under=label,
                subject=subject_of(message.body) if subject_of else None,
                sealed_attributes=seal_attributes(key, message),
            )
            for (key, message, fault), body in zip(faulty, sealed, strict=True)
        ]

    def seal_attributes(ledger_key: str, message: Message) -> bytes | None:
        kept = _kept_attributes(message)
        if not kept:
            return None
        place = (ledger_key, message.message_id)
        [sealed] = prepared.seal_all(
            associated((ATTRIBUTES,)), [place], [msgspec.json.encode(kept)]
        )
        return sealed

    return seal


def _kept_attributes(message: Message) -> dict[str, MessageAttribute]:
    """Return a message's attributes, with those of SQS that the entry has no column for.

    A colon stands in no name of a message attribute (SQS developer guide), so none is hidden.
    """
    said = _kept_of(message.attributes)
    if said == _NOTHING_KEPT and not message.message_attributes:
        return {}
    kept = dict(message.message_attributes or {})
    for name, value in zip(_KEPT, said, strict=True):
        if value is not None:
            kept[SYSTEM + name] = MessageAttribute("String", str(value))
    return kept


def associated_data(ledger_key: str, message_id: str, what: bytes = BODIES) -> tuple[bytes, ...]:
    """Return what binds sealed bytes to their row and to `what` they are."""
    return (what, ledger_key.encode(), message_id.encode())


async def copy_dead_letters(session: Session, dead: Iterable[DeadLetter], pipeline: int) -> None:
    """Enter dead letters, in the caller's transaction. Raises psycopg.Error."""
    # Binary: to read a row as text, and its body as digits, costs the server a fifth of the entry.
    if rows := [_row(letter, pipeline) for letter in dead]:
        await session.copy(COPY, b"".join((COPY_HEAD, *rows, COPY_END)))


def _row(letter: DeadLetter, pipeline: int) -> bytes:
    """Return the columns of COPY, each after its length: PostgreSQL's documentation, "COPY"."""
    body, attributes = letter.sealed_body, letter.sealed_attributes
    since_us = letter.sent_timestamp * 1000 - _EPOCH_US
    return b"".join(
        (
            _KEY_HEAD,
            bytes.fromhex(letter.key.replace("-", "")),
            _sized(letter.message_id.encode()),
            _alike(pipeline, letter.reason, letter.detail, letter.table),
            _NUMBERS.pack(4, letter.attempts, 8, since_us, len(body)),
            body,
            _label(letter.sealed_under),
            _UUID_LENGTH + bytes.fromhex(letter.subject) if letter.subject else _NULL,
            _NULL if attributes is None else _sized(attributes),
        )
    )


@lru_cache(_ALIKE_MAX)
def _alike(pipeline: int, reason: str, detail: str, table: str) -> bytes:
    """Return the columns that many dead letters of a batch have alike."""
    texts = [_sized(text.encode()) for text in (reason, detail, table)]
    return b"".join((_PIPELINE.pack(2, pipeline), *texts))


@lru_cache
def _label(text: str) -> bytes:
    return _sized(text.encode())


def _sized(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value

"""The ledger's key: the same for every delivery of an SQS message.

The key has the UUIDv7 layout of RFC 9562, section 5.7: 48 bits of milliseconds, then bits of
the MessageId. It is made here and stored by the sink. The ledger table is range-partitioned on it
at UTC-day bounds, so a day's keys lie together and inserts go to the right edge of the index.

No I/O here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqs2pg.errors import FatalFault

DAY_MS = 86_400_000
AHEAD_S = 7 * 86_400.0
"""How far ahead of the clock the time of a message or a line may be: clocks differ. The ledger has
the days up to eight ahead (`sqs2pg.attach_days`), so a later one has no key that could be written.
"""

# RFC 9562, section 5.4, in its text form and in lower case. The last 74 bits of version 4 are
# random, so they are kept as they are; SQS gives such MessageIds. Emulators may give UUIDs of other
# versions, whose last bits can be the same in every id: those are hashed, as any other text is.
_UUID_4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_LINE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}\Z")
_UUID_CHARACTERS = b"0123456789abcdef-"

LINES_MAX = 2**32
"""Lines of one archive: their number has 32 bits in the ledger's key."""
_NUMBER_DIGITS = 8

UNDATED_MS = 0
"""The timestamp of a key without one, because the real one does not stay the same."""


def delivery_key(message_id: str, sent_ms: int) -> str:
    """Return the ledger key of a message: UUIDv7 text of SentTimestamp and MessageId.

    `sent_ms` is SentTimestamp, milliseconds since the epoch, 0 to 2**48 - 1; `UNDATED_MS` for
    FIFO queues, where a move to the dead-letter queue resets the timestamp. The 12 + 62 bits
    after it are the MessageId's own where it is a UUID of version 4, else those of its SHA-256.
    Equal arguments give equal keys; two messages of one millisecond collide with probability
    2**-74.
    """
    tail = message_id[15:] if _UUID_4.match(message_id) else _hashed_tail(message_id)
    return _stamp(sent_ms) + tail


def delivery_keys(message_ids: Sequence[str], sent_ms: Sequence[int]) -> list[str]:
    """Return `delivery_key` of each pair, in order, for a whole batch.

    The form of all ids is checked in a few passes, and messages of one millisecond share the text
    of their stamp: a quarter of the cost of making one key at a time.
    """
    if not _are_uuids_4(message_ids):
        return list(map(delivery_key, message_ids, sent_ms))
    return _keep_tails(message_ids, sent_ms)


def line_keys(line_ids: Sequence[str], sent_ms: Sequence[int]) -> list[str]:
    """Return the ledger keys of archived lines, in order. `line_ids` are names of `line_id`.

    A key keeps 40 bits of the archive's mark and the number of the line. So the keys of one
    archive rise with its lines, where the times do, and go to the edge of the ledger's index.
    """
    return _keep_tails(line_ids, sent_ms)


def line_mark(pipeline: int, digest: str) -> str:
    """Return what the names of an archive's lines begin with, under one pipeline: 64 hexadecimal
    digits.

    Ledger keys are one space for all pipelines, and each may write the archive to its own table.
    """
    return hashlib.sha256(f"{pipeline}\0{digest}".encode()).hexdigest()


def line_id(mark: str, number: int) -> str:
    """Return the name of an archived line: a UUID (version 8) of its archive's mark and its number,
    0 to 2**32 - 1, rising within one archive.

    Raises FatalFault for a higher number.
    """
    if number >= LINES_MAX:
        raise FatalFault(
            f"an archive has more than {LINES_MAX:,} lines",
            code="too_many_lines",
            hint="split it: each part is an archive of its own",
        )
    return f"{line_prefix(mark)}{number:0{_NUMBER_DIGITS}x}"


def line_prefix(mark: str) -> str:
    """Return the part of `line_id` before the number: 28 characters. The number has 8 digits."""
    return f"{mark[:8]}-{mark[8:12]}-8{mark[12:15]}-8{mark[15:18]}-{mark[18:22]}"


def is_line_id(name: str) -> bool:
    """Whether a MessageId is the name of an archived line, and not one that SQS gave."""
    return _LINE_ID.match(name) is not None


def collision(message_id: str, other_id: str) -> FatalFault:
    """Return the fault of two messages that have one ledger key: only one could be written."""
    return FatalFault(
        f"messages {message_id} and {other_id} have one ledger key",
        code="key_collision",
        hint="the queue server gives MessageIds that are not unique; report it",
    )


def _keep_tails(ids: Sequence[str], sent_ms: Sequence[int]) -> list[str]:
    stamps = {ms: _stamp(ms) for ms in set(sent_ms)}
    return [stamps[ms] + name[15:] for name, ms in zip(ids, sent_ms, strict=True)]


def _are_uuids_4(message_ids: Sequence[str]) -> bool:
    """Whether every id matches _UUID_4. In the joined text, one position is every 36th
    character.
    """
    joined = "".join(message_ids)
    count = len(message_ids)
    return (
        joined.isascii()
        and set(map(len, message_ids)) <= {36}
        and not joined.encode().translate(None, _UUID_CHARACTERS)
        and joined.count("-") == 4 * count
        and all(joined[place::36] == "-" * count for place in (8, 13, 18, 23))
        and joined[14::36] == "4" * count
        and set(joined[19::36]) <= set("89ab")
    )


def _stamp(sent_ms: int) -> str:
    text = f"{sent_ms:012x}"
    return f"{text[:8]}-{text[8:]}-7"


class EventKeys:
    """Makes the ledger key of an event by the id that its producer gave it.

    It is the same however often the event is sent. An HMAC-SHA256, not a plain hash: the id may be
    personal data, and people who read the ledger may not be allowed to know it. The pipeline's
    number keeps the ids of two pipelines apart. There is no timestamp, since a producer's retry has
    another.
    """

    def __init__(self, secret: bytes, pipeline: int) -> None:
        """`secret`: at most 64 bytes."""
        self.secret = secret
        self.prefix = f"{pipeline}\0".encode()
        """Stands before the id in what is authenticated."""

    def __call__(self, name: str) -> str:
        """Return the key of the event of this name."""
        mark = hmac.digest(
            self.secret, self.prefix + name.encode("utf-8", "surrogatepass"), "sha256"
        )
        return f"00000000-0000-7{_tail(mark)}"

    def __repr__(self) -> str:
        return "EventKeys(…)"


def _hashed_tail(message_id: str) -> str:
    return _tail(hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).digest())


def _tail(digest: bytes) -> str:
    low = int.from_bytes(digest[:10], "big")
    rand_a, rand_b = low >> 68, (low & (2**62 - 1)) | 2**63
    return f"{rand_a:03x}-{rand_b >> 48:04x}-{rand_b & (2**48 - 1):012x}"


def day_of(sent_ms: int) -> date:
    """Return the UTC day of a timestamp in milliseconds since the epoch."""
    return date(1970, 1, 1) + timedelta(days=sent_ms // DAY_MS)


def today() -> date:
    """Return the current UTC day."""
    return datetime.now(UTC).date()


def sent_ms_of(key: str) -> int:
    """Return the milliseconds since the epoch in a ledger key's leading 48 bits."""
    return int(key[:8] + key[9:13], 16)

"""The ledger as a batch of the sink sees it: its keys go in once, and only once.

The sink's COPY path copies the keys in: a key that is there already fails the whole COPY. Its slow
path claims them one by one: what another batch has claimed before is a duplicate.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter

from sqs2pg.mapping import ledger_key
from sqs2pg.mapping.copy_text import NULL
from sqs2pg.message import DeadLetter, Row
from sqs2pg.native import extension
from sqs2pg.postgres.connection import Session

_COPY = "COPY sqs2pg.delivery (key, message_id, pipeline, outcome, seen_at) FROM STDIN"
_COPY_BINARY = f"{_COPY} (FORMAT binary)"
_COLUMNS = 5
# The outcome is the column's default. To look up an enum's label costs a tenth of the whole entry.
_COPY_WRITTEN = (
    "COPY sqs2pg.delivery (key, message_id, pipeline, seen_at) FROM STDIN (FORMAT binary)"
)
_WRITTEN = b"written"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's, for timestamptz
_CLAIM = """INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome, seen_at)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::smallint[],
                     %s::sqs2pg.delivery_outcome[], %s::timestamptz[])
ON CONFLICT (key) DO NOTHING RETURNING key::text"""
MESSAGE_OF_KEY = "SELECT key::text, message_id FROM sqs2pg.delivery WHERE key = ANY(%s::uuid[])"
MARK_QUARANTINED = "SELECT sqs2pg.mark_quarantined(%s::uuid[])"
"""Entries that this transaction has entered or changed turn from written to quarantined."""
_ATTACH_DAYS = "SELECT sqs2pg.attach_days(%s, %s)"

DAYS_AHEAD = 7
"""Day partitions attached ahead of today, so that a day's first message never waits for one."""

# Made once and run by map: a generator costs one Python call per row.
_by_key = attrgetter("key")

MERGED_MAX = 100
"""Of more lines than these it is cheaper to sort all."""


class Ledger:
    """The entries of one pipeline. Part of the caller's transactions; raises psycopg.Error."""

    def __init__(
        self, pipeline: int, *, undated: bool, dedupe: bool, of_lines: bool = False
    ) -> None:
        """`undated`: keys may lack a timestamp, so an entry notes when its message was seen.
        `dedupe`: keys may name events, so several messages may have one key. `of_lines`: the keys
        are those of archived lines, which one process at a time has.
        """
        self._pipeline = pipeline
        self._undated = undated
        self._dedupe = dedupe
        self._apart = of_lines and not dedupe

    def line_end(self, outcome: str) -> str:
        """Return what ends a line of the ledger's COPY, after key and MessageId."""
        seen_at = datetime.now(UTC).isoformat() if self._undated else NULL
        return f"{self._pipeline}\t{outcome}\t{seen_at}\n"

    async def copy(self, session: Session, text: bytes, dead: Sequence[DeadLetter]) -> None:
        """Enter all keys at once: those of `text`, which is sorted, and of dead letters."""
        # Dead letters apart from the others only where no other batch has the same keys.
        if text and (not dead or self._apart) and (binary := _binary_written(text)) is not None:
            await session.copy(_COPY_WRITTEN, binary)
            if not dead:
                return
            text = b""
        ends = [_end_of(text)] if text else []
        if dead:
            end = self.line_end("quarantined")
            ends.append(end.encode())
            lines = [f"{letter.key}\t{letter.message_id}\t{end}".encode() for letter in dead]
            # Sorted by key: two COPYs that meet then wait, and never deadlock.
            text = merged(text, sorted(lines))
        binary = _binary(text, ends) if text else None
        if binary is None:
            await session.copy(_COPY, text)
        else:
            await session.copy(_COPY_BINARY, binary)

    async def claim(
        self, session: Session, rows: Sequence[Row], dead: Sequence[DeadLetter]
    ) -> set[str]:
        """Enter the keys that the ledger does not have; return them.

        Raises FatalFault where one key belongs to two messages.
        """
        entries: list[Row | DeadLetter] = [*rows, *dead]
        entries.sort(key=_by_key)
        outcomes = {letter.key: "quarantined" for letter in dead}
        seen_at = datetime.now(UTC) if self._undated else None
        claimed = await session.execute(
            _CLAIM,
            [
                [entry.key for entry in entries],
                [entry.message_id for entry in entries],
                [self._pipeline] * len(entries),
                [outcomes.get(entry.key, "written") for entry in entries],
                [seen_at] * len(entries),
            ],
        )
        fresh = {key for (key,) in claimed}
        held = {entry.key: entry.message_id for entry in entries if entry.key not in fresh}
        if held and not self._dedupe:
            for key, message_id in await session.execute(MESSAGE_OF_KEY, [list(held)]):
                if held[key] != message_id:
                    raise ledger_key.collision(message_id, held[key])
        return fresh

    async def mark_quarantined(self, session: Session, keys: Iterable[str]) -> None:
        """Turn entries of this transaction from written to quarantined."""
        await session.execute(MARK_QUARANTINED, [list(keys)])


def merged(text: bytes, lines: Sequence[bytes]) -> bytes:
    """Return the sorted lines of a text, with further lines, sorted too, at their places."""
    native = extension()
    if native is not None:
        made: bytes = native.merged_lines(text, b"".join(lines))
        return made
    return merged_in_python(text, lines)


def merged_in_python(text: bytes, lines: Sequence[bytes]) -> bytes:
    """Do the same without the native code."""
    if len(lines) > MERGED_MAX:
        return b"".join(sorted([*text.splitlines(keepends=True), *lines]))
    parts: list[bytes] = []
    begin = 0
    for line in lines:
        at = _place(text, line, begin)
        parts += [text[begin:at], line]
        begin = at
    return b"".join([*parts, text[begin:]])


def _place(text: bytes, line: bytes, low: int) -> int:
    """Return where the first line from `low` on that is not less than `line` begins."""
    high = len(text)
    while low < high:
        middle = text.rfind(b"\n", low, (low + high) // 2) + 1 or low
        after = text.index(b"\n", middle) + 1
        if text[middle:after] < line:
            low = after
        else:
            high = middle
    return low


def _end_of(text: bytes) -> bytes:
    """Return what ends the first line, after key and id."""
    return text[: text.index(b"\n") + 1].split(b"\t", 2)[2]


def _binary(text: bytes, ends: Sequence[bytes], *, outcome: bool = True) -> bytes | None:
    """Return the text of a COPY in the binary format, which costs the server half as much.

    `outcome`: with that column. None where there is no native code, and for lines that it leaves.
    """
    native = extension()
    if native is None:
        return None
    fields = tuple((end, binary_fields(end, outcome=outcome)) for end in ends)
    columns = _COLUMNS if outcome else _COLUMNS - 1
    made: bytes | None = native.binary_ledger(text, columns, fields)
    return made


def _binary_written(text: bytes) -> bytes | None:
    """As `_binary`, of lines that are all written: without the outcome."""
    end = _end_of(text)
    return _binary(text, [end], outcome=False) if end.split(b"\t")[1] == _WRITTEN else None


def binary_fields(end: bytes, *, outcome: bool = True) -> bytes:
    """Return the last columns of a line as the binary format has them; `outcome`: that one too."""
    pipeline, label, seen_at = end[:-1].split(b"\t")
    fields = struct.pack("!ih", 2, int(pipeline))
    if outcome:
        fields += struct.pack(f"!i{len(label)}s", len(label), label)
    if seen_at == NULL.encode():
        return fields + struct.pack("!i", -1)
    since = datetime.fromisoformat(seen_at.decode()) - _EPOCH
    return fields + struct.pack("!iq", 8, since // timedelta(microseconds=1))


class Claim:
    """Takes a batch of the queue: its keys are claimed, its dead letters' keys with them."""

    def __init__(self, ledger: Ledger, dead: Sequence[DeadLetter]) -> None:
        self._ledger = ledger
        self._dead = dead
        self.dead: list[DeadLetter] = []
        """The dead letters that were taken."""

    async def take(self, session: Session, rows: Sequence[Row]) -> list[Row]:
        """Claim every key; return the rows whose keys are new to the ledger."""
        fresh = await self._ledger.claim(session, rows, self._dead)
        self.dead = [letter for letter in self._dead if letter.key in fresh]
        return [row for row in rows if row.key in fresh]

    async def put_back(self, session: Session, keys: Collection[str]) -> None:
        """Enter messages that were taken, but whose rows are rejected, as quarantined."""
        await self._ledger.mark_quarantined(session, keys)


async def attach_days(session: Session, keys: Iterable[str]) -> None:
    """Attach the days of the ledger that these keys belong to. Raises psycopg.Error."""
    # Day by day: a batch may hold messages years apart, and few days of them can be missing.
    for day in sorted({ledger_key.day_of(ledger_key.sent_ms_of(key)) for key in keys}):
        await session.execute(_ATTACH_DAYS, [day, day])


async def attach_coming_days(session: Session) -> tuple[int, date]:
    """Attach the days from yesterday to DAYS_AHEAD. Raises psycopg.Error.

    Returns how many were not attached before, and the last day.
    """
    today = ledger_key.today()
    last = today + timedelta(days=DAYS_AHEAD)
    [(attached,)] = await session.execute(_ATTACH_DAYS, [today - timedelta(days=1), last])
    return attached, last

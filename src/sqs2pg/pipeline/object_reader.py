"""Read S3 objects one after the other, in chunks of lines: a large object gives many chunks, one
chunk takes many small objects.

Place in the flow: beside `s3_objects.py`, which writes the chunks. The next objects are asked for
while one is read, since each costs a round trip. Bounded: one chunk of lines, and the first piece
of each object that was asked for.

Blocking: runs in threads. Must never do: take an object that S3 does not give for one without
lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

import msgspec

from sqs2pg.errors import PermanentFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.mapping.envelope.s3_event import NamedObject
from sqs2pg.mapping.ledger_key import line_id, line_mark, line_prefix
from sqs2pg.mapping.object_batch import ObjectLines
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.pipeline.archive_check import check_lines
from sqs2pg.pipeline.archive_identity import EPOCH, object_sent_ms
from sqs2pg.pipeline.archive_lines import Line
from sqs2pg.pipeline.archive_objects import Objects, OpenedObject
from sqs2pg.pipeline.archive_reader import Archive, Reader
from sqs2pg.postgres.object_claims import Move

AHEAD_MAX = 16
"""Objects that are asked for before their turn."""
CHUNK_BYTES_MAX = 32 * 2**20
"""Lines of a chunk together; the line that reaches it is its last. As in a backfill."""
_REASONS = (
    ("object_changed", "object_replaced"),
    ("payload_missing", "payload_missing"),
    ("payload_too_large", "payload_too_large"),
    ("archive_damaged", "archive_damaged"),
    ("archive_format", "archive_format"),
    ("archive_line", "archive_line"),
)
"""What makes an object unreadable, and the reason that its notification is quarantined with."""


class ObjectInHand(msgspec.Struct):
    """An object that is ours to read."""

    named: NamedObject
    digest: str
    line: int
    """Lines that are committed, or in a chunk that was read."""
    attributes: dict[str, MessageAttribute]
    """Of its notification, and what names the object."""


class Chunk(msgspec.Struct):
    """Lines that go into one transaction."""

    lines: list[ObjectLines] = []
    moves: list[Move] = []
    ended: list[str] = []
    """Digests of objects of which no more lines come: read to the end, or failed."""
    faults: dict[str, PermanentFault] = {}
    """Why objects failed, by digest."""
    transient: TransientFault | None = None
    """Why reading ends here, although objects are left."""
    last: bool = False
    """Whether no object is left."""


def interrupted() -> TransientFault:
    """Return the fault of an object that is read on at its next delivery."""
    return TransientFault(
        "the worker stops before the end of an object",
        code="object_interrupted",
        stage=Stage.DECODE,
    )


class ObjectReader:
    """Reads objects in order. Used by one thread at a time."""

    def __init__(
        self,
        store: Objects,
        pool: ThreadPoolExecutor,
        objects: Sequence[ObjectInHand],
        pipeline: int,
        *,
        chunk_lines: int,
        is_readable: Callable[[bytes], bool],
    ) -> None:
        """`chunk_lines`: lines of a chunk at most. `is_readable`: of a line's form."""
        self._store = store
        self._pool = pool
        self._waiting = deque(objects)
        self._asked: deque[Future[tuple[OpenedObject, Iterator[bytes]]]] = deque()
        self._pipeline = pipeline
        self._chunk_lines = chunk_lines
        self._is_readable = is_readable
        self._lines: Iterator[Line] | None = None
        self._day = SystemAttributes(0)
        self._abandoned = False

    def abandon(self) -> None:
        """Ask for no more objects. What a thread is reading is read to the end of the chunk."""
        self._abandoned = True
        for one in list(self._asked):
            one.cancel()

    def read(self) -> Chunk:
        """Return the next lines. Blocking."""
        chunk = Chunk()
        lines_left, bytes_left = self._chunk_lines, CHUNK_BYTES_MAX
        while self._waiting and lines_left > 0 and bytes_left > 0:
            self._ask_ahead()
            one = self._waiting[0]
            units: list[Message] = []
            before, ended = one.line, False
            mark = line_mark(self._pipeline, one.digest)
            prefix = line_prefix(mark)
            fault: PermanentFault | None = None
            try:
                if self._lines is None:
                    self._begin(one)
                assert self._lines is not None
                for number, (body, sent_ms) in enumerate(islice(self._lines, lines_left), before):
                    units.append(self._unit(one, f"{prefix}{number:08x}", body, sent_ms))
                    bytes_left -= len(body)
                    if bytes_left <= 0:
                        break
                else:
                    ended = len(units) < lines_left
            except TransientFault as away:
                chunk.transient = away
            except Sqs2pgError as error:
                fault, ended = _fault_of(error, one, before + len(units)), True
            one.line = before + len(units)
            lines_left -= len(units)
            if units:
                line_id(mark, one.line - 1)  # raises where the numbers end
                chunk.lines.append(ObjectLines(one.named.place, before, units))
            if units or (ended and fault is None):
                chunk.moves.append(Move(one.digest, before, one.line, ended and fault is None))
            if fault is not None:
                chunk.faults[one.digest] = fault
            if chunk.transient is not None:
                return chunk
            if ended:
                chunk.ended.append(one.digest)
                self._waiting.popleft()
                self._lines = None
        chunk.last = not self._waiting
        return chunk

    def _ask_ahead(self) -> None:
        """Ask for the objects that come next; the first of them may be in hand already."""
        in_hand = self._lines is not None
        wanted = min(AHEAD_MAX, len(self._waiting) - in_hand)
        while len(self._asked) < wanted and not self._abandoned:
            one = self._waiting[in_hand + len(self._asked)].named
            self._asked.append(self._pool.submit(self._open, one))

    def _open(self, one: NamedObject) -> tuple[OpenedObject, Iterator[bytes]]:
        opened = self._store.open(one.bucket, one.key, version=one.version, etag=one.etag)
        first = next(opened.pieces, b"")
        return opened, chain([first], opened.pieces)

    def _begin(self, one: ObjectInHand) -> None:
        if self._abandoned:
            raise interrupted()
        opened, pieces = self._asked.popleft().result()
        self._day = SystemAttributes(object_sent_ms(one.named.key, opened.modified))
        archive = Archive(one.named.place, one.digest, opened.size, EPOCH)
        lines = Reader(archive, pieces).lines()
        if one.line:
            self._lines = islice(lines, one.line, None)
        else:
            self._lines = check_lines(archive.name, lines, self._is_readable)

    def _unit(self, one: ObjectInHand, name: str, body: bytes, sent_ms: int | None) -> Message:
        attributes = self._day if sent_ms is None else SystemAttributes(sent_ms)
        text = body.decode("utf-8", "surrogateescape")
        return Message(name, "", text, attributes, one.attributes)


def _fault_of(error: Sqs2pgError, one: ObjectInHand, line: int) -> PermanentFault:
    """Return the fault of a notification whose object cannot be read on after `line` lines.

    Raises the error where it is of another kind.
    """
    for code, reason in _REASONS:
        if error.code == code:
            return PermanentFault(reason, f"{one.named.place} line {line}")
    raise error

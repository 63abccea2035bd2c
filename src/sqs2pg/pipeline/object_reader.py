"""Read S3 objects one after the other, in chunks of lines: a large object gives many chunks, one
chunk takes many small objects.

Place in the flow: beside `s3_objects.py`, which writes the chunks. Objects are read as a backfill
reads archives, by the same functions. The next objects are asked for while one is read, since each
costs a round trip. Bounded: one chunk of lines, and the first pieces of the objects that were asked
for, which are within the same bound.

Blocking: runs in threads. Must never do: take an object that S3 does not give for one without
lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

import msgspec

from sqs2pg.errors import PermanentFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.mapping.envelope.s3_event import NamedObject
from sqs2pg.mapping.ledger_key import line_mark
from sqs2pg.mapping.object_batch import ObjectLines
from sqs2pg.message import MessageAttribute
from sqs2pg.pipeline.archive_batches import LineBatch, batches
from sqs2pg.pipeline.archive_check import check_chunks
from sqs2pg.pipeline.archive_identity import EPOCH, object_sent_ms
from sqs2pg.pipeline.archive_objects import Objects, OpenedObject
from sqs2pg.pipeline.archive_reader import Archive, ArchiveForm, Reader
from sqs2pg.postgres.object_claims import Move

AHEAD_MAX = 16
"""Objects that are asked for before their turn."""
_PIECE_MAX = 2**20
"""Bytes of an object that are read before its turn: one piece."""
_REASONS = (
    ("object_changed", "object_replaced"),
    ("payload_missing", "payload_missing"),
    ("payload_too_large", "payload_too_large"),
    ("archive_damaged", "archive_damaged"),
    ("archive_format", "archive_format"),
    ("archive_line", "archive_line"),
    ("too_many_lines", "archive_line"),
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
    unread: dict[str, PermanentFault] = {}
    """Why lines go to the quarantine unread, by their ids."""
    moves: list[Move] = []
    ended: list[str] = []
    """Digests of objects that have no more lines: read to the end, or failed."""
    faults: dict[str, PermanentFault] = {}
    """Why objects failed, by digest."""
    transient: TransientFault | None = None
    """Why reading ends here, although objects are left."""
    last: bool = False
    """Whether no object is left."""


class ChunkSize(msgspec.Struct, frozen=True):
    """Bounds of a chunk."""

    lines: int
    bytes: int
    """Of its lines together; the line that reaches it is the last one."""


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
        size: ChunkSize,
        form: ArchiveForm,
        is_readable: Callable[[bytes], bool],
    ) -> None:
        """`size`: of a chunk at most. `form`: that of a backfill of the objects. `is_readable`: of
        a line's form.
        """
        self._store = store
        self._pool = pool
        self._waiting = deque(objects)
        self._asked: deque[Future[tuple[OpenedObject, Iterator[bytes]]]] = deque()
        self._pipeline = pipeline
        self._size = size
        self._form = form
        self._is_readable = is_readable
        self._reader: Reader | None = None
        """Of the first object that waits, once it is being read."""
        self._batches: Iterator[LineBatch] = iter(())
        self._held: LineBatch | None = None
        """Lines of that object for which the last chunk had no room."""
        self._abandoned = False

    def abandon(self) -> None:
        """Ask for no more objects. What a thread is reading is read to the end of the chunk."""
        self._abandoned = True
        for one in list(self._asked):
            one.cancel()

    def read(self) -> Chunk:
        """Return the next lines. Blocking."""
        chunk = Chunk()
        room = _Room(self._size)
        while self._waiting and room.is_left:
            one = self._waiting[0]
            before, ended = one.line, False
            fault: PermanentFault | None = None
            try:
                ended = self._read_into(chunk, one, room)
            except TransientFault as away:
                chunk.transient = away.with_traceback(None)
            except Sqs2pgError as error:
                fault, ended = self._fault_of(error, one), True
            if one.line > before or (ended and fault is None):
                chunk.moves.append(Move(one.digest, before, one.line, ended and fault is None))
            if fault is not None:
                chunk.faults[one.digest] = fault
            if chunk.transient is not None:
                return chunk
            if ended:
                chunk.ended.append(one.digest)
                self._waiting.popleft()
                self._reader = None
        chunk.last = not self._waiting
        return chunk

    def _read_into(self, chunk: Chunk, one: ObjectInHand, room: _Room) -> bool:
        """Add lines of an object while there is room; return whether it ends with them."""
        if self._reader is None:
            self._begin(one)
        assert self._reader is not None
        while room.is_left:
            batch, self._held = self._held or next(self._batches, None), None
            if batch is None:
                return True
            if not room.takes(batch):
                self._held = batch
                return False
            unit = "line" if self._reader.is_lines else "record"
            chunk.lines.append(ObjectLines(one.named.place, one.line, batch.units, unit))
            chunk.unread.update(batch.faults)
            one.line += len(batch.units)
        return False

    def _ask_ahead(self) -> None:
        """Ask for the first object that waits, and for those after it that fit in memory."""
        left = self._size.bytes - sum(
            min(one.named.size, _PIECE_MAX) for one in list(self._waiting)[: len(self._asked)]
        )
        while len(self._asked) < min(AHEAD_MAX, len(self._waiting)) and not self._abandoned:
            one = self._waiting[len(self._asked)].named
            left -= min(one.size, _PIECE_MAX)
            if left < 0 and self._asked:
                return
            self._asked.append(self._pool.submit(self._open, one))

    def _open(self, one: NamedObject) -> tuple[OpenedObject, Iterator[bytes]]:
        opened = self._store.open(one.bucket, one.key, version=one.version, etag=one.etag)
        first = next(opened.pieces, b"")
        return opened, chain([first], opened.pieces)

    def _begin(self, one: ObjectInHand) -> None:
        self._ask_ahead()
        if self._abandoned:
            raise interrupted()
        opened, pieces = self._asked.popleft().result()
        archive = Archive(one.named.place, one.digest, opened.size, EPOCH)
        self._reader = Reader(archive, pieces, self._form)
        chunks = self._reader.chunks(one.line)
        if not one.line:
            chunks = check_chunks(archive.name, chunks, self._is_readable)
        self._batches = batches(
            chunks,
            mark=line_mark(self._pipeline, one.digest),
            day_ms=object_sent_ms(one.named.key, opened.modified),
            first=one.line,
            lines_max=self._size.lines,
            bytes_max=self._size.bytes,
            attributes=one.attributes,
        )

    def _fault_of(self, error: Sqs2pgError, one: ObjectInHand) -> PermanentFault:
        """Return the fault of a notification whose object cannot be read on.

        Raises the error where it is of another kind.
        """
        unit = "record" if self._reader is not None and not self._reader.is_lines else "line"
        for code, reason in _REASONS:
            if error.code == code:
                return PermanentFault(reason, f"{one.named.place} {unit} {one.line}")
        raise error


class _Room:
    """What is left of a chunk."""

    def __init__(self, size: ChunkSize) -> None:
        self._lines, self._bytes = size.lines, size.bytes
        self._empty = True

    @property
    def is_left(self) -> bool:
        return self._lines > 0 and self._bytes > 0

    def takes(self, batch: LineBatch) -> bool:
        """Take a batch if there is room; there is for the first one. Else nothing more fits."""
        lines, size = len(batch.units), batch.units.size
        if not self._empty and (lines > self._lines or size > self._bytes):
            self._lines = 0
            return False
        self._empty = False
        self._lines -= lines
        self._bytes -= size
        return True

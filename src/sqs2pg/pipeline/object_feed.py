"""Feed: chunks of lines, encoded, each with the notifications that end with it.

Place in the flow: between `object_reader.py` and the writer, `s3_objects.py`. It runs in a thread,
ahead of the writer, and shares nothing with it but the pieces that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from sqs2pg.errors import PermanentFault, TransientFault
from sqs2pg.mapping.encoder import EncodedAhead
from sqs2pg.mapping.envelope.s3_event import NamedObject
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import Message
from sqs2pg.pipeline.object_reader import ObjectReader
from sqs2pg.postgres.object_claims import Move

EncodeAhead = Callable[[ObjectBatch, Mapping[str, PermanentFault]], EncodedAhead | None]
"""`Processor.encode_ahead`."""


class Notified(msgspec.Struct, eq=False):
    """A notification that is being processed."""

    message: Message
    index: int
    """Its place among the messages given."""
    objects: dict[str, NamedObject] = {}
    """By digest."""
    attributes: dict[str, str] = {}
    """What its layers add."""
    fault: PermanentFault | None = None
    said: str = "read"
    """For the metrics: read, known, ignored, test, failed."""


class Piece(msgspec.Struct):
    """What is committed together."""

    batch: ObjectBatch
    unread: Mapping[str, PermanentFault]
    """Why units go to the quarantine unread, by id."""
    done: Sequence[Notified]
    """Notifications that end with it."""
    tried: Sequence[Notified]
    """Notifications that were delivered before, and whose lines it has."""
    moves: Sequence[Move]
    ended: Sequence[str]
    """Digests of objects that have no more lines."""
    ahead: EncodedAhead | None
    transient: TransientFault | None
    """Why reading ends after it."""
    rest: bool
    """Whether notifications are left after it."""


class Feed:
    """Makes the pieces of some notifications, in order."""

    def __init__(
        self,
        reader: ObjectReader,
        notified: Sequence[Notified],
        finished: frozenset[str],
        encode_ahead: EncodeAhead,
        *,
        lines_only: bool = False,
    ) -> None:
        """`reader`: of their objects that are ours. `finished`: digests of objects whose lines are
        all committed. `lines_only`: the notifications themselves are not entered.
        """
        self._reader = reader
        self._pending = list(notified)
        self._ended = set(finished)
        self._faults: dict[str, PermanentFault] = {}
        self._encode_ahead = encode_ahead
        self._lines_only = lines_only
        self._over = False

    def abandon(self) -> None:
        """Begin no more objects."""
        self._reader.abandon()

    def make(self) -> Piece | None:
        """Return the next piece; None after the last one. Blocking."""
        if self._over:
            return None
        chunk = self._reader.read()
        self._over = chunk.last or chunk.transient is not None
        self._ended.update(chunk.ended)
        self._faults.update(chunk.faults)
        before, done = self._pending, self._take_done()
        entered = [] if self._lines_only else [one.message for one in done]
        oldest_ms = min((one.message.attributes.sent_timestamp for one in before), default=None)
        batch = ObjectBatch(chunk.lines, entered, oldest_ms)
        faults = {one.message.message_id: one.fault for one in done if one.fault is not None}
        unread = faults | chunk.unread
        moved = {move.digest for move in chunk.moves if move.after > move.before}
        return Piece(
            batch=batch,
            unread=unread,
            done=done,
            tried=[
                one
                for one in before
                if one.message.attributes.approximate_receive_count > 1
                and not moved.isdisjoint(one.objects)
            ],
            moves=chunk.moves,
            ended=chunk.ended,
            ahead=self._encode_ahead(batch, unread) if batch else None,
            transient=chunk.transient,
            rest=bool(self._pending),
        )

    def _take_done(self) -> list[Notified]:
        """Return the notifications that end now; those that do not stay pending."""
        done = [one for one in self._pending if self._ended >= one.objects.keys()]
        self._pending = [one for one in self._pending if not self._ended >= one.objects.keys()]
        for one in done:
            found = [self._faults[digest] for digest in one.objects if digest in self._faults]
            if found and one.fault is None:
                one.fault, one.said = found[0], "failed"
        return done

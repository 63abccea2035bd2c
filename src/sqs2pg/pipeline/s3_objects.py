"""S3 objects: read those that notifications name, line by line, and write their lines.

    notifications ─▶ claims ─▶ chunks of lines ─process─▶ rows     ┐
                                                          progress ├ one transaction
                               notifications that end with them    ┘

Place in the flow: between receive and decode, where the envelope ends in `s3_event`. The units are
the lines. A notification ends with the transaction of its last line, with an entry of its own in
the ledger and no row. Large objects take many chunks, and one chunk takes many small objects.

Promises: a line is written once, however often and in whatever order its notifications come, and
wherever a worker is killed: progress is committed with the rows, and a backfill of the object
shares it. Reading goes on at the line after the last one committed.

Must never do: end a notification whose lines are not all committed or set aside, or read from a
bucket that the settings do not name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec

from sqs2pg.errors import PermanentFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.envelope.s3_event import NamedObject, Notification, read_notification
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import Message, MessageAttribute, Outcome
from sqs2pg.pipeline.archive_identity import object_digest
from sqs2pg.pipeline.archive_objects import Objects
from sqs2pg.pipeline.object_reader import Chunk, ObjectInHand, ObjectReader, interrupted
from sqs2pg.postgres.object_claims import CLAIM_S, ObjectClaims, Wanted
from sqs2pg.settings import EnvelopeSettings
from sqs2pg.telemetry.metrics import Metrics

CLAIMED = "object_claimed"
INTERRUPTED = "object_interrupted"
WAITING = (CLAIMED, INTERRUPTED)
"""Faults of a message that nothing is wrong with: its object is read elsewhere, or later."""
FETCHES_MAX = 16
"""Objects that one process asks S3 for at once."""
BATCH_OBJECTS_MAX = 200
"""Small objects whose notifications are processed together."""
BATCH_BYTES_MAX = 8 * 2**20
"""Stored bytes of objects that are processed together. A larger object is processed alone."""
_RENEW_S = CLAIM_S / 4


class Write(msgspec.Struct, frozen=True):
    """What the processor does for us."""

    batch: Callable[[ObjectBatch, Mapping[str, PermanentFault], str], Awaitable[list[Outcome]]]
    """Process a batch, with a statement in its transaction."""
    release: Callable[[TransientFault], None]
    """Note why messages are released."""
    key_of: Callable[[Message], str]
    """Return a notification's ledger key."""
    is_readable: Callable[[bytes], bool]
    """Whether the mapping can read the form of a line."""


class ObjectSource:
    """Where objects come from. Shared by the writers of a process."""

    def __init__(self, store: Objects, settings: EnvelopeSettings, chunk_lines: int) -> None:
        """`chunk_lines`: lines of one transaction at most."""
        self.store = store
        self.chunk_lines = chunk_lines
        self.pool = ThreadPoolExecutor(FETCHES_MAX, thread_name_prefix="s3")
        self._settings = settings
        self._envelope = Envelope(settings.of_notifications)
        self._buckets = frozenset(settings.s3_buckets)

    def read(self, message: Message) -> tuple[Notification, dict[str, str]]:
        """Return what a message notifies of, and the attributes that its layers add.

        Raises PermanentFault: `payload_bucket`, those of `read_notification` and of the layers.
        """
        opened = self._envelope.open(message)
        [text] = opened.records.texts
        found = read_notification(text, opened.attributes, removed=self._settings.s3_removed)
        if any(one.bucket not in self._buckets for one in found.objects):
            raise PermanentFault("payload_bucket")
        return found, opened.attributes

    def load_of(self, message: Message) -> float:
        """Return which part of the messages that are processed together a message may be."""
        size = 0
        with suppress(PermanentFault):
            size = sum(one.size for one in self.read(message)[0].objects)
        return max(1 / BATCH_OBJECTS_MAX, size / BATCH_BYTES_MAX)


class _Notified(msgspec.Struct):
    """A notification that is being processed."""

    message: Message
    index: int
    """Its place among the messages given."""
    objects: dict[str, NamedObject] = {}
    """By digest."""
    attributes: dict[str, str] = {}
    fault: PermanentFault | None = None
    said: str = "read"
    """For the metrics: read, known, ignored, test, failed."""


class S3Objects:
    """The objects of one writer."""

    def __init__(
        self,
        source: ObjectSource,
        claims: ObjectClaims,
        write: Write,
        metrics: Metrics,
        pipeline: int,
        *,
        in_order: bool,
    ) -> None:
        """`pipeline`: its number. `in_order`: nothing is written of notifications behind one that
        has to wait.
        """
        self._source = source
        self._claims = claims
        self._write = write
        self._metrics = metrics
        self._pipeline = pipeline
        self._in_order = in_order
        self.stopping: Callable[[], bool] = lambda: False
        """Whether to stop at the next commit, and leave the rest to the next delivery."""
        self.lines = 0
        """Lines that were committed or set aside so far, duplicates too."""

    async def process(
        self, messages: Sequence[Message], to_quarantine: Mapping[str, PermanentFault]
    ) -> list[Outcome]:
        """Process notifications; return their outcomes, in order. See `Processor.process`."""
        outcomes = [Outcome.RELEASED] * len(messages)
        try:
            notified = [
                await self._read(index, message, to_quarantine.get(message.message_id))
                for index, message in enumerate(messages)
            ]
            ready, reading = await self._claimed(notified)
        except TransientFault as fault:
            self._write.release(fault)
            return outcomes
        if reading is not None:
            await self._write_all(ready, reading, outcomes)
        return outcomes

    async def _read(self, index: int, message: Message, fault: PermanentFault | None) -> _Notified:
        one = _Notified(message, index, fault=fault)
        if fault is None:
            try:
                found, one.attributes = self._source.read(message)
                one.objects = {await self._digest(named): named for named in found.objects}
            except PermanentFault as wrong:
                one.fault = wrong.with_traceback(None)
            else:
                if not found.objects:
                    one.said = "test" if found.test else "ignored"
        if one.fault is not None:
            one.said = "failed"
        return one

    async def _digest(self, named: NamedObject) -> str:
        version, etag = named.version, named.etag
        if not version and not etag:
            version, etag = await asyncio.to_thread(
                self._source.store.identify, named.bucket, named.key
            )
        return object_digest(named.bucket, named.key, version=version, etag=etag)

    async def _claimed(
        self, notified: Sequence[_Notified]
    ) -> tuple[list[_Notified], _Reading | None]:
        """Return the notifications that can be processed now, and what reads their objects."""
        wanted = {d: named for one in notified for d, named in one.objects.items()}
        lines: dict[str, int] = {}
        finished: frozenset[str] = frozenset()
        if wanted:
            lines, finished = await self._claims.claim(
                [Wanted(digest, named.place, named.size) for digest, named in wanted.items()]
            )
        ready = [one for one in notified if all(d in lines or d in finished for d in one.objects)]
        if len(ready) < len(notified):
            self._write.release(_claimed_elsewhere())
            if self._in_order:
                missing = next(i for i, one in enumerate(notified) if one not in ready)
                ready = list(notified[:missing])
        objects: dict[str, ObjectInHand] = {}
        for one in ready:
            if one.objects and finished >= one.objects.keys():
                one.said = "known"
            for digest, named in one.objects.items():
                if digest in lines and digest not in objects:
                    attributes = _attributes(one, named)
                    objects[digest] = ObjectInHand(named, digest, lines[digest], attributes)
        if not ready:
            return [], None
        reader = ObjectReader(
            self._source.store,
            self._source.pool,
            list(objects.values()),
            self._pipeline,
            chunk_lines=self._source.chunk_lines,
            is_readable=self._write.is_readable,
        )
        return ready, _Reading(reader, frozenset(objects), set(finished), time.monotonic())

    async def _write_all(
        self, pending: list[_Notified], reading: _Reading, outcomes: list[Outcome]
    ) -> None:
        """Write the objects of notifications, chunk by chunk; enter the outcomes of those done."""
        following: asyncio.Future[Chunk] | None = reading.begin()
        try:
            while following is not None:
                chunk = await self._awaited(following, reading)
                following = None
                if not chunk.last and chunk.transient is None:
                    # The next one is read while this one is written.
                    following = reading.begin()
                reading.ended.update(chunk.ended)
                reading.faults.update(chunk.faults)
                done = [one for one in pending if reading.ended >= one.objects.keys()]
                if not await self._write_chunk(chunk, pending, done, reading, outcomes):
                    return
                pending = [one for one in pending if one not in done]
                fault = chunk.transient
                if pending and fault is None and self.stopping():
                    fault = interrupted()
                if fault is not None:
                    self._write.release(fault)
                    await self._give_back(reading)
                    return
        finally:
            reading.reader.abandon()
            if following is not None:
                following.cancel()

    async def _give_back(self, reading: _Reading) -> None:
        """Give back what is not read, so that another worker need not wait. Best effort."""
        with suppress(Sqs2pgError):
            await self._claims.release(reading.open)

    async def _awaited(self, following: asyncio.Future[Chunk], reading: _Reading) -> Chunk:
        """Wait for a chunk, and keep the claims meanwhile."""
        while True:
            left_s = reading.renewed_at + _RENEW_S - time.monotonic()
            if left_s <= 0 and (names := reading.open):
                await self._claims.renew(names)
                reading.renewed_at, left_s = time.monotonic(), _RENEW_S
            await asyncio.wait([following], timeout=max(0.0, left_s))
            if following.done():
                return following.result()

    async def _write_chunk(
        self,
        chunk: Chunk,
        pending: Sequence[_Notified],
        done: Sequence[_Notified],
        reading: _Reading,
        outcomes: list[Outcome],
    ) -> bool:
        """Write a chunk with the notifications that end with it; return whether it is committed."""
        for one in done:
            found = [reading.faults[digest] for digest in one.objects if digest in reading.faults]
            if found and one.fault is None:
                one.fault, one.said = found[0], "failed"
        oldest_ms = min((one.message.attributes.sent_timestamp for one in pending), default=None)
        batch = ObjectBatch(chunk.lines, [one.message for one in done], oldest_ms)
        if not batch and not chunk.moves:
            return True
        faults = {one.message.message_id: one.fault for one in done if one.fault is not None}
        moved = {move.digest for move in chunk.moves if move.after > move.before}
        tried = [
            self._write.key_of(one.message)
            for one in pending
            if one.message.attributes.approximate_receive_count > 1
            and not moved.isdisjoint(one.objects)
        ]
        statement = self._claims.move_statement(chunk.moves, tried)
        results = await self._write.batch(batch, faults, statement)
        if Outcome.RELEASED in results:
            return False
        of_lines = results[: batch.line_count]
        for one, outcome in zip(done, results[batch.line_count :], strict=True):
            outcomes[one.index] = outcome
        self.lines += batch.line_count
        self._metrics.count_objects([one.said for one in done], of_lines)
        return True


class _Reading(msgspec.Struct):
    """Objects that are being read."""

    reader: ObjectReader
    ours: frozenset[str]
    """Digests of the objects that were claimed."""
    ended: set[str]
    """Digests of objects of which no more lines come, those of before included."""
    renewed_at: float
    """time.monotonic() when the claims were last renewed."""
    faults: dict[str, PermanentFault] = {}

    @property
    def open(self) -> list[str]:
        """Digests of objects that are still to be read."""
        return sorted(self.ours - self.ended)

    def begin(self) -> asyncio.Future[Chunk]:
        """Begin to read the next chunk, in a thread."""
        return asyncio.ensure_future(asyncio.to_thread(self.reader.read))


def _claimed_elsewhere() -> TransientFault:
    return TransientFault("another worker reads the object", code=CLAIMED, stage=Stage.DECODE)


def _attributes(one: _Notified, named: NamedObject) -> dict[str, MessageAttribute]:
    """Return the attributes of the lines of an object."""
    said = one.attributes | {"s3.bucket": named.bucket, "s3.key": named.key}
    own = one.message.message_attributes or {}
    return own | {name: MessageAttribute("String", text) for name, text in said.items()}

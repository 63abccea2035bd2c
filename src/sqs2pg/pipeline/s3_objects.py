"""S3 objects: read those that notifications name, line by line, and write their lines.

    notifications ─▶ claims ─▶ chunks of lines ─process─▶ rows     ┐
                                                          progress ├ one transaction
                               notifications that end with them    ┘

Place in the flow: between receive and decode, where the envelope ends in `s3_event`. The units are
the lines. A notification ends with the transaction of its last line, with an entry of its own in
the ledger and no row. Large objects take many chunks, and one chunk takes many small objects. The
next chunks are read and encoded while one is written, as in a backfill.

Promises: a line is written once, however often and in whatever order its notifications come, and
wherever a worker is killed: progress is committed with the rows, and a backfill of the object
shares it. Reading goes on at the line after the last one committed.

Must never do: end a notification whose lines are not all committed or set aside, or read from a
bucket that the settings do not name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial

import msgspec

from sqs2pg.errors import PermanentFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.mapping.envelope.s3_event import NamedObject
from sqs2pg.message import Message, MessageAttribute, Outcome
from sqs2pg.pipeline.archive_batches import made_ahead
from sqs2pg.pipeline.archive_check import has_form
from sqs2pg.pipeline.archive_identity import object_attributes, object_digest
from sqs2pg.pipeline.archive_reader import form_for
from sqs2pg.pipeline.object_feed import Feed, Notified, Piece
from sqs2pg.pipeline.object_reader import ObjectInHand, ObjectReader, interrupted
from sqs2pg.pipeline.object_source import ObjectSource
from sqs2pg.pipeline.object_writer import LineWriter, PieceWriter
from sqs2pg.postgres.object_claims import CLAIM_S, ObjectClaims, Wanted
from sqs2pg.telemetry.metrics import Metrics

CLAIMED = "object_claimed"
INTERRUPTED = "object_interrupted"
_WAITING = (CLAIMED, INTERRUPTED)
_RENEW_S = CLAIM_S / 4
_LOOK_S = 0.25
"""How often it is asked whether there is time left, while a chunk is waited for."""


class _Held(msgspec.Struct):
    """Claims that are ours."""

    open: set[str]
    """Digests of objects whose end is not committed."""
    renewed_at: float
    """time.monotonic() when they were last renewed."""


def _never() -> bool:
    return False


def _nothing() -> None:
    pass


class S3Objects:
    """The objects of one writer."""

    def __init__(
        self,
        source: ObjectSource,
        claims: ObjectClaims,
        writer: LineWriter,
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
        self._writer = writer
        self._pieces = PieceWriter(writer, claims)
        self._metrics = metrics
        self._pipeline = pipeline
        self._in_order = in_order
        self.stopping: Callable[[], bool] = _never
        """Whether to stop at the next commit, and leave the rest to the next delivery."""
        self.out_of_time: Callable[[], bool] = _never
        """The same, without waiting for another chunk."""
        self.moved: Callable[[], None] = _nothing
        """Called after each commit."""
        self.lines = 0
        """Lines that were committed or set aside so far, duplicates too."""

    @staticmethod
    def is_elsewhere(fault: TransientFault) -> bool:
        """Whether nothing is wrong with a message of this fault: its object is read elsewhere, or
        later.
        """
        return fault.code in _WAITING

    def search_at_once(self) -> None:
        """Look for lines that PostgreSQL refuses after one failure: nobody soon tries again."""
        self._pieces.searches_at_once = True

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
            await self._process(notified, outcomes)
        except TransientFault as fault:
            self._writer.release(fault)
        return outcomes

    async def read_again(self, message: Message) -> PermanentFault | None:
        """Write the lines of a notification that is in the quarantine; return why it stays there.

        Raises TransientFault where they are not all written; it may be repeated.
        """
        self.search_at_once()  # nobody tries again until the command is repeated
        one = await self._read(0, message, None)
        if one.fault is not None:
            return one.fault
        outcomes = [Outcome.RELEASED]
        await self._process([one], outcomes, lines_only=True)
        if outcomes == [Outcome.RELEASED]:
            raise self._writer.last_fault or interrupted()
        return one.fault

    async def _process(
        self, notified: Sequence[Notified], outcomes: list[Outcome], *, lines_only: bool = False
    ) -> None:
        ready, objects, finished = await self._claimed(notified)
        if not ready:
            return
        source = self._source
        is_readable = partial(has_form, self._writer.plan.encoder.mapping)
        reader = ObjectReader(
            source.store,
            source.pool,
            objects,
            self._pipeline,
            size=source.chunk,
            form=form_for(is_readable, source.form, bytes_max=source.bytes_max),
            is_readable=is_readable,
        )
        feed = Feed(reader, ready, finished, self._writer.encode_ahead, lines_only=lines_only)
        held = _Held({one.digest for one in objects}, time.monotonic())
        await self._write_all(feed, held, outcomes)

    async def _read(self, index: int, message: Message, fault: PermanentFault | None) -> Notified:
        one = Notified(message, index, fault=fault)
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
            one.objects, one.said = {}, "failed"
        return one

    async def _digest(self, named: NamedObject) -> str:
        version, etag = named.version, named.etag
        if not version and not etag:
            version, etag = await asyncio.to_thread(
                self._source.store.identify, named.bucket, named.key
            )
        return object_digest(named.bucket, named.key, version=version, etag=etag)

    async def _claimed(
        self, notified: Sequence[Notified]
    ) -> tuple[list[Notified], list[ObjectInHand], frozenset[str]]:
        """Claim the objects of notifications.

        Returns the notifications that can be processed now, their objects that are ours to read,
        and the digests of those of which all lines are committed. Of the others it notes that they
        are released.
        """
        wanted = {d: named for one in notified for d, named in one.objects.items()}
        lines: dict[str, int] = {}
        finished: frozenset[str] = frozenset()
        if wanted:
            lines, finished = await self._claims.claim(
                [Wanted(digest, named.place, named.size) for digest, named in wanted.items()]
            )
        ready = [one for one in notified if all(d in lines or d in finished for d in one.objects)]
        if len(ready) < len(notified):
            self._writer.release(_claimed_elsewhere())
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
        if unused := sorted(lines.keys() - objects.keys()):
            await self._release(unused)
        return ready, list(objects.values()), finished

    async def _write_all(self, feed: Feed, held: _Held, outcomes: list[Outcome]) -> None:
        """Write the objects of notifications, chunk by chunk; enter the outcomes of those done."""
        async with aclosing(made_ahead(feed.make)) as made:
            try:
                while (piece := await self._next(made, held)) is not None:
                    if not await self._write_piece(piece, held, outcomes):
                        if self.stopping():
                            await self._give_back(held)
                        return
                    fault = piece.transient
                    if piece.rest and fault is None and self.stopping():
                        fault = interrupted()
                    if fault is not None:
                        raise fault
            except TransientFault as fault:
                self._writer.release(fault)
                await self._give_back(held)
            finally:
                feed.abandon()

    async def _give_back(self, held: _Held) -> None:
        """Give back what is not read, so that another worker need not wait."""
        await self._release(sorted(held.open))

    async def _release(self, digests: Sequence[str]) -> None:
        """Give claims back. Best effort: they run out by themselves."""
        with suppress(Sqs2pgError):
            await self._claims.release(digests)

    async def _next(self, made: AsyncGenerator[Piece], held: _Held) -> Piece | None:
        """Wait for the next piece, and keep the claims meanwhile.

        Raises TransientFault where there is no time for it.
        """
        task = asyncio.ensure_future(anext(made, None))
        try:
            while not task.done():
                await self._keep(held)
                await asyncio.wait([task], timeout=_LOOK_S)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _keep(self, held: _Held) -> None:
        """Keep claims that would soon run out. Raises TransientFault where there is no time."""
        if held.open and time.monotonic() >= held.renewed_at + _RENEW_S:
            await self._claims.renew(sorted(held.open))
            held.renewed_at = time.monotonic()
        if self.out_of_time():
            raise interrupted()

    async def _write_piece(self, piece: Piece, held: _Held, outcomes: list[Outcome]) -> bool:
        """Write what goes into one transaction; return whether it is committed."""
        results: list[Outcome] = []
        if piece.batch:
            results = await self._pieces.write(piece, lambda: self._keep(held))
            if results[-1] is Outcome.RELEASED:  # those come last
                return False
        elif piece.moves:
            await self._claims.move(piece.moves)
        held.open.difference_update(piece.ended)
        if failed := sorted({*piece.ended} - {move.digest for move in piece.moves if move.ended}):
            await self._release(failed)
        count = piece.batch.line_count
        ends = results[count:] or [
            Outcome.WRITTEN if one.fault is None else Outcome.QUARANTINED for one in piece.done
        ]
        for one, outcome in zip(piece.done, ends, strict=True):
            outcomes[one.index] = outcome
        self.lines += count
        self.moved()
        self._metrics.count_objects([one.said for one in piece.done], results[:count])
        return True


def _claimed_elsewhere() -> TransientFault:
    return TransientFault(
        "another worker reads the object",
        code=CLAIMED,
        stage=Stage.DECODE,
        hint="wait until it has ended, 20 seconds if it was killed, and try again",
    )


def _attributes(one: Notified, named: NamedObject) -> dict[str, MessageAttribute]:
    """Return the attributes of the lines of an object."""
    said = {name: MessageAttribute("String", text) for name, text in one.attributes.items()}
    own = one.message.message_attributes or {}
    return own | said | object_attributes(named.bucket, named.key)

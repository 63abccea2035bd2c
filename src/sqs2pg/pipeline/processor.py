"""The one path of a message: encode, write, settle.

`Processor.process(messages) -> outcomes` serves every runner: the stream consumer, `--drain`,
the Lambda handler and backfill. It never deletes and does not retry for long: the caller
acknowledges each message by its outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqs2pg.errors import KeyFault, PermanentFault, TransientFault
from sqs2pg.mapping.encoder import NONE_UNREAD, EncodedAhead
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import Message, Outcome, RowChanges
from sqs2pg.pipeline.dead_letters import DeadLetters
from sqs2pg.pipeline.encoded_part import encode_part, is_of_queue, queue_messages
from sqs2pg.pipeline.key_rotation import under_active_keys
from sqs2pg.pipeline.plan import Follow, Plan
from sqs2pg.pipeline.recent_keys import RecentKeys
from sqs2pg.pipeline.table_changes import TableChanges
from sqs2pg.postgres.object_claims import ObjectClaims
from sqs2pg.postgres.sink import Batch, Sink
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.batch_reporter import BatchReporter, Trace
from sqs2pg.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from sqs2pg.pipeline.s3_objects import S3Objects


class Processor:
    """Encodes and writes batches through one sink, one batch at a time."""

    def __init__(
        self,
        plan: Plan,
        sink: Sink,
        metrics: Metrics,
        batch_log: BatchLog | None = None,
        trace: Trace | None = None,
        follow: Follow | None = None,
        recent: RecentKeys | None = None,
    ) -> None:
        """`follow`: returns the plans of another key version; without it such a version ends the
        process. `recent`: shared by the processors of a process.
        """
        self.plan = plan
        """What it does to messages. A rotation replaces it; read only."""
        self.sink = sink
        """The sink it writes through, for nobody else while it processes."""
        self._follow = follow
        self._recent = recent or RecentKeys()
        self._tables = TableChanges(plan, sink.connected, sink.use_targets)
        self._reporter = BatchReporter(metrics, batch_log or BatchLog(), trace)
        self._statement = ""
        self._ahead: EncodedAhead | None = None
        self.rows = RowChanges()
        """What the rows of all its batches did in their tables."""
        self.objects: S3Objects | None = None
        """Reads the objects that messages notify of; None where the messages are the units."""
        if plan.objects is not None:
            from sqs2pg.pipeline.s3_objects import S3Objects  # with all that reads lines

            claims = ObjectClaims(sink.run_alone, sink.pipeline)
            self.objects = S3Objects(
                plan.objects, claims, self, metrics, sink.pipeline, in_order=plan.fifo
            )
        self.last_fault: TransientFault | None = None
        """Why the last batch was released, for the caller's log and backoff."""

    @property
    def batch_id(self) -> str:
        """The id of the last batch, as the log names it."""
        return self._reporter.batch_id

    async def process(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault] = NONE_UNREAD,
    ) -> list[Outcome]:
        """Return one Outcome per Message, in order; every settled one is durably committed.

        RELEASED means that nothing of the message is known to be committed and it may be given
        again. What is too large to be encoded at once is written in several transactions, in
        order. A message that stands twice in the batch is written once. `to_quarantine` has the
        faults of messages to quarantine unread, by MessageId. Raises FatalFault or KeyFault where
        going on would be wrong; then nothing of the transaction under way is committed. May be
        repeated.
        """
        if self.plan.fifo:
            order = sorted(range(len(messages)), key=lambda i: messages[i].sequence)
            in_order = await self._process([messages[i] for i in order], to_quarantine)
            by_index = dict(zip(order, in_order, strict=True))
            return [by_index[i] for i in range(len(messages))]
        return await self._process(messages, to_quarantine)

    async def process_with_statement(
        self,
        messages: Sequence[Message],
        statement: str,
        to_quarantine: Mapping[str, PermanentFault] = NONE_UNREAD,
        ahead: EncodedAhead | None = None,
    ) -> list[Outcome]:
        """As `process`; the transaction that commits the last message runs the statement, too.

        `ahead` is what `encode_ahead` returned for these messages.
        """
        with self._with(statement, ahead):
            return await self.process(messages, to_quarantine)

    async def process_lines(
        self,
        batch: ObjectBatch,
        to_quarantine: Mapping[str, PermanentFault],
        statement: str,
        ahead: EncodedAhead | None,
    ) -> list[Outcome]:
        """As `process_with_statement`, of lines of S3 objects and their notifications."""
        with self._with(statement, ahead):
            return await self._process_part(batch, to_quarantine)

    def encode_ahead(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault] = NONE_UNREAD,
    ) -> EncodedAhead | None:
        """Encode a batch for a later `process_with_statement`; None where it cannot be done yet.

        May run in another thread, while this processor writes the batch before it. Raises as the
        encoder does.
        """
        encoder = self._tables.present
        if encoder is None or self.plan.payloads is not None:
            return None
        encoded = encoder.encode(messages, self.sink.ledger_end(), to_quarantine)
        return EncodedAhead(messages, encoder, encoded)

    async def reconnect(self) -> None:
        """Close the connection to the database; the next batch opens a new one."""
        await self.sink.session.close()

    def key_of(self, message: Message) -> str:
        """Return the ledger key of a message that is not read."""
        return self.plan.encoder.keys([message])[0]

    def release(self, fault: TransientFault) -> None:
        """Note why a batch is released."""
        self.last_fault = fault
        self._tables.suspect(fault)
        self._reporter.released(fault)

    @contextmanager
    def _with(self, statement: str, ahead: EncodedAhead | None) -> Iterator[None]:
        """Hold what belongs to the batch that is processed meanwhile."""
        self._statement, self._ahead = statement, ahead
        try:
            yield
        finally:
            self._statement, self._ahead = "", None

    async def _process(
        self, messages: Sequence[Message], to_quarantine: Mapping[str, PermanentFault]
    ) -> list[Outcome]:
        if self.objects is not None:
            return await self.objects.process(messages, to_quarantine)
        payloads = self.plan.payloads
        if payloads is None:
            return await self._process_part(messages, to_quarantine)
        return await payloads.process(messages, to_quarantine, self._process_part, self.release)

    async def _process_part(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        *,
        last: bool = True,
    ) -> list[Outcome]:
        """Write messages that are in memory, as many at once as the encoder takes.

        `last`: of the batch. After a part that is released the rest is released too, so that the
        order is kept.
        """
        outcomes: list[Outcome] = []
        left = messages

        async def write() -> list[Outcome]:
            return await self._tables.retry(lambda: self._write(left, to_quarantine, last=last))

        try:
            async with self.sink.lent():
                while left:
                    outcomes += await under_active_keys(write, self._use_active_keys)
                    left = messages[len(outcomes) :]
        except TransientFault as fault:
            self.release(fault)
        return outcomes + [Outcome.RELEASED] * len(left)

    async def _use_active_keys(self, fault: KeyFault) -> None:
        if self._follow is None:
            raise fault
        self.plan, sink_plan, vault = await self._follow(self.plan)
        self._tables.use(self.plan)
        self.sink.use(sink_plan, vault)

    async def _write(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        *,
        last: bool,
    ) -> list[Outcome]:
        """Encode, write, settle, under the present keys and columns, in one transaction.

        Returns the outcomes of the first messages, at least one: those that the encoder takes at
        once. Raises Sqs2pgError.
        """
        # Encode.
        self._reporter.begin(queue_messages(messages))
        encoder = await self._tables.encoder()
        of_queue = is_of_queue(messages)
        known = self._recent.find(messages, encoder.keys) if of_queue else set()
        ahead, self._ahead = self._ahead, None
        part = encode_part(messages, known, encoder, self.sink.ledger_end(), to_quarantine, ahead)
        encoded = part.encoded
        self._reporter.encoded(part.decoded_at, part.size - part.line_count)
        if any(unit.fault.code == "not_in_enum" for unit in encoded.faults):
            await self._tables.confirm()  # the label may be a new one

        # Write.
        dead = DeadLetters(part, self.plan.seal, self._reporter)
        self.sink.note = self._statement if last and part.size == len(messages) else ""
        result = await self.sink.write(
            Batch(encoded, dead.not_encoded(), dead.rejected, self._tables.confirm, len(part.known))
        )

        # Settle.
        if result.changed is None and of_queue:
            self._recent.add(encoded.count, encoded.ledger)
        outcomes = part.outcomes(result)
        part.report(self._reporter, outcomes, result, self.sink.commit_s)
        self.rows = self.rows.plus(result.rows)
        self.last_fault = None
        return outcomes

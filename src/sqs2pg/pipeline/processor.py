"""The one path of a message: encode, write, settle.

`Processor.process(messages) -> outcomes` serves every runner: the stream consumer, `--drain`,
the Lambda handler and backfill. It never deletes and does not retry for long: the caller
acknowledges each message by its outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqs2pg.errors import KeyFault, PermanentFault, TransientFault
from sqs2pg.mapping.encoder import NONE_UNREAD, Encoded, EncodedAhead
from sqs2pg.mapping.line_units import LineUnits
from sqs2pg.mapping.object_batch import ObjectBatch
from sqs2pg.message import DeadLetter, Message, Outcome, RowChanges
from sqs2pg.pipeline.archive_check import has_form
from sqs2pg.pipeline.key_rotation import under_active_keys
from sqs2pg.pipeline.plan import Follow, Plan
from sqs2pg.pipeline.recent_keys import RecentKeys, known_among
from sqs2pg.pipeline.s3_objects import S3Objects, Write
from sqs2pg.pipeline.table_changes import TableChanges
from sqs2pg.postgres.object_claims import ObjectClaims
from sqs2pg.postgres.sink import Batch, BatchResult, Sink
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.batch_reporter import BatchReporter, Trace
from sqs2pg.telemetry.metrics import Metrics


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
        self.objects = self._objects_of(plan, metrics)
        """Reads the objects that messages notify of; None where the messages are the units."""
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

    def _objects_of(self, plan: Plan, metrics: Metrics) -> S3Objects | None:
        if plan.objects is None:
            return None
        write = Write(
            self._process_objects,
            self.encode_ahead,
            self.release,
            lambda: self.last_fault,
            self.key_of,
            lambda body: has_form(self.plan.encoder.mapping, body),
        )
        claims = ObjectClaims(self.sink.run_alone, self.sink.pipeline)
        return S3Objects(
            plan.objects, claims, write, metrics, self.sink.pipeline, in_order=plan.fifo
        )

    async def _process_objects(
        self,
        batch: ObjectBatch,
        to_quarantine: Mapping[str, PermanentFault],
        statement: str,
        ahead: EncodedAhead | None,
    ) -> list[Outcome]:
        """Write lines of objects and notifications, with the statement in their transaction."""
        with self._with(statement, ahead):
            return await self._process_part(batch, to_quarantine)

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
        reporter = self._reporter
        reporter.begin(messages.notifications if isinstance(messages, ObjectBatch) else messages)
        encoder = await self._tables.encoder()
        # Progress says which lines are committed: none is given twice.
        of_queue = not isinstance(messages, LineUnits | ObjectBatch)
        known = self._recent.find(messages, encoder.keys) if of_queue else set()
        given = messages
        if known:
            messages = [one for index, one in enumerate(messages) if index not in known]

        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.units is messages and ahead.encoder is encoder:
            encoded, decoded_at = ahead.encoded, None
        else:
            encoded = encoder.encode(messages, self.sink.ledger_end(), to_quarantine)
            decoded_at = encoded.decoded_at
        if encoded.taken < len(messages):
            messages = messages[: encoded.taken]
            known = known_among(known, encoded.taken)
        objects = messages if isinstance(messages, ObjectBatch) else None
        done = len(messages) + len(known)
        self.sink.note = self._statement if last and done == len(given) else ""
        if any(unit.fault.code == "not_in_enum" for unit in encoded.faults):
            await self._tables.confirm()  # the label may be a new one
        dead = [self._seal(messages, *fault) for fault in encoded.faults]
        lines = objects.line_count if objects is not None else 0
        reporter.encoded(decoded_at, done - lines)

        def seal_rejected(key: str, fault: PermanentFault) -> DeadLetter:
            return self._seal(messages, encoded.keys.index(key), key, fault)

        result = await self.sink.write(
            Batch(encoded, dead, seal_rejected, self._tables.confirm, len(known))
        )

        if result.changed is None and of_queue:
            self._recent.add(encoded.count, encoded.ledger)
        outcomes = _outcomes(messages, encoded, result)
        for index in sorted(known):
            outcomes.insert(index, Outcome.DUPLICATE)
        for name, count in encoded.dropped_fields.items():
            reporter.dropped(name, count)
        if encoded.unknown:
            reporter.unknown(encoded.unknown)
        self.rows = self.rows.plus(result.rows)
        reporter.committed(
            outcomes[lines:] if lines else outcomes,
            encoded.oldest_ms if objects is None else objects.oldest_ms,
            self.sink.commit_s,
            slow=result.slow,
            lines=outcomes[:lines],
            rows=result.rows,
        )
        self.last_fault = None
        return outcomes

    def _seal(
        self, messages: Sequence[Message], index: int, key: str, fault: PermanentFault
    ) -> DeadLetter:
        message = messages[index]
        self._reporter.quarantined(message.message_id, fault)
        if isinstance(messages, ObjectBatch) and (place := messages.place_of(index)):
            detail = f"{fault.detail}, {place}" if fault.detail else place
            fault = PermanentFault(fault.code, detail, stage=fault.stage)
        return self.plan.seal(key, message, fault)


def _outcomes(messages: Sequence[Message], encoded: Encoded, result: BatchResult) -> list[Outcome]:
    """Return the outcomes of a batch that is committed."""
    if result.changed is not None:
        outcomes = [result.changed[key] for key in encoded.keys]
    else:
        outcomes = [Outcome.WRITTEN] * len(messages)
        for fault in encoded.faults:
            outcomes[fault.unit] = Outcome.QUARANTINED
    for index in encoded.repeats:
        outcomes[index] = Outcome.DUPLICATE
    return outcomes

"""The one path of a message: decode, mask, write.

`Processor.process(messages) -> outcomes` serves every runner: the stream consumer, `--drain`,
the Lambda handler and backfill. It never deletes and does not retry for long: the caller settles
each message by its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Protocol, cast

from sqs2pg.errors import FatalFault, KeyFault, PermanentFault, TransientFault
from sqs2pg.mapping.compile import Decoded
from sqs2pg.mapping.fast_path import FastPath, PackedTexts, Part, row_of
from sqs2pg.mapping.ledger_key import UNDATED_MS, collision, delivery_keys, line_keys
from sqs2pg.mapping.originals import Originals
from sqs2pg.message import DeadLetter, Message, Outcome, Row
from sqs2pg.pipeline.plan import Columns, Follow, Plan
from sqs2pg.postgres.sink import Packed, Sink
from sqs2pg.postgres.sqlstate import DatabaseFault
from sqs2pg.telemetry.batch_log import BatchLog, BatchReport
from sqs2pg.telemetry.metrics import Metrics


class Trace(Protocol):
    """What makes spans of batches (`telemetry/traces.py`)."""

    def begin(self, report: BatchReport, messages: Sequence[Message]) -> None:
        """Give a new batch its trace id, and note the producers of its messages."""

    def end(self, report: BatchReport) -> None:
        """Export a batch that has ended."""


_message_id = attrgetter("message_id")
_sent_timestamp = attrgetter("attributes.sent_timestamp")
_ODD_SHARE = 8
"""If more than 1 in this many messages need Python, Python does the whole batch: that is faster."""
NONE_TO_QUARANTINE: Mapping[str, PermanentFault] = MappingProxyType({})
_CHANGED = "target_changed"
ROTATIONS_MAX = 3
"""Rotations that one batch follows: another may come while it does."""


class Processor:
    """Decodes, masks and writes batches through one sink, one batch at a time."""

    def __init__(
        self,
        plan: Plan,
        sink: Sink,
        metrics: Metrics,
        batch_log: BatchLog | None = None,
        trace: Trace | None = None,
        follow: Follow | None = None,
    ) -> None:
        self.plan = plan
        """What it does to messages. A rotation replaces it; read only."""
        self._follow = follow
        self._mapping = plan.mapping
        self._columns: Columns | None = None
        self._stale = False
        self.sink = sink
        """The sink it writes through, for nobody else while it processes."""
        self._metrics = metrics
        self._batch_log = batch_log or BatchLog()
        self._trace = trace
        self._decoded = 0.0
        self.batch_id = ""
        """The id of the last batch, as the log names it."""
        self.last_fault: TransientFault | None = None
        """Why the last batch was released, for the caller's log and backoff."""

    async def process(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault] = NONE_TO_QUARANTINE,
    ) -> list[Outcome]:
        """Return one Outcome per Message, in order; every settled one is durably committed.

        RELEASED means that nothing of the message is known to be committed and it may be given
        again. A message that stands twice in the batch is written once. `to_quarantine` has the
        faults of messages to quarantine unread, by MessageId. Raises FatalFault or KeyFault where
        going on would be wrong; then nothing of the batch is committed. May be repeated.
        """
        work = self._process if self.plan.payloads is None else self._process_fetched
        if self.plan.fifo:
            order = sorted(range(len(messages)), key=lambda i: messages[i].sequence)
            sorted_outcomes = await work([messages[i] for i in order], to_quarantine)
            by_index = dict(zip(order, sorted_outcomes, strict=True))
            return [by_index[i] for i in range(len(messages))]
        return await work(messages, to_quarantine)

    async def process_with_statement(
        self, messages: Sequence[Message], statement: str
    ) -> list[Outcome]:
        """As `process`; the transaction that commits the last message runs the statement, too."""
        self.sink.note = statement
        try:
            return await self.process(messages)
        finally:
            self.sink.note = ""

    async def _process_fetched(
        self, messages: Sequence[Message], to_quarantine: Mapping[str, PermanentFault]
    ) -> list[Outcome]:
        """As `_process`, in parts whose payloads fit in memory: each part is fetched, processed and
        freed. After a part that is released the rest is released too, so that the order is kept.
        """
        payloads = self.plan.payloads
        assert payloads is not None
        outcomes: list[Outcome] = []
        note, self.sink.note = self.sink.note, ""
        for part in payloads.parts(messages):
            if len(outcomes) + len(part) == len(messages):
                self.sink.note = note
            try:
                faults = await payloads.fetch(part)
            except TransientFault as fault:
                self.release(fault)
                break
            done = await self._process(part, {**to_quarantine, **faults})
            await payloads.settle(part, done)
            outcomes += done
            if Outcome.RELEASED in done:
                break
        return outcomes + [Outcome.RELEASED] * (len(messages) - len(outcomes))

    async def reconnect(self) -> None:
        """Close the connection to the database; the next batch opens a new one."""
        await self.sink.session.close()

    async def _process(
        self, messages: Sequence[Message], to_quarantine: Mapping[str, PermanentFault]
    ) -> list[Outcome]:
        for _ in range(ROTATIONS_MAX):
            try:
                return await self._try(messages, to_quarantine)
            except KeyFault as fault:
                if fault.code != "key_version" or self._follow is None:
                    raise
            try:
                self.plan, sink_plan, vault = await self._follow(self.plan)
                # Against the columns as they were at the start: they may have changed since.
                self._mapping, self._stale = self.plan.mapping, self._columns is not None
            except TransientFault as transient:
                self.release(transient)
                return [Outcome.RELEASED] * len(messages)
            self.sink.use(sink_plan, vault)
        return await self._try(messages, to_quarantine)

    async def _try(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        *,
        again: bool = False,
    ) -> list[Outcome]:
        """Process a batch under the present keys and columns. `again`: the columns have been read
        again for this batch.
        """
        report = BatchReport(self._batch_log.next_id(), time.time(), len(messages))
        self.batch_id = report.id
        if self._trace:
            self._trace.begin(report, messages)
        began = self._decoded = time.perf_counter()
        originals = Originals() if self.plan.recovers else None
        if self._stale and not await self._renewed(report):
            return [Outcome.RELEASED] * len(messages)
        met: DatabaseFault | None = None
        masked = began
        try:
            if packed := self._pack(messages, to_quarantine, originals):
                masked = time.perf_counter()
                met = await self.sink.write_packed(packed)
                if met is None:
                    # The fast path decodes and masks at once; what it left has a stage for each.
                    decoded = masked if self._decoded == began else self._decoded
                    report.decode_s, report.mask_s = decoded - began, masked - decoded
                    report.write_s = time.perf_counter() - masked
                    self.last_fault = None
                    outcomes = self._outcomes(messages, packed)
                    self._observe(report, messages, outcomes, packed.texts.oldest_ms)
                    return outcomes
                keys, firsts, rows, dead = self._unpack(messages, packed)
            else:
                keys, firsts, rows, dead = self._transform(messages, to_quarantine, originals)
            masked = time.perf_counter()
            report.decode_s, report.mask_s = self._decoded - began, masked - self._decoded
            result = await self.sink.write(
                rows,
                dead,
                lambda key, fault: self._quarantine(key, firsts[key], fault),
                originals,
                met,
                self._confirm,
                repeated=len(messages) - len(firsts),
            )
        except TransientFault as fault:
            if fault.code == _CHANGED and not again:
                return await self._try(messages, to_quarantine, again=True)
            report.write_s = time.perf_counter() - masked
            # Class 42: a table has changed, or a privilege is gone.
            self._stale = self._stale or fault.code.startswith("postgres_42")
            self.release(fault, report)
            return [Outcome.RELEASED] * len(messages)
        except FatalFault as fault:
            if fault.code != "all_rejected":
                raise
            if not await self._confirmed(report):
                return [Outcome.RELEASED] * len(messages)
            if again:
                raise
            # The table may have been changed between the batch and this look at it.
            return await self._try(messages, to_quarantine, again=True)
        self.last_fault = None
        report.write_s, report.slow = time.perf_counter() - masked, result.slow
        if len(rows) == len(messages) and not result.slow:
            outcomes = [Outcome.WRITTEN] * len(messages)
        else:
            # The sink was given the first message of each key; the others are its duplicates.
            left = dict(result.outcomes)
            outcomes = [left.pop(key, Outcome.DUPLICATE) for key in keys]
        self._observe(report, messages, outcomes)
        return outcomes

    async def _confirmed(self, report: BatchReport) -> bool:
        """Whether `_confirm` finds the tables unchanged; if not, the batch is released."""
        try:
            await self._confirm()
        except TransientFault as changed:
            self.release(changed, report)
            return False
        return True

    async def _confirm(self) -> None:
        """Raise TransientFault if the tables are not those that the rows were made for."""
        try:
            changed = await self._renew()
        except TransientFault:
            self._stale = True
            raise
        if changed:
            raise TransientFault("the target table has changed", code=_CHANGED)

    async def _renewed(self, report: BatchReport) -> bool:
        """Whether `_renew` succeeds; if not, the batch is released."""
        try:
            await self._renew()
        except TransientFault as fault:
            self.release(fault, report)
            return False
        return True

    async def _renew(self) -> bool:
        """Compile the mapping against the tables as they are now; return whether they changed.

        Raises TransientFault where the mapping does not fit them; messages are held until it does.
        """
        if self.plan.refresh is None:
            return False
        mapping, columns = await self.plan.refresh(await self.sink.connected())
        self._stale = False
        if columns == (self._columns or self.plan.columns):
            if self._columns is not None:
                # A key rotation has put the mapping back to the columns of the start.
                self._mapping = mapping
            return False
        self._mapping, self._columns = mapping, columns
        return True

    def key_of(self, message: Message) -> str:
        """Return a message's ledger key."""
        return self._keys([message])[0]

    def _keys(self, messages: Sequence[Message]) -> list[str]:
        names = list(map(_message_id, messages))
        if self.plan.archive:
            return line_keys(names, list(map(_sent_timestamp, messages)))
        if self.plan.fifo:
            sent_ms = [UNDATED_MS] * len(messages)
        else:
            sent_ms = list(map(_sent_timestamp, messages))
        return delivery_keys(names, sent_ms)

    def _transform(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        originals: Originals | None,
    ) -> tuple[list[str], dict[str, Message], list[Row], list[DeadLetter]]:
        """Decode and mask; return each message's key, the first message of each key, the rows and
        the dead letters.
        """
        keys = self._keys(messages)
        firsts = dict(zip(keys, messages, strict=True))
        if not to_quarantine and self.plan.dedupe is None and len(firsts) == len(messages):
            if (fast_path := self._fast_path()) and (
                done := self._use_fast_path(fast_path, messages, keys, originals)
            ):
                rows, dead = done
                return keys, firsts, rows, dead
            try:
                records = self._mapping.decode_all(messages)
            except PermanentFault:
                pass  # below, one at a time
            else:
                self._decoded = time.perf_counter()
                return keys, firsts, *self._mask(keys, messages, records, originals)
        return self._transform_each(messages, keys, to_quarantine, originals)

    def _pack(
        self,
        messages: Sequence[Message],
        to_quarantine: Mapping[str, PermanentFault],
        originals: Originals | None,
    ) -> Packed | None:
        """Return the batch as texts to COPY, with what Python makes of the messages left to it.

        None where the fast path cannot be taken for this batch.
        """
        plan, fast_path = self.plan, self._fast_path()
        if fast_path is None or to_quarantine or originals is not None:
            return None
        if plan.fifo or plan.dedupe or plan.archive:
            return None  # `pack` makes the keys of standard queues
        packed = fast_path.pack(messages, self.sink.ledger_tail("written").encode())
        if packed is None:
            return None
        texts = PackedTexts(*packed)
        left = [messages[index] for index in texts.left]
        if not left:
            return Packed(texts, len(messages))
        *_, rows, dead = self._transform_each(left, self._keys(left), NONE_TO_QUARANTINE, None)
        return Packed(texts, len(messages) - len(left), rows, dead)

    def _outcomes(self, messages: Sequence[Message], packed: Packed) -> list[Outcome]:
        """Return the outcomes of a packed batch that is committed."""
        outcomes = [Outcome.WRITTEN] * len(messages)
        dead = {letter.key for letter in packed.dead}
        for index in packed.texts.left if dead else ():
            if self.key_of(messages[index]) in dead:
                outcomes[index] = Outcome.QUARANTINED
        return outcomes

    def _unpack(
        self, messages: Sequence[Message], packed: Packed
    ) -> tuple[list[str], dict[str, Message], list[Row], list[DeadLetter]]:
        """As `_transform`, for a batch that could not be written by COPY alone.

        What Python made of it is not made again: its faults are counted already.
        """
        fast_path = self._fast_path()
        assert fast_path is not None
        left = set(packed.texts.left)
        keys = self._keys(messages)
        packed_keys = [key for index, key in enumerate(keys) if index not in left]
        theirs = [message for index, message in enumerate(messages) if index not in left]
        rows, dead = self._rows_of(fast_path.lines(theirs), theirs, packed_keys, None)
        firsts = dict(zip(keys, messages, strict=True))
        return keys, firsts, [*rows, *packed.rows], [*dead, *packed.dead]

    def _fast_path(self) -> FastPath | None:
        # It was compiled against the columns of the start; once they are read again it is not used.
        return self.plan.fast_path if self._columns is None else None

    def _use_fast_path(
        self,
        fast_path: FastPath,
        messages: Sequence[Message],
        keys: Sequence[str],
        originals: Originals | None,
    ) -> tuple[list[Row], list[DeadLetter]] | None:
        """Return rows and dead letters by the fast path; `_mask` gets the messages that it leaves.

        None where it leaves many, or their order matters: then Python does the whole batch.
        """
        parts = fast_path.lines(messages)
        if originals is not None and self.plan.fast_path_originals is not None:
            lines = [one[0][1] if one else None for one in parts]  # of a flat mapping: one line
            kept = self.plan.fast_path_originals.take(messages, lines, originals)
            parts = [one if line else None for one, line in zip(parts, kept, strict=True)]
        left = parts.count(None)
        if left and (self.plan.fifo or left * _ODD_SHARE > len(messages)):
            if originals is not None:
                originals.parts.clear()
            return None
        return self._rows_of(parts, messages, keys, originals)

    def _rows_of(
        self,
        parts: Sequence[tuple[Part, ...] | None],
        messages: Sequence[Message],
        keys: Sequence[str],
        originals: Originals | None,
    ) -> tuple[list[Row], list[DeadLetter]]:
        """Return rows and dead letters; `parts` are the fast path's, None where Python does it."""
        self._decoded = time.perf_counter()
        rows: list[Row] = []
        odd: list[Message] = []
        odd_keys: list[str] = []
        for key, message, its_parts in zip(keys, messages, parts, strict=True):
            if its_parts is None:
                odd.append(message)
                odd_keys.append(key)
            else:
                rows.append(row_of(key, message.message_id, its_parts))
        if not odd:
            return rows, []
        *_, more, dead = self._transform_each(odd, odd_keys, NONE_TO_QUARANTINE, originals)
        return rows + more, dead

    def _transform_each(
        self,
        messages: Sequence[Message],
        plain_keys: Sequence[str],
        to_quarantine: Mapping[str, PermanentFault],
        originals: Originals | None,
    ) -> tuple[list[str], dict[str, Message], list[Row], list[DeadLetter]]:
        """As `_transform`, for batches with a bad, a named or a repeated message: one by one."""
        keys: list[str] = []
        firsts: dict[str, Message] = {}
        dead: list[DeadLetter] = []
        row_keys: list[str] = []
        decoded: list[Message] = []
        records: list[Decoded] = []
        mapping, dedupe = self._mapping, self.plan.dedupe
        for message, plain_key in zip(messages, plain_keys, strict=True):
            key = plain_key
            fault = to_quarantine.get(message.message_id) if to_quarantine else None
            record: Decoded = None
            if fault is None:
                try:
                    record = mapping.decode(message)
                except PermanentFault as found:
                    # The traceback refers to this frame, and the frame to the fault: only the
                    # cyclic collector could free the batch.
                    fault = found.with_traceback(None)
                else:
                    if dedupe and (name := mapping.event(record)):
                        key = dedupe(name)
            keys.append(key)
            if (first := firsts.get(key)) is not None:
                if not dedupe and first.message_id != message.message_id:
                    raise collision(first.message_id, message.message_id)
                continue
            firsts[key] = message
            if record is not None:
                row_keys.append(key)
                decoded.append(message)
                records.append(record)
            elif fault is not None:
                dead.append(self._quarantine(key, message, fault))
        self._decoded = time.perf_counter()
        rows, unmasked = self._mask(row_keys, decoded, records, originals)
        return keys, firsts, rows, dead + unmasked

    def _mask(
        self,
        keys: Sequence[str],
        messages: Sequence[Message],
        records: Sequence[Decoded],
        originals: Originals | None,
    ) -> tuple[list[Row], list[DeadLetter]]:
        """Return the rows of records, and dead letters of those that cannot be masked."""
        masked = self._mapping.rows(keys, messages, records, originals)
        for name, count in self._mapping.count_dropped(records).items():
            self._metrics.fields_dropped.labels(name).inc(count)
        if set(map(type, masked)) <= {Row}:
            return cast("list[Row]", masked), []
        rows: list[Row] = []
        dead: list[DeadLetter] = []
        for key, message, row in zip(keys, messages, masked, strict=True):
            if isinstance(row, Row):
                rows.append(row)
            else:
                dead.append(self._quarantine(key, message, row))
        return rows, dead

    def _quarantine(self, key: str, message: Message, fault: PermanentFault) -> DeadLetter:
        self._metrics.count_fault(fault.stage, fault.code)
        self._batch_log.quarantined(message.message_id, self.batch_id, fault)
        return self.plan.seal(key, message, fault)

    def release(self, fault: TransientFault, report: BatchReport | None = None) -> None:
        """Note why a batch was released; with `report`, its record is closed."""
        self.last_fault = fault
        self._metrics.count_fault(fault.stage, fault.code)
        if report is not None:
            report.released, report.code = report.messages, fault.code
            self._batch_log.released(report, fault)
            if self._trace:
                self._trace.end(report)

    def _observe(
        self,
        report: BatchReport,
        messages: Sequence[Message],
        outcomes: list[Outcome],
        oldest_ms: int | None = None,
    ) -> None:
        """Report a committed batch to metrics, log and trace; `oldest_ms` where it is known."""
        metrics, now = self._metrics, time.time()
        # By count and not by Counter: an Enum's hash is a Python function.
        report.written = outcomes.count(Outcome.WRITTEN)
        if report.written < report.messages:
            report.duplicate = outcomes.count(Outcome.DUPLICATE)
            report.quarantined = report.messages - report.written - report.duplicate
        if oldest_ms is None:
            oldest_ms = min(map(_sent_timestamp, messages))
        metrics.oldest_sent_ms = oldest_ms
        report.lag_s = max(0.0, now - oldest_ms / 1000)
        report.commit_s = self.sink.commit_s
        metrics.observe_batch(report, now)
        if self._trace:
            self._trace.end(report)
        self._batch_log.committed(report)

"""The one path of a message: decode, mask, write.

`Processor.process(messages) -> outcomes` serves every front door: the stream consumer, `--drain`,
the Lambda handler, backfill and replay. It never deletes and never retries for long: the caller
settles each message by its outcome.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from sqs2pg.decode import Decoder
from sqs2pg.errors import PermanentFault, TransientFault
from sqs2pg.ledger import UNDATED_MS, delivery_key
from sqs2pg.message import DeadLetter, Message, Outcome, Record, Row
from sqs2pg.metrics import Metrics
from sqs2pg.sink import Result, Sink
from sqs2pg.transform import Transformer

Seal = Callable[[str, Message, PermanentFault], DeadLetter]
"""Seal a message's body for the quarantine, under its ledger key."""


class Processor:
    """Decodes, masks and writes batches through one sink, one batch at a time."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        transformer: Transformer,
        sink: Sink,
        seal: Seal,
        metrics: Metrics,
        undated: bool = False,
    ) -> None:
        self._decoder = decoder
        self._transformer = transformer
        self._sink = sink
        self._seal = seal
        self._metrics = metrics
        self._undated = undated
        self.last_fault: TransientFault | None = None
        """Why the last batch was released, for the caller's log and backoff."""

    async def process(self, messages: Sequence[Message]) -> list[Outcome]:
        """Return one Outcome a Message, in order; every settled one is durably committed.

        RELEASED means that nothing of the message is known to be committed and it may be given
        again. A message that stands twice in the batch is written once. Raises FatalFault or
        KeyFault where going on would be wrong; nothing of the batch is committed then. May be
        repeated.
        """
        keyed = {self._key(message): message for message in reversed(messages)}
        began = time.perf_counter()
        rows, dead = self._transform(keyed)
        masked = time.perf_counter()
        try:
            result = await self._sink.write(rows, dead, self._condemn(keyed))
        except TransientFault as fault:
            self.last_fault = fault
            self._metrics.count_fault(fault.stage, fault.code)
            outcomes = [Outcome.RELEASED] * len(messages)
        else:
            self.last_fault = None
            self._observe(keyed, masked - began, time.perf_counter() - masked)
            outcomes = self._in_order(messages, result)
        for outcome, count in Counter(outcomes).items():
            if outcome.settled:  # a released one is still in the caller's hands
                self._metrics.outcomes.labels(outcome.value).inc(count)
        return outcomes

    async def reconnect(self) -> None:
        """Close the connection to the database; the next batch opens a new one."""
        await self._sink.session.close()

    def _key(self, message: Message) -> str:
        sent_ms = UNDATED_MS if self._undated else message.attributes.sent_timestamp
        return delivery_key(message.message_id, sent_ms)

    def _transform(self, keyed: dict[str, Message]) -> tuple[list[Row], list[DeadLetter]]:
        dead: list[DeadLetter] = []
        keys: list[str] = []
        decoded: list[Message] = []
        records: list[Record] = []
        decode = self._decoder.decode
        for key, message in keyed.items():
            try:
                records.append(decode(message.body))
            except PermanentFault as fault:
                dead.append(self._set_aside(key, message, fault))
            else:
                keys.append(key)
                decoded.append(message)
        rows: list[Row] = []
        lines = self._transformer.lines(decoded, records)
        for key, message, line in zip(keys, decoded, lines, strict=True):
            if isinstance(line, str):
                rows.append(Row(key, message.message_id, line))
            else:
                dead.append(self._set_aside(key, message, line))
        return rows, dead

    def _set_aside(self, key: str, message: Message, fault: PermanentFault) -> DeadLetter:
        self._metrics.count_fault(fault.stage, fault.code)
        return self._seal(key, message, fault)

    def _condemn(self, keyed: dict[str, Message]) -> Callable[[str, PermanentFault], DeadLetter]:
        return lambda key, fault: self._set_aside(key, keyed[key], fault)

    def _in_order(self, messages: Sequence[Message], result: Result) -> list[Outcome]:
        outcomes: list[Outcome] = []
        seen: set[str] = set()
        for message in messages:
            key = self._key(message)
            outcomes.append(Outcome.DUPLICATE if key in seen else result.outcomes[key])
            seen.add(key)
        return outcomes

    def _observe(self, keyed: dict[str, Message], mask_s: float, write_s: float) -> None:
        now = time.time()
        metrics = self._metrics
        metrics.batch_rows.observe(len(keyed))
        metrics.batch_seconds.labels("mask").observe(mask_s)
        metrics.batch_seconds.labels("write").observe(write_s)
        metrics.last_commit.set(now)
        if keyed:
            oldest = min(m.attributes.sent_timestamp for m in keyed.values())
            metrics.lag_seconds.observe(max(0.0, now - oldest / 1000))

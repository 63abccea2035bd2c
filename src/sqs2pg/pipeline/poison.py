"""Poison messages: those that crash their worker. They are found among the suspects.

Place in the flow: between the buffer and the processor. A suspect is a message delivered so often
that it may have crashed the workers that had it. It stands alone in its batch. Before it is tried,
a marker is committed for it. If a marker from an earlier delivery is still there, that delivery
crashed its worker: the message is quarantined unread, as `kills_worker`. Otherwise the marker is
deleted, however this delivery ends.

Must never do: quarantine a message for a crash that another message may have caused. So one suspect
is tried at a time in a process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter

from sqs2pg.errors import (
    FatalFault,
    KeyFault,
    PermanentFault,
    Sqs2pgError,
    Stage,
    TransientFault,
)
from sqs2pg.mapping.encoder import NONE_UNREAD
from sqs2pg.message import Message, Outcome
from sqs2pg.pipeline.processor import Processor


class Suspects:
    """Tries suspects alone, for the processors of one process."""

    def __init__(self, receives: int, *, fifo: bool = False) -> None:
        """`fifo`: the messages come from a FIFO queue."""
        self.receives = receives
        """Deliveries that make a message a suspect."""
        self._fifo = fifo
        self._trying = asyncio.Lock()
        self._interrupted: list[tuple[Processor, str]] = []
        """Ledger keys of trials that were cancelled while their marker stood."""

    def is_suspect(self, message: Message) -> bool:
        """Whether a message was delivered too often."""
        return message.attributes.approximate_receive_count >= self.receives

    def split(self, batch: Sequence[Message]) -> list[list[Message]]:
        """Split a batch so that each suspect stands alone.

        Messages of a FIFO queue come in the order of their SequenceNumbers, else suspects last.
        """
        if not batch:
            return []
        fifo = self._fifo
        # No call per message: it would cost as much as all the rest of this.
        receives = [message.attributes.approximate_receive_count for message in batch]
        if not fifo and max(receives) < self.receives:
            return [list(batch)]
        ordered = sorted(batch, key=attrgetter("sequence") if fifo else self.is_suspect)
        parts: list[list[Message]] = []
        for is_suspect, run in groupby(ordered, self.is_suspect):
            together = list(run)
            parts += [[message] for message in together] if is_suspect else [together]
        return parts

    async def process(self, processor: Processor, part: Sequence[Message]) -> list[Outcome]:
        """Process a part that `split` returned: as `Processor.process`, a suspect as a trial."""
        if len(part) == 1 and self.is_suspect(part[0]):
            async with self._trying:
                return [await self.try_alone(processor, part[0])]
        return await processor.process(part, _odd_ones(part))

    async def try_alone(self, processor: Processor, message: Message) -> Outcome:
        """Process a suspect under a marker; quarantine it if it crashed its worker before.

        Returns RELEASED and raises FatalFault and KeyFault as `Processor.process` does.
        """
        sink, key = processor.sink, processor.key_of(message)
        attempt = message.attributes.approximate_receive_count
        try:
            if await sink.note_suspect(key, attempt):
                fault = PermanentFault("kills_worker", stage=Stage.WRITE)
                [outcome] = await processor.process([message], {message.message_id: fault})
                if outcome.settled:  # else the marker must outlast this delivery, too
                    await sink.clear_suspect(key)
                return outcome
            return await self._try_first(processor, message, key)
        except TransientFault as transient:
            processor.release(transient)
            return Outcome.RELEASED

    async def clear_interrupted(self) -> None:
        """Delete the markers of trials that were cancelled: they crashed nobody. Best effort."""
        interrupted, self._interrupted = self._interrupted, []
        for processor, key in interrupted:
            with suppress(Sqs2pgError):
                await processor.sink.clear_suspect(key)

    async def _try_first(self, processor: Processor, message: Message, key: str) -> Outcome:
        """Process a suspect that no earlier delivery left a marker of, and delete its own."""
        sink = processor.sink
        try:
            [outcome] = await processor.process([message], _odd_ones([message]))
        except (FatalFault, KeyFault):
            with suppress(Sqs2pgError):
                await sink.clear_suspect(key)
            raise
        except asyncio.CancelledError:
            self._interrupted.append((processor, key))
            raise
        if outcome.settled:
            await sink.clear_suspect(key)
        else:
            with suppress(TransientFault):  # the reason of the release is what counts
                await sink.clear_suspect(key)
        return outcome


def _odd_ones(part: Sequence[Message]) -> Mapping[str, PermanentFault]:
    """Return the faults of messages that were not delivered as SQS delivers, by MessageId."""
    if not any([message.odd for message in part]):  # noqa: C419  faster than a generator
        return NONE_UNREAD
    return {
        message.message_id: PermanentFault("odd_delivery", message.odd, stage=Stage.RECEIVE)
        for message in part
        if message.odd
    }

"""Isolation: find the messages for which a batch is refused again and again.

Place in the flow: beside the consumer's retries. An SQLSTATE that is not about a row does not say
whose fault it is: a trigger that times out for one row, or reads a missing table, fails the whole
batch, as a database does that is away. So when a batch has failed again with the same code, its
statements are rehearsed without rows (`postgres/rehearsal.py`). If the rehearsal fails, the world
is at fault: the messages are held and tried again, as ever. If it passes, the batch is halved, each
part in a transaction of its own with a short timeout, until what is good is committed and what is
left are single messages.

Those are isolated: returned to the queue, invisible for a time that grows with the receive count.
So they block nobody, their receive count rises, and the queue's redrive policy decides in the end.
Delivered again, an isolated message is tried alone with the short timeout. On a FIFO queue the
later messages of its group go back with it.

An object in S3 that S3 refuses to give is such a fault, too: the message that points to it is at
fault if other messages are written meanwhile. So is the data key of one person that does not open:
only the messages about that person need it.

Bounds: one bad message in a batch of n costs `sink.statement_timeout_s` once or twice (the batch),
then PROBE_TIMEOUT_S at most log2(n) + 2 times; k of them at most k times as much, and good messages
are committed meanwhile.

Must never do: quarantine a message, or isolate one for a fault that all messages meet.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from itertools import groupby

import msgspec
import structlog

from sqs2pg.errors import TransientFault
from sqs2pg.message import Message, Outcome
from sqs2pg.pipeline.poison import Suspects
from sqs2pg.pipeline.processor import Processor
from sqs2pg.pipeline.refusals import (
    ALIKE_MIN,
    PROBE_TIMEOUT_S,
    is_often_of_the_world,
    is_refused,
    is_search_due,
    may_be_of_a_message,
)
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.telemetry.metrics import Metrics

AWAY_FIRST_S, AWAY_MAX_S = 30, 900
"""How long an isolated message stays invisible: the first time, and at most, seconds. It doubles
with each receive: a table that is mended in a minute costs one or two receives, and a message that
stays bad is seldom tried."""
KNOWN_MAX = 10_000
"""Isolated messages that are remembered, about 2 MB. One that is forgotten is found again."""
OVERDUE_S = 120.0
"""An isolated message that has not come back so long after it became visible is gone: to the
dead-letter queue, or to another consumer."""
_IDS_LOGGED_MAX = 20

log = structlog.get_logger(__name__)

End = Callable[[list[Message], Sequence[Outcome]], list[Message]]
"""Count and acknowledge the messages that ended; return the others, which are still held."""


class Found(msgspec.Struct):
    """What a search has left of a batch."""

    left: list[Message] = []
    """Messages to hold and try again: the world is at fault."""
    alike: bool = False
    """Those left are refused alike, and the rehearsal passes: try them together with others."""
    groups: set[str] = set()
    """FIFO: message groups that have an isolated message."""
    released: int = 0
    """Messages that went back to the queue: those isolated, and those that wait behind them."""


class _Isolated(msgspec.Struct):
    visible_at: float
    """time.monotonic() at which the queue may deliver it again."""


class Isolation:
    """The isolated messages of one process."""

    def __init__(
        self,
        source: QueueSource,
        suspects: Suspects,
        metrics: Metrics,
        take_groups: Callable[[Collection[str]], list[Message]],
    ) -> None:
        """`take_groups` takes the messages of groups out of the buffer."""
        self._source = source
        self._suspects = suspects
        self._fifo = source.is_fifo
        self._take_groups = take_groups
        self._known: OrderedDict[str, _Isolated] = OrderedDict()
        self.unproven = 0
        """Messages that were isolated since the last one was written: whose fault it is, no other
        message has shown."""
        self._written_at = 0.0
        metrics.isolated.set_function(self._expected)

    def away(self) -> list[str]:
        """Return the isolated messages that are invisible on the queue, as this process knows."""
        now = time.monotonic()
        return [name for name, one in self._known.items() if one.visible_at > now]

    def _expected(self) -> int:
        since = time.monotonic() - OVERDUE_S
        return sum(1 for one in self._known.values() if one.visible_at > since)

    def split(self, batch: Sequence[Message]) -> list[list[Message]]:
        """Split a batch as `Suspects.split`, with each isolated message alone as well.

        They come last; on a FIFO queue in their order.
        """
        parts = self._suspects.split(batch)
        if not self._known:
            return parts
        runs = [(known, list(run)) for part in parts for known, run in groupby(part, self.is_known)]
        if not self._fifo:
            runs.sort(key=lambda one: one[0])
        return [one for known, run in runs for one in ([[m] for m in run] if known else [run])]

    def is_known(self, message: Message) -> bool:
        """Whether a message was isolated before."""
        return message.message_id in self._known

    async def process(self, processor: Processor, part: Sequence[Message]) -> list[Outcome]:
        """Process a part that `split` returned: as `Suspects.process`, an isolated one briefly."""
        if not (len(part) == 1 and self.is_known(part[0])):
            outcomes = await self._suspects.process(processor, part)
        else:
            with processor.sink.probing(PROBE_TIMEOUT_S):
                outcomes = await self._suspects.process(processor, part)
            if outcomes[0].settled:
                self._known.pop(part[0].message_id, None)
        self._note_written(outcomes)
        return outcomes

    def _note_written(self, outcomes: Sequence[Outcome]) -> None:
        if Outcome.WRITTEN in outcomes:
            self._written_at = time.monotonic()
            self.unproven = 0

    def written_since(self, at: float) -> bool:
        """Whether this process has written a message since `at`, of time.monotonic()."""
        return self._written_at > at

    def is_due(self, batch: Sequence[Message], fault: TransientFault | None, failures: int) -> bool:
        """Whether to search a batch that has failed `failures` times in a row with this fault."""
        if fault is None or not may_be_of_a_message(fault):
            return False
        if len(batch) == 1 and self.is_known(batch[0]):
            return True
        return is_search_due(fault.code, failures)

    async def search(
        self,
        processor: Processor,
        batch: Sequence[Message],
        fault: TransientFault,
        end: End,
        since: float,
    ) -> Found:
        """Commit what PostgreSQL takes of a batch that it refuses, and isolate the rest.

        `fault` is what the batch has met, `since` when it was begun, of time.monotonic(). Each part
        is given to `end`. Raises as `Processor.process`.
        """
        if await self._is_refused(processor):
            return Found(left=list(batch))
        with processor.sink.probing(PROBE_TIMEOUT_S):
            search = _Search(self, processor, end, since, fifo=self._fifo)
            await search.run(batch, fault)
        if search.world or (search.probes and await self._is_refused(processor)):
            return Found(left=search.unsettled(batch), alike=search.alike)
        return await self._isolate(search, processor.batch_id)

    async def probe(self, processor: Processor, part: Sequence[Message]) -> list[Outcome]:
        """Process a part of a batch."""
        outcomes = await self._suspects.process(processor, part)
        self._note_written(outcomes)
        return outcomes

    async def hold_back(self, part: list[Message], groups: Collection[str]) -> list[Message]:
        """Return a part without the messages of `groups`, which go back to the queue."""
        waiting = [m for m in part if m.attributes.message_group_id in groups]
        if not waiting:
            return part
        await self._source.release(waiting)
        return [m for m in part if m.attributes.message_group_id not in groups]

    async def _is_refused(self, processor: Processor) -> bool:
        return await is_refused(
            processor.sink, "the rehearsal of a batch failed; its messages are held"
        )

    async def _isolate(self, search: _Search, batch_id: str) -> Found:
        found = Found()
        if self._fifo:
            groups = {m.attributes.message_group_id or "" for m, _ in search.refused}
            waiting = search.waiting + self._take_groups(groups)
            # First, while the isolated ones are in flight: so the group stays closed.
            await self._source.release(waiting)
            found.groups, found.released = groups, len(waiting)
        found.released += len(search.refused)
        alike: dict[tuple[str, str, str], list[tuple[Message, int]]] = {}
        for message, fault in search.refused:
            if not (self.is_known(message) or search.is_anything_written()):
                self.unproven += 1
            away_s = _away_s(message)
            await self._source.release([message], away_s)
            self._remember(message, away_s)
            alike.setdefault((fault.code, fault.table, fault.day), []).append((message, away_s))
        for (code, table, day), put_away in alike.items():
            log.warning(
                "messages are isolated",
                message_ids=[m.message_id for m, _ in put_away[:_IDS_LOGGED_MAX]],
                messages=len(put_away),
                code=code,
                table=table,
                day=day,
                receives=max(m.attributes.approximate_receive_count for m, _ in put_away),
                visible_in_s=max(away_s for _, away_s in put_away),
                batch=batch_id,
            )
        return found

    def _remember(self, message: Message, away_s: int) -> None:
        self._known.pop(message.message_id, None)
        self._known[message.message_id] = _Isolated(time.monotonic() + away_s)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)


class _Part(msgspec.Struct):
    messages: list[Message]
    suspected: bool = False
    """It is known to fail: the whole failed, and its other half is committed."""
    other: _Part | None = None
    """The half that comes after it."""


class _Search:
    """The search through one batch. Parts are tried in order, first halves first."""

    def __init__(
        self,
        isolation: Isolation,
        processor: Processor,
        end: End,
        since: float,
        *,
        fifo: bool,
    ) -> None:
        self._isolation = isolation
        self._processor = processor
        self._end = end
        self._since = since
        self._fifo = fifo
        self._ended: set[str] = set()
        self.probes = 0
        """Transactions that were tried."""
        self.refused: list[tuple[Message, TransientFault]] = []
        """Messages that PostgreSQL does not take alone."""
        self.waiting: list[Message] = []
        """Of a FIFO queue: messages that come after a refused one of their group."""
        self.world = False
        """Whether the world is at fault after all."""
        self.alike = False
        """Whether that is since messages are refused alike, as far as they were tried."""

    def unsettled(self, batch: Sequence[Message]) -> list[Message]:
        """Return the messages of the batch that have not ended, in their order."""
        return [message for message in batch if message.message_id not in self._ended]

    async def run(self, batch: Sequence[Message], fault: TransientFault) -> None:
        """Try halves of a batch that has met `fault`, halves of halves, and so on."""
        # In any order but a FIFO queue's: bad messages often come together, and ALIKE_MIN of them
        # must not pass for all.
        mixed = list(batch) if self._fifo else random.sample(batch, len(batch))
        pending = [_Part(mixed, suspected=True)]
        while pending and not self.world:
            part = pending.pop()
            messages = self._not_waiting(part.messages)
            if not part.suspected or (len(messages) == 1 < len(batch)):
                tried, messages = await self._try(messages), self.unsettled(messages)
                fault = tried or fault
            if not messages:
                if part.other is not None:
                    part.other.suspected = True
            elif not may_be_of_a_message(fault):
                self.world = True
            elif len(messages) == 1:
                await self._judge(messages[0], fault)
            else:
                half = len(messages) // 2
                second = _Part(messages[half:])
                pending += [second, _Part(messages[:half], other=second)]
        if self.refused and not self.is_anything_written():
            codes = {fault.code for _, fault in self.refused}
            self.world = self.world or any(map(is_often_of_the_world, codes))

    async def _judge(self, message: Message, fault: TransientFault) -> None:
        """Take a message that was refused alone for refused, if it is so again with the same code.

        It may have met a fault that passes, or that changes: that is of the world.
        """
        if not self._isolation.is_known(message):
            again = await self._try([message])
            if again is None:
                return
            if again.code != fault.code:
                self.world = True
                return
        self.refused.append((message, fault))
        self.alike = self.world = self._is_everyones(fault)

    def _is_everyones(self, fault: TransientFault) -> bool:
        known = self._isolation.is_known
        alike = sum(1 for m, other in self.refused if other.code == fault.code and not known(m))
        unproven = self._isolation.unproven + alike
        return alike > 0 and unproven >= ALIKE_MIN and not self.is_anything_written()

    def is_anything_written(self) -> bool:
        """Whether any message was written since the batch was begun, by any writer."""
        return self._isolation.written_since(self._since)

    def _not_waiting(self, messages: list[Message]) -> list[Message]:
        if not self._fifo:
            return messages
        groups = {m.attributes.message_group_id for m, _ in self.refused}
        self.waiting += [m for m in messages if m.attributes.message_group_id in groups]
        return [m for m in messages if m.attributes.message_group_id not in groups]

    async def _try(self, messages: list[Message]) -> TransientFault | None:
        """Process a part; return why some of it was released."""
        if not messages:
            return None
        self.probes += 1
        outcomes = await self._isolation.probe(self._processor, messages)
        held = {message.message_id for message in self._end(messages, outcomes)}
        self._ended |= {m.message_id for m in messages if m.message_id not in held}
        fault = self._processor.last_fault if held else None
        if fault is not None:
            log.debug(
                "a part of a batch is refused",
                code=fault.code,
                table=fault.table,
                messages=len(held),
                batch=self._processor.batch_id,
            )
        return fault


def _away_s(message: Message) -> int:
    doublings = min(10, max(0, message.attributes.approximate_receive_count - 1))
    return int(min(AWAY_MAX_S, AWAY_FIRST_S * 2**doublings))

"""Receive: as many long polls as bring messages, one when the queue is empty.

Place in the flow: the beginning; from the queue into the buffer. Each poller is a loop. A full
reply means that the queue holds more, so it starts another poller, unless the buffer holds more
than a writer takes: then writing is the limit. An empty reply ends every poller but the last, so
that an idle pipeline makes one long poll at a time.

Must never do: receive while the database is away, or after a stop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import structlog

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.message import Message
from sqs2pg.pipeline.backoff import backoff_s
from sqs2pg.pipeline.buffer import Buffer
from sqs2pg.pipeline.rate_limit import RateLimit
from sqs2pg.settings import Settings
from sqs2pg.sqs.gate import Gate
from sqs2pg.sqs.queue import QueueSource
from sqs2pg.sqs.turns import AT_ONCE, BATCHES
from sqs2pg.sqs.wire import BATCH_MAX
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.metrics import Metrics

AWS_AWAY_MAX_S = 300.0
"""How long the queue may be out of reach, with no poll answered, before the consumer ends."""
ENOUGH_S = 0.005
"""How long there are enough polls at once after it was found out. Replies come far more often."""
LAST_POLLS_S = 2.0
"""How long a stop waits for long polls that may be bringing messages; see docs/decisions."""

log = structlog.get_logger(__name__)


class Pollers:
    """The long polls of one consumer."""

    def __init__(
        self,
        source: QueueSource,
        buffer: Buffer,
        settings: Settings,
        metrics: Metrics,
        liveness: Liveness,
        arrived: Callable[[int], None],
        gave_back: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """`arrived` is called with the number of messages of each poll, redeliveries included;
        `gave_back` with those that came after a pause and are released.
        """
        self._turn = source.turn
        buffer.fills = self._fills
        self._gave_back = gave_back
        self._source = source
        self._buffer = buffer
        self._metrics = metrics
        self._liveness = liveness
        self._arrived = arrived
        self._buffer_enough = settings.sink.batch_rows_max
        self._limit = RateLimit(settings.source.messages_per_second_max)
        self._pollers: set[asyncio.Task[None]] = set()
        self._enough_until = 0.0  # time.monotonic()
        self.stopped = False
        """Whether no poll is sent any more. Read only."""
        self.patient = False
        """Whether polls under way may end by themselves after a stop, since the process goes on."""
        self.gives_back = False
        """Whether what polls bring is given back at once: the pipeline is paused."""
        self.gate = Gate()
        """Open while messages may be received: the database is there."""
        self.empty_polls = 0
        """Empty replies in a row."""

    @property
    def running(self) -> int:
        """How many pollers there are."""
        return len(self._pollers)

    async def run(self, stopping: asyncio.Event, wait_s: int | None) -> None:
        """Receive until `stopping` is set and the last polls have come back.

        `wait_s`: how long one poll waits, 0 to 20; None: as set. Raises FatalFault.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._start_one(group, wait_s)
                await stopping.wait()
                self.stopped = True
                self._turn.end()
                self._buffer.wake()
                await self._last_polls()
                for poller in self._pollers:
                    poller.cancel()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._turn.end()

    async def _last_polls(self) -> None:
        """Wait for long polls that may be bringing messages.

        While no message is held, only a short time. While one is held that may have to be released,
        until the polls end or the grace period does: SQS could give a message that we release to a
        poll of ours that nobody reads any more. The same for every poll while `patient`.
        """
        waited = 0.0
        while self._pollers and (waited < LAST_POLLS_S or self._source.held_count or self.patient):
            await asyncio.wait(self._pollers, timeout=LAST_POLLS_S / 10)
            waited += LAST_POLLS_S / 10

    def _start_one(self, group: asyncio.TaskGroup, wait_s: int | None) -> None:
        poller = group.create_task(self._poll_on(group, wait_s))
        self._pollers.add(poller)
        poller.add_done_callback(self._pollers.discard)

    async def _poll_on(self, group: asyncio.TaskGroup, wait_s: int | None) -> None:
        while not self.stopped:
            if not self.gate.is_open:
                self._turn.end()
                await self.gate.wait()
            if self._is_stopped():
                return
            if self._buffer.full:
                if len(self._pollers) > self._at_once():
                    self._leave()
                    return
                self._turn.end()
                await self._buffer.room()
                continue
            if self._needs_turn():
                await self._turn.come()
                continue
            if not await self._limit.take(self._is_held_up):
                continue
            count = await self._bring(wait_s)
            if count == BATCH_MAX:
                if self._wanted() > len(self._pollers) and not self.stopped:
                    self._start_one(group, wait_s)
            elif count == 0 and len(self._pollers) > 1:
                self._leave()
                return
            if len(self._pollers) > self._enough():
                self._leave()
                return

    def _fills(self, count: int) -> bool:
        """Whether a batch of `count` messages is to wait for the turn, or for the end of it.

        Not while polls wait for room in the budget: more cannot come then.
        """
        if self._is_held_up() or not self._source.room.is_open or self._buffer.full:
            return False
        if self._turn.contested:
            return True
        return count < self._buffer_enough // 2 and (self._turn.asked or self._needs_turn())

    def _needs_turn(self) -> bool:
        """Whether to wait for a turn before the next poll. What is limited anyway needs none."""
        return not self._turn.held and self._buffer.backlog and not self._limit.is_set

    def _pass_turn(self, count: int) -> None:
        """End the turn after a reply of `count` messages if the next queue is to be received from.

        That is if there is no backlog any more, or if whole batches are here and others wait.
        """
        turn, buffer = self._turn, self._buffer
        turn.brought += count
        whole = turn.brought + self._coming() >= BATCHES * self._buffer_enough
        if count == 0 or not buffer.filling:
            turn.end()
        elif whole and turn.contested:
            buffer.hold()
            turn.end()
        else:
            return
        buffer.wake()  # a writer that waits for the rest of the turn

    def _coming(self) -> int:
        """Return how many messages the other polls under way may bring."""
        return BATCH_MAX * (len(self._pollers) - 1)

    def _is_held_up(self) -> bool:
        return self.stopped or not self.gate.is_open

    def _leave(self) -> None:
        # Now, not when the task is done: two that end at once must leave one.
        self._pollers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _enough(self) -> int:
        """Return how many polls at once fill a batch while another batch is written."""
        requests = -(-self._buffer_enough // BATCH_MAX)
        if self._turn.contested:
            requests //= AT_ONCE
        return self._source.receiving.concurrency(requests)

    def _at_once(self) -> int:
        """Return how many of them there may be at once."""
        source = self._source
        return min(self._enough(), source.turn_polls_max if self._turn.held else source.polls_max)

    def _wanted(self) -> int:
        """Return how many pollers there are to be after a full reply: one more, or one less.

        The queue has more. So there is another one if writers wait, and one less if they are too
        many for the time that a round trip takes.
        """
        running, now = len(self._pollers), time.monotonic()
        if now < self._enough_until:
            return running
        if running > self._enough():
            return running - 1
        if len(self._buffer.messages) < self._buffer_enough and running < self._at_once():
            return running + 1
        self._enough_until = now + ENOUGH_S
        return running

    def _keep_polling(self, count: int) -> bool:
        """Whether a poller would just poll again after a reply of `count` messages."""
        return (
            not self.stopped
            and self.gate.is_open
            and not self._buffer.would_fill(count)
            and (
                count < BATCH_MAX
                or (self._wanted() == len(self._pollers) and not self._needs_turn())
            )
            and (not self._limit.is_set or self._limit.take_next(count))
        )

    async def _bring(self, wait_s: int | None) -> int:
        """Put the messages of polls into the buffer; return how many came with the last poll.

        In a frame of its own, so that no poller keeps its last reply while it waits for the next.
        """
        if len(self._pollers) > self._source.polls_max:
            wait_s = 0  # beyond its share of the connections none is held for long
        messages, count = await self._poll(wait_s)
        self._limit.brought(count)
        if self.gives_back and messages:
            self._gave_back(len(messages))
            await self._source.release(messages)
        else:
            self._on_messages(messages, count)
        return count

    def _on_messages(self, messages: list[Message], count: int) -> None:
        self._liveness.polled = time.monotonic()
        self._arrived(count)
        self.empty_polls = 0 if count else self.empty_polls + 1
        self._buffer.put(messages, more=count == BATCH_MAX)
        if self._turn.held:
            self._pass_turn(count)

    def _is_stopped(self) -> bool:
        return self.stopped

    async def _poll(self, wait_s: int | None) -> tuple[list[Message], int]:
        """Poll, through transient faults."""
        try:
            return await self._source.poll(
                wait_s=wait_s,
                max_messages=self._limit.ask,
                keep_polling=self._keep_polling,
                on_messages=self._on_messages,
                stopped=self._is_stopped,
            )
        except TransientFault as fault:
            return await self._poll_again(wait_s, fault)

    async def _poll_again(
        self, wait_s: int | None, fault: TransientFault
    ) -> tuple[list[Message], int]:
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            now = self._liveness.polled = time.monotonic()
            self._metrics.count_fault(Stage.RECEIVE, fault.code)
            if now - began > AWS_AWAY_MAX_S:
                raise FatalFault(
                    f"the queue could not be read for {AWS_AWAY_MAX_S:.0f} s ({fault.code})",
                    code=fault.code,
                    hint=fault.hint or "check the network and the AWS endpoint",
                ) from None
            log.warning("receive failed", code=fault.code, attempt=attempt)
            await asyncio.sleep(backoff_s(attempt))
            if self._is_stopped():
                return [], 0
            try:
                return await self._source.poll(
                    wait_s=wait_s, max_messages=self._limit.ask, stopped=self._is_stopped
                )
            except TransientFault as again:
                fault = again

"""The stream consumer: receive, decode, mask, write, acknowledge.

    SQS -poll-> held messages -buffer-> process (decode, mask, write) -outcomes-> acknowledge
                                            | RELEASED: hold under lease, back off, again;
                                            | what alone is refused again: isolate it

Pollers fill the buffer, writers empty it, and the lease keeper extends the leases of the messages
held. All are tasks of one group: if one dies, the consumer ends with its error. `stop` ends
receiving, settles the messages held within the grace period, and releases the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any

import structlog

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.message import Message, Outcome, OutcomeCounts, RowChanges
from sqs2pg.pipeline.backoff import backoff_s
from sqs2pg.pipeline.books_upkeep import Upkeep, keep_books
from sqs2pg.pipeline.buffer import Buffer
from sqs2pg.pipeline.isolation import Isolation
from sqs2pg.pipeline.pause_watch import PauseWatch
from sqs2pg.pipeline.poison import Suspects
from sqs2pg.pipeline.pollers import Pollers
from sqs2pg.pipeline.processor import Processor
from sqs2pg.pipeline.refusals import is_away
from sqs2pg.pipeline.totals import Totals
from sqs2pg.settings import Settings
from sqs2pg.sqs.queue import SUSPECT_RECEIVES, QueueSource
from sqs2pg.telemetry.liveness import Liveness
from sqs2pg.telemetry.metrics import Metrics

CLAIM_POLL_S = 2.0
"""How long a message is held whose object another worker reads, before it is tried again."""
CLEAR_S = 2.0
"""How long it may take to delete the markers of suspects whose trial was cancelled."""
CANCEL_S = 0.5
"""How long a cancelled batch may take to end before its connection is closed under it."""
RELEASE_S = 2.0
"""What is kept of the grace period, at most half of it, to end and release what is not settled."""
LAST_S = 0.2
"""What each last step gets where the grace period is over already."""

log = structlog.get_logger(__name__)


class Consumer:
    """The stream consumer: one queue, several processors, until stopped or drained."""

    def __init__(
        self,
        source: QueueSource,
        processors: Sequence[Processor],
        settings: Settings,
        metrics: Metrics,
        *,
        upkeep: Upkeep,
        watch: PauseWatch | None = None,
        after: Consumer | None = None,
    ) -> None:
        """`watch`: is read while it consumes. `after`: one that has ended, whose counts go on."""
        self._source = source
        self._upkeep = upkeep
        self._watch = watch
        self._after = after
        self.liveness = watch.liveness if watch else Liveness(settings)
        self._suspects = Suspects(SUSPECT_RECEIVES, fifo=source.is_fifo)
        self._processors = processors
        self._settings = settings
        self._metrics = metrics
        objects = processors[0].plan.objects
        self._buffer = Buffer(
            2 * settings.sink.batch_rows_max,
            fifo=source.is_fifo,
            load_of=objects.load_of if objects else None,
        )
        self._isolation = Isolation(source, self._suspects, metrics, self._buffer.take_groups)
        self._stopping = asyncio.Event()
        self.totals: Totals = after.totals if after else Totals()
        self.pollers = Pollers(
            source, self._buffer, settings, metrics, self.liveness, self._arrived, self._gave_back
        )
        self._busy = 0
        for processor in processors:
            if processor.objects:
                processor.objects.stopping = self._stopping.is_set
                processor.objects.out_of_time = self._is_out_of_time
                processor.objects.moved = self._moved
                self.totals.object_lines = self.totals.object_lines or 0
        self._receiving = True
        self._database_away = False  # as the log says
        self._idle = asyncio.Event()  # set whenever a poll, a batch or a delete ends
        self._mixed, self._mixed_at = 0, 0.0  # batches refused alike in a row, and when
        self.began: float = after.began if after else time.monotonic()
        """time.monotonic() when it began, or the first one whose counts it goes on with."""
        self._end_by: float | None = None  # time.monotonic() at which the grace period is over

    def isolated(self) -> list[str]:
        """Return the MessageIds of isolated messages that the queue does not deliver at present."""
        return self._isolation.away()

    def stop(self) -> None:
        """End receiving; `run` returns when the messages held are settled or released."""
        self.pollers.patient = False
        self._stopping.set()

    def pause(self) -> None:
        """As `stop`, but polls under way may end by themselves until `stop` is called.

        What they bring is given back. One that is cut may have taken messages that nobody has then.
        """
        self.pollers.patient = self.pollers.gives_back = True
        self._stopping.set()

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Consume until `stop`, or until the queue has been empty for `drain_settle_s` seconds.

        Raises FatalFault or KeyFault where going on is wrong; the messages held are released first.
        """
        self._suspects.receives = await self._source.max_receives()
        if self._after is None:
            self.began = time.monotonic()
        watch = [
            asyncio.create_task(self._work(draining=drain_settle_s is not None)),
            asyncio.create_task(self._stopping.wait()),
        ]
        if drain_settle_s is not None:
            watch.append(asyncio.create_task(self._drained(drain_settle_s)))
        try:
            done, _ = await asyncio.wait(watch, return_when=asyncio.FIRST_COMPLETED)
            self._end_by = time.monotonic() + self._settings.shutdown_grace_s
            self._stopping.set()
            for task in done:
                task.result()
            await self._finish()
        finally:
            await self._abandon(watch)
            await self._release_held()
            self.totals.seconds = round(time.monotonic() - self.began, 3)
            self.totals.isolated = self.isolated()
        return self.totals

    async def _abandon(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """End what is still under way, without waiting for a database that does not answer.

        A driver that is cancelled first asks the server, for seconds, to cancel too. Whether the
        server commits the batch does not matter: the ledger will tell.
        """
        for task in tasks:
            task.cancel()
        _, stuck = await asyncio.wait(tasks, timeout=min(CANCEL_S, self.time_left_s() / 2))
        for processor in self._processors:
            await processor.reconnect()
        if stuck:
            await asyncio.wait(stuck, timeout=min(CANCEL_S, self.time_left_s() / 2))
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # retrieved; the first one has been raised already

    async def _work(self, *, draining: bool) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(wait_s=1 if draining else None))
                group.create_task(self._source.keep_leases())
                group.create_task(keep_books(self._upkeep, self._metrics))
                for processor in self._processors:
                    group.create_task(self._write(processor))
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    # -- decode, mask, write, acknowledge --------------------------------------------------

    async def _receive(self, wait_s: int | None) -> None:
        try:
            await self.pollers.run(self._stopping, wait_s)
        finally:
            self._receiving = False
            self._idle.set()

    async def _write(self, processor: Processor) -> None:
        take, watch = self._take, self._watch
        if watch:
            take = partial(watch.during, processor.sink, self._take)
        while True:
            # Not in a variable: a writer that waits must not keep its last batch in memory.
            await self._write_batch(processor, await take())
            if watch:
                await watch.pause_if_bad(processor.sink)

    async def _take(self) -> list[Message]:
        """Take a batch, which counts as busy from now on."""
        sink = self._settings.sink
        batch = await self._buffer.take(sink.batch_rows_max, sink.linger_ms / 1000)
        self._busy += 1
        return batch

    async def _write_batch(self, processor: Processor, batch: list[Message]) -> None:
        isolation = self._isolation
        waiting: set[str] = set()  # message groups behind an isolated message
        try:
            with self.liveness.writing():
                for part in isolation.split(batch):
                    ready = await isolation.hold_back(part, waiting) if waiting else part
                    self._count_released(len(part) - len(ready))
                    if ready:
                        waiting |= await self._settle(processor, ready)
            self._buffer.done(batch)
        finally:
            self._busy -= 1
            self._idle.set()

    async def _settle(self, processor: Processor, batch: list[Message]) -> set[str]:
        """Process a batch until each of its messages is settled or isolated; hold them through
        faults. Returns the message groups of isolated ones.
        """
        waiting: set[str] = set()
        attempt, alike, code, began = 0, 0, "", time.monotonic()
        while batch := self._end(batch, await self._isolation.process(processor, batch)):
            fault = processor.last_fault
            if fault and processor.objects and processor.objects.is_elsewhere(fault):
                if self._source.is_fifo and not self._stopping.is_set():
                    # Later messages of the groups must not overtake them.
                    await asyncio.sleep(CLAIM_POLL_S)
                    continue
                self._wait_for_objects(batch)
                break
            before, code = code, fault.code if fault else ""
            alike = alike + 1 if code == before else 1
            if fault and self._isolation.is_due(batch, fault, alike):
                found = await self._isolation.search(processor, batch, fault, self._end, began)
                self._count_released(found.released)
                waiting |= found.groups
                batch = found.left
                if found.alike:
                    await self._mix(batch)
                if found.alike or not batch:
                    break
            attempt += 1
            self._pause(code)
            log.warning(
                "write failed; messages are held",
                code=code or "released",
                **(fault.named if fault else {}),
                messages=len(batch),
                attempt=attempt,
                batch=processor.batch_id,
            )
            await asyncio.sleep(backoff_s(attempt))
        self._resume()
        return waiting

    def _pause(self, code: str) -> None:
        """Receive no more while writes fail with a code."""
        self.pollers.gate.close()
        self.liveness.paused = True
        if not self._database_away and is_away(code):
            self._database_away = True
            log.warning("database away, receiving paused", code=code)

    def _resume(self) -> None:
        self.pollers.gate.open()
        self.liveness.resume()
        if self._database_away:
            self._database_away = False
            log.info("database back")

    def _wait_for_objects(self, batch: list[Message]) -> None:
        """Hold messages whose objects another worker reads, and try them again later.

        At a stop they are released: whoever gets them goes on where the objects are.
        """
        if not self._stopping.is_set():
            loop = asyncio.get_running_loop()
            loop.call_later(CLAIM_POLL_S, self._buffer.put_back, batch)

    async def _mix(self, batch: list[Message]) -> None:
        """Let messages that are refused alike be tried again, later, together with others.

        Receiving goes on: only other messages can show whose fault it is. The buffer bounds how
        many come.
        """
        self._mixed = 1 if self._isolation.written_since(self._mixed_at) else self._mixed + 1
        self._mixed_at = time.monotonic()
        log.warning("all messages of a batch are refused alike; they are held", messages=len(batch))
        self.pollers.gate.open()
        await asyncio.sleep(backoff_s(self._mixed))
        self._buffer.put_back(batch)

    def _moved(self) -> None:
        """Note that lines of an object are committed: it may take hours to its end."""
        self.totals.object_lines = sum(p.objects.lines for p in self._processors if p.objects)
        self.liveness.tried(settled=True)

    def _end(self, batch: list[Message], outcomes: Sequence[Outcome]) -> list[Message]:
        """Count and acknowledge the messages that ended; return the others, which stay held."""
        ended = self._count(outcomes)
        self.liveness.tried(settled=ended > 0)
        if ended == len(batch):
            self._source.acknowledge(batch)
            return []
        each = list(zip(batch, outcomes, strict=True))
        self._source.acknowledge([message for message, o in each if o.settled])
        return [message for message, o in each if not o.settled]

    def _count_released(self, messages: int) -> None:
        if messages:
            self.totals.released += messages
            self._metrics.count_released(messages)

    def _arrived(self, count: int) -> None:
        self.totals.received += count

    def _gave_back(self, count: int) -> None:
        self._arrived(count)
        self._count_released(count)

    def _count(self, outcomes: Sequence[Outcome]) -> int:
        """Add up the messages that ended; return how many.

        A message of outcome RELEASED is still held: it is counted when it is given back.
        """
        totals = self.totals
        totals.busy_seconds = round(time.monotonic() - self.began, 3)
        counts = OutcomeCounts.of(outcomes)
        totals.written += counts.written
        totals.duplicate += counts.duplicate
        totals.quarantined += counts.quarantined
        for name in RowChanges._fields:
            setattr(totals, f"rows_{name}", sum(getattr(p.rows, name) for p in self._processors))
        return len(outcomes) - counts.released

    # -- the end ---------------------------------------------------------------------------

    async def _drained(self, settle_s: float) -> None:
        """Return once the queue was empty and no message was held for `settle_s` seconds.

        Isolated messages do not count: the queue has them, and nobody can write them.
        """
        empty_since: float | None = None
        while True:
            await asyncio.sleep(min(0.25, settle_s / 4) if settle_s else 0.05)
            if empty_since is None:
                self.pollers.empty_polls = 0
            asked = time.monotonic()
            if not await self._looks_empty():
                empty_since = None
            elif empty_since is None:
                empty_since = asked
            elif asked - empty_since >= settle_s and self.pollers.empty_polls:
                return

    async def _looks_empty(self) -> bool:
        if self._holds_messages():
            return False
        try:
            counts = await self._source.depth()
        except TransientFault as fault:
            self._metrics.count_fault(Stage.RECEIVE, fault.code)
            return False
        visible, in_flight, delayed = counts
        left = visible or delayed or in_flight > len(self.isolated())
        return not (left or self._holds_messages())

    def _holds_messages(self) -> bool:
        """Whether messages are held, or are sure to wait: the queue's turn is asked for."""
        source = self._source
        return bool(source.held_count or self._buffer or self._busy or source.turn.asked)

    def time_left_s(self) -> float:
        """Return what is left of the grace period, in seconds; little, but never nothing.

        All of it while no end was asked for.
        """
        if self._end_by is None:
            return self._settings.shutdown_grace_s
        return max(LAST_S, self._end_by - time.monotonic())

    def _is_out_of_time(self) -> bool:
        """Whether what is left of the grace period is for the end."""
        return self._end_by is not None and self.time_left_s() <= RELEASE_S + CANCEL_S

    async def _finish(self) -> None:
        """Settle the messages held within the grace period, less the time to release the rest."""
        left_s = self.time_left_s()
        try:
            async with asyncio.timeout(max(left_s / 2, left_s - RELEASE_S)):
                while self._receiving or self._buffer or self._busy:
                    await self._idle.wait()
                    self._idle.clear()
                await self._source.acknowledged()
        except TimeoutError:
            log.warning("the grace period is over", messages=self._source.held_count)

    async def _release_held(self) -> None:
        """Release the messages still held, after the deletes under way had one more second.

        All this ends with the grace period, whatever does not answer.
        """
        await asyncio.gather(
            self._within(self._source.acknowledged(), 1.0),
            self._within(self._suspects.clear_interrupted(), CLEAR_S),
        )
        held = self._source.held()
        self._count_released(len(held))
        if held:
            await self._within(self._source.release(held), 5.0)

    async def _within(self, work: Awaitable[None], limit_s: float) -> None:
        """Wait for work, but not for longer than `limit_s` or the grace period."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(work, min(limit_s, self.time_left_s()))

"""Deletes settled messages in the background, ten per request.

Place in the flow: behind `QueueSource.acknowledge`, which hands over messages whose outcome is
durable. A delete that fails in the end is harmless: SQS delivers the message again, and the ledger
knows it.

Must never delete a message that was not handed over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.message import Message
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.concurrency import RoundTripTime
from sqs2pg.sqs.wire import BATCH_MAX, EntryFailure
from sqs2pg.telemetry.metrics import Metrics

ENTRY_CODES = frozenset(
    {
        "InternalError",
        "InvalidParameterValue",
        "MessageNotInflight",
        "ReceiptHandleIsInvalid",
        "RequestThrottled",
        "ServiceUnavailable",
        "ThrottlingException",
        "Unanswered",
    }
)
"""Codes of failed batch entries that are counted by name. Any other text is counted as `other`, so
that a server cannot add labels."""
_ATTEMPTS_MAX = 3
_STALLED_S = 0.25
"""Without an answer for this long, the requests under way are taken to be stuck."""
BESIDE_OTHERS_MIN = 8
"""Requests at once of a queue, however many other queues of the process delete meanwhile. Few: each
one begins with a task, and those that follow it on its connection need none."""


class _Batches:
    """The batches that one task deletes, one after the other; see `DeleteBatches`."""

    def __init__(self, deleter: Deleter, queue_url: str) -> None:
        self._deleter = deleter
        self.queue_url = queue_url
        self.messages: list[Message] = []
        """The present batch. Its messages are held until SQS has answered."""
        self.left: list[Message] = []
        """Those of the present batch that are not known to be deleted."""
        self.handles: list[str] = []
        """The receipt handles of `left`, as sent."""
        self.given_up = 0
        """How many messages of the batch SQS refuses to delete."""
        self.attempts = 0
        self.sent = 0.0
        """time.monotonic() of the first request for the present batch."""

    def take(self) -> bool:
        """Make the next ten messages the present batch. False if none are left."""
        settled = self._deleter.settled
        if not settled:
            return False
        self.messages = self.left = settled.popleft()
        self.given_up = self.attempts = 0
        self.sent = time.monotonic()
        return True

    def advance(self) -> bool:
        """As `DeleteBatches.advance`."""
        if not self._deleter.settled:
            return False
        self.left = []
        self._deleter.finish(self)
        self.take()
        self.attempts = 1
        self.handles = [message.receipt_handle for message in self.left]
        return True


class Deleter:
    """Deletes messages of one queue. Belongs to one event loop."""

    def __init__(
        self,
        client: SqsClient,
        queue_url: str,
        metrics: Metrics,
        *,
        requests_max: int,
        on_end: Callable[[list[Message]], None],
        round_trip: RoundTripTime | None = None,
    ) -> None:
        """`requests_max` bounds the requests under way. `on_end` is called with each batch that
        is deleted or given up. `round_trip`: of the deletes of all queues of the endpoint.
        """
        self._client = client
        self._queue_url = queue_url
        self._metrics = metrics
        self._requests_max = requests_max
        self._on_end = on_end
        self.settled: deque[list[Message]] = deque()
        """Messages that wait to be deleted, in batches of ten."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._round_trip = round_trip or RoundTripTime()
        self._last_end = 0.0

    def delete(self, messages: list[Message]) -> None:
        """Delete messages in the background."""
        settled, start = self.settled, 0
        if settled and len(settled[-1]) < BATCH_MAX:
            start = BATCH_MAX - len(settled[-1])
            settled[-1] += messages[:start]
        settled.extend(
            [messages[at : at + BATCH_MAX] for at in range(start, len(messages), BATCH_MAX)]
        )
        # Any task takes any ten messages, so that none of them waits behind a stalled request.
        for _ in range(self._tasks_wanted()):
            self._tasks.add(asyncio.create_task(self._delete_settled()))
            self._round_trip.under_way += 1

    async def finished(self) -> None:
        """Wait until no delete is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def finish(self, batches: _Batches) -> None:
        """The present batch has come to its end: count it and hold its messages no longer."""
        now = self._last_end = time.monotonic()
        took_s = now - batches.sent
        if batches.attempts == 1:
            self._round_trip.observe(took_s, now)
        deleted = len(batches.messages) - len(batches.left) - batches.given_up
        self._metrics.requests.delete(deleted, took_s)
        self._on_end(batches.messages)

    def _tasks_wanted(self) -> int:
        """Return how many tasks to start: the latency decides how many requests run at once.

        More would only be more connections to look after. Tasks under way count as long as
        answers come.
        """
        requests, under_way = len(self.settled), len(self._tasks)
        wanted = self._round_trip.concurrency(requests)
        # Those of other queues count, too: all together are to be as many as one queue's would be.
        wanted -= self._round_trip.under_way - under_way
        wanted = min(requests, max(BESIDE_OTHERS_MIN, wanted))
        if time.monotonic() - self._last_end < _STALLED_S:
            wanted -= under_way
        return min(wanted, self._requests_max - under_way)

    async def _delete_settled(self) -> None:
        batches = _Batches(self, self._queue_url)
        try:
            while batches.take():
                await self._delete(batches)
        finally:
            # Now, not when the task is done: a `delete` in between must not count on this task.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._round_trip.under_way -= 1

    async def _delete(self, batches: _Batches) -> None:
        """Delete the present batch and those that follow it, until one has failed entries."""
        while batches.left and batches.attempts < _ATTEMPTS_MAX:
            batches.attempts += 1
            batches.handles = [message.receipt_handle for message in batches.left]
            try:
                failures = await self._client.delete_batches(batches)
            except TransientFault as fault:
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                continue
            except FatalFault as fault:
                # Harmless here. The pollers meet the same fault, and they stop the process.
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                break
            batches.left = self._undeleted(batches, failures)
        if batches.left:
            self._metrics.deletes_failed.inc(len(batches.left))
        self.finish(batches)

    def _undeleted(self, batches: _Batches, failures: list[EntryFailure]) -> list[Message]:
        """Return the messages of the present batch that are worth another attempt."""
        messages, handles = batches.left, batches.handles
        for failure in failures:
            code = failure.code if failure.code in ENTRY_CODES else "other"
            self._metrics.count_fault(Stage.ACKNOWLEDGE, code)
        # A stale handle stays stale, unless a later delivery has brought a newer one.
        left = [
            messages[failure.index]
            for failure in failures
            if not failure.sender_fault
            or messages[failure.index].receipt_handle != handles[failure.index]
        ]
        if given_up := len(failures) - len(left):
            self._metrics.deletes_failed.inc(given_up)
            batches.given_up += given_up
        return left

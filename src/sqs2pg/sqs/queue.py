"""The queue as the pipeline sees it: poll, hold under lease, acknowledge, release.

A message in hand is *held* from the reply that brought it until it is deleted, released or given
up. While it is held its visibility timeout is extended before it ends, the newest receipt handle
wins, and its count and bytes stand against the budget that polls draw on.

Must never do: delete on its own. `acknowledge` is called by the pipeline, after COMMIT.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import msgspec
import structlog

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.message import Message
from sqs2pg.settings import SourceSettings
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.concurrency import RoundTrip
from sqs2pg.sqs.gate import Gate
from sqs2pg.sqs.leases import Hand, Lease
from sqs2pg.sqs.wire import EntryFailure
from sqs2pg.telemetry.metrics import Metrics

BATCH = 10
"""Entries of one receive, delete or visibility request. AWS SQS API reference."""
LEASE_TOTAL_S = 43_200
"""SQS's limit on how long one receive can be extended: twelve hours."""
SUSPECT_RECEIVES = 10
"""Deliveries that make a message a suspect on a queue without a redrive policy."""
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
"""Codes of failed batch entries that are counted by name: what a server says is no label."""
_DELETE_TRIES = 3
_RELEASE_TRIES = 2  # of entries that failed through no fault of ours
_STALLED_S = 0.25
"""Without an answer for so long, the deletes under way are not counted on."""
_FIRST_POLL_BYTES = 2**20  # reserved for a poll while no body has been seen yet

log = structlog.get_logger(__name__)


class _Settled:
    """Batches of ten out of the line of settled messages: what one deleter deletes."""

    def __init__(self, source: QueueSource) -> None:
        self._source = source
        self.queue_url = source.queue_url
        self.messages: list[Message] = []
        """The present batch: in hand until SQS has answered."""
        self.left: list[Message] = []
        """Those of it that are not known to be deleted."""
        self.handles: list[str] = []
        """Theirs, as sent."""
        self.given_up = 0
        """Messages of it that SQS will not delete."""
        self.tries = 0
        self.sent = 0.0
        """time.monotonic() of the present batch's first request."""

    def take(self) -> bool:
        """Make the next ten the present batch; False where nothing is left."""
        settled = self._source.settled
        if not settled:
            return False
        self.messages = self.left = settled.popleft()
        self.given_up = self.tries = 0
        self.sent = time.monotonic()
        return True

    def advance(self) -> bool:
        """As Batches.advance."""
        source = self._source
        if not source.settled:
            return False
        self.left = []
        source.let_go_of(self)
        self.take()
        self.tries = 1
        self.handles = [message.receipt_handle for message in self.left]
        return True


class QueueSource:
    """One queue, shared by all pollers and writers of the process."""

    def __init__(
        self,
        client: SqsClient,
        queue_url: str,
        settings: SourceSettings,
        metrics: Metrics,
        *,
        message_attributes: Sequence[str] = (),
    ) -> None:
        """`message_attributes` names those of the producer's that are asked for."""
        self._message_attributes = message_attributes
        self._client = client
        self.queue_url = queue_url
        self._settings = settings
        self._metrics = metrics
        self._hand = Hand()
        self._extensions: set[asyncio.Task[None]] = set()
        self._reserved_messages = 0
        self._reserved_bytes = 0
        self._poll_bytes = _FIRST_POLL_BYTES
        self._room = Gate()
        self.settled: deque[list[Message]] = deque()
        """Messages whose outcome is durable, by ten, waiting for a deleter."""
        self._deleters: set[asyncio.Task[None]] = set()
        self._deleting = RoundTrip()
        self.receiving = RoundTrip()
        """Of polls that came back full: others wait for messages."""
        self._last_deleted = 0.0
        self._last_poll = math.nan
        # Read when they are asked for, which is seldomer than they change.
        metrics.in_flight_messages.set_function(lambda: self.held_count)
        metrics.in_flight_bytes.set_function(lambda: self._hand.bytes)
        metrics.last_poll.set_function(lambda: self._last_poll)

    @property
    def held_count(self) -> int:
        """Messages in hand."""
        return len(self._hand.by_id)

    def held(self) -> list[Message]:
        """Return the messages in hand."""
        return self._hand.messages()

    async def poll(
        self,
        *,
        wait_s: int | None = None,
        go_on: Callable[[int], bool] = lambda _count: False,
        took: Callable[[list[Message], int], None] = lambda _messages, _count: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Message], int]:
        """Receive up to ten messages that are not in hand yet; wait for budget first.

        Returns the new messages, now held, and how many came in all: a message that is in hand
        already (its lease had run out) only brings its newer receipt handle.

        While there is budget and `go_on` of the number that came says so, new messages and
        number go to `took` instead, and the next poll is sent at once on the same connection.
        A poll that `stopped` while it waited for budget is not sent, and brings nothing.
        Raises TransientFault or FatalFault of the client, for the last poll.
        """
        while not self._has_room():
            self._room.close()
            await self._room.passed()
            if stopped():
                return [], 0
        reserved = self._poll_bytes
        self._reserved_messages += BATCH
        self._reserved_bytes += reserved

        began = time.monotonic()

        def take(messages: list[Message]) -> bool:
            nonlocal began
            # What is reserved for this poll stands for the next one.
            if not (go_on(len(messages)) and self._has_room()):
                return False
            took(self._receive(messages, began), len(messages))
            began = time.monotonic()
            return True

        try:
            messages = await self._client.receive_on(
                take,
                self.queue_url,
                max_messages=BATCH,
                wait_s=self._settings.wait_time_s if wait_s is None else wait_s,
                visibility_timeout_s=self._settings.visibility_timeout_s,
                message_attributes=self._message_attributes,
            )
            return self._receive(messages, began), len(messages)
        finally:
            self._reserved_messages -= BATCH
            self._reserved_bytes -= reserved
            self._signal_room()

    def _receive(self, messages: list[Message], began: float) -> list[Message]:
        """Take what a poll brought in hand; return the messages that were not before."""
        self._last_poll = time.time()
        if not messages:
            return messages
        now = time.monotonic()
        count = len(messages)
        if count == BATCH:
            self.receiving.note(now - began, now)
        self._metrics.requests.reply(count, now - began)
        hand = self._hand
        fresh = hand.take(messages, began, began + self._settings.visibility_timeout_s)
        if fresh is not messages:
            self._metrics.leases_lost.inc(count - len(fresh))
        # Up at once, down slowly: the next poll sets aside what a large reply would need.
        self._poll_bytes = max(BATCH * max(hand.largest, 1024), self._poll_bytes * 7 // 8)
        return fresh

    def _has_room(self) -> bool:
        hand = self._hand
        messages = len(hand.by_id) + self._reserved_messages + BATCH
        size = hand.bytes + self._reserved_bytes + self._poll_bytes
        # One poll is always allowed: a budget below one reply must not stop the pipeline.
        return (
            messages <= self._settings.in_flight_messages_max
            and size <= self._settings.in_flight_bytes_max
        ) or not (hand.by_id or self._reserved_messages)

    def _signal_room(self) -> None:
        if not self._room.is_open and self._has_room():
            self._room.open()

    def drop(self, messages: list[Message]) -> None:
        """Let messages go from hand and budget, without a word to SQS."""
        self._hand.drop(messages)
        if not self._room.is_open:
            self._signal_room()

    def acknowledge(self, messages: list[Message]) -> None:
        """Delete messages whose outcome is durable, in the background.

        They leave hand and budget when SQS has answered. A delete that fails in the end is
        harmless: the message comes again and the ledger knows it.
        """
        settled, start = self.settled, 0
        if settled and len(settled[-1]) < BATCH:
            start = BATCH - len(settled[-1])
            settled[-1] += messages[:start]
        settled.extend([messages[at : at + BATCH] for at in range(start, len(messages), BATCH)])
        # Ten at a time, whatever batch they were of; none waits behind a request that stalls.
        for _ in range(self._deleters_wanted()):
            task = asyncio.create_task(self._delete_settled())
            self._deleters.add(task)

    def _deleters_wanted(self) -> int:
        """Return how many deleters to start: as many requests at once as the latency asks for.

        More would only be more connections to look after; those under way count, as long as
        answers come.
        """
        requests = len(self.settled)
        at_once = min(requests, self._deleting.at_once(requests))
        under_way = len(self._deleters)
        if time.monotonic() - self._last_deleted < _STALLED_S:
            at_once -= under_way
        return min(at_once, self._settings.receivers_max - under_way)

    async def acknowledged(self) -> None:
        """Wait for the deletes under way."""
        while self._deleters:
            await asyncio.wait(self._deleters)

    async def _delete_settled(self) -> None:
        batches = _Settled(self)
        try:
            while batches.take():
                await self._delete(batches)
        finally:
            # Now, not when the task is done: who comes in between must not count on this one.
            self._deleters.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _delete(self, batches: _Settled) -> None:
        """Delete the present batch and those that follow it, through faults of the last."""
        while batches.left and batches.tries < _DELETE_TRIES:
            batches.tries += 1
            batches.handles = [message.receipt_handle for message in batches.left]
            try:
                failures = await self._client.delete_on(batches)
            except TransientFault as fault:
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                continue
            except FatalFault as fault:
                # Harmless here, and the pollers meet it too: they stop the process.
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                break
            batches.left = self._undeleted(batches, failures)
        if batches.left:
            self._metrics.deletes_failed.inc(len(batches.left))
        self.let_go_of(batches)

    def let_go_of(self, batches: _Settled) -> None:
        """The present batch has come to its end: note it and drop it from hand and budget."""
        now = self._last_deleted = time.monotonic()
        took_s = now - batches.sent
        if batches.tries == 1:
            self._deleting.note(took_s, now)
        gone = len(batches.messages) - len(batches.left) - batches.given_up
        self._metrics.requests.delete(gone, took_s)
        self.drop(batches.messages)

    def _undeleted(self, batches: _Settled, failures: list[EntryFailure]) -> list[Message]:
        """Return those of the present batch that are worth another try."""
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

    async def release(self, messages: list[Message]) -> None:
        """Make messages visible again at once and let them go. Best effort: a lease that cannot
        be given back runs out by itself.
        """
        batches = [messages[i : i + BATCH] for i in range(0, len(messages), BATCH)]

        async def give_back(batch: list[Message]) -> None:
            handles = [message.receipt_handle for message in batch]
            for _ in range(_RELEASE_TRIES):
                try:
                    failures = await self._client.change_visibility(self.queue_url, handles, 0)
                except (TransientFault, FatalFault) as fault:
                    self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                    return
                handles = [handles[one.index] for one in failures if not one.sender_fault]
                if not handles:
                    return

        await asyncio.gather(*map(give_back, batches))
        self.drop(messages)

    async def keep_leases(self) -> None:
        """Extend every lease that has run a third of its time. Runs until cancelled."""
        timeout_s = self._settings.visibility_timeout_s
        try:
            while True:
                await asyncio.sleep(min(1.0, timeout_s / 12))
                for lease in self._hand.due(time.monotonic() + timeout_s * 2 / 3):
                    lease.extending = True
                    # Not awaited: a request that stalls must not hold up the leases after it.
                    task = asyncio.create_task(self._extend(lease))
                    self._extensions.add(task)
                    task.add_done_callback(self._extensions.discard)
        finally:
            for task in self._extensions:
                task.cancel()

    async def _extend(self, lease: Lease) -> None:
        now = time.monotonic()
        messages = self._hand.under(lease)
        if not messages:
            return  # settled meanwhile
        handles = [message.receipt_handle for message in messages]
        # What is left of the twelve hours; past them the lease just runs out.
        left_s = int(LEASE_TOTAL_S - (now - lease.received)) - 1
        timeout_s = self._settings.visibility_timeout_s
        try:
            failures = await self._client.change_visibility(
                self.queue_url, handles, max(0, min(timeout_s, left_s))
            )
        except (TransientFault, FatalFault) as fault:
            # Tried again at the next turn; a fatal one is met by the pollers, who stop.
            self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
            return
        finally:
            lease.extending = False
        self._metrics.lease_extensions.inc(len(messages) - len(failures))
        hand = self._hand
        lost = Lease([], lease.received, now + LEASE_TOTAL_S, lease.share)
        again = Lease([], lease.received, lease.expires, lease.share)
        for failure in failures:
            message = messages[failure.index]
            held = hand.by_id.get(message.message_id) is lease
            if held and message.receipt_handle == handles[failure.index]:
                # Lost: another consumer may have it. Keep working; the ledger decides.
                hand.move(message, lost if failure.sender_fault else again)
        self._metrics.leases_lost.inc(len(lost.messages))
        if lease.left:
            lease.expires = now + timeout_s
            hand.put_last(lease)
        if lost.left:
            hand.leave_out(lost)  # it is not asked for again
        if again.left:
            hand.put_first(again)  # it is asked for again at the next turn

    async def max_receives(self) -> int:
        """Return how many deliveries make a message a suspect: the setting, else one below the
        queue's maxReceiveCount, so that it is tried alone once before SQS moves it away.
        """
        if self._settings.max_receives:
            return self._settings.max_receives
        answer = await self._client.attributes(self.queue_url, ["RedrivePolicy"])
        try:
            policy = msgspec.json.decode(answer.get("RedrivePolicy", "{}"))
            return max(2, int(policy["maxReceiveCount"]) - 1)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            return SUSPECT_RECEIVES

    async def depth(self) -> tuple[int, int, int]:
        """Return the queue's approximate counts: visible, in flight, delayed."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        answer = await self._client.attributes(self.queue_url, names)
        visible, in_flight, delayed = (int(answer.get(name, 0)) for name in names)
        return visible, in_flight, delayed

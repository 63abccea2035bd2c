"""The queue as the pipeline sees it: poll, hold under lease, acknowledge, release.

A message is held from the reply that brought it until it is deleted, released or given up. While it
is held, its visibility timeout is extended before it ends, its newest receipt handle is kept, and
its bytes count against the budget for polls.

Must never delete on its own: the pipeline calls `acknowledge`, after COMMIT.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.message import Message
from sqs2pg.settings import SourceSettings
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.deleter import Deleter
from sqs2pg.sqs.gate import Gate
from sqs2pg.sqs.in_flight import MESSAGE_BYTES, InFlight
from sqs2pg.sqs.leases import Lease, Leases
from sqs2pg.sqs.odd_deliveries import bounded
from sqs2pg.sqs.turns import AT_ONCE, Turn, Turns
from sqs2pg.sqs.wire import BATCH_MAX, read_counts
from sqs2pg.telemetry.metrics import Metrics

LEASE_TOTAL_S = 43_200
"""How long one receive can be extended in all: SQS's limit of twelve hours."""
SUSPECT_RECEIVES = 10
"""Deliveries that make a message a suspect on a queue without a redrive policy."""
_RELEASE_ATTEMPTS_MAX = 2
_FIRST_POLL_BYTES = 2**20
"""Reserved for a poll as long as no body has been seen."""
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class QueueSource:
    """One queue, shared by all pollers and writers of a pipeline."""

    def __init__(
        self,
        client: SqsClient,
        queue_url: str,
        settings: SourceSettings,
        metrics: Metrics,
        *,
        message_attributes: Sequence[str] = (),
        in_flight: InFlight | None = None,
        redrive_policy: str | None = None,
        turn: Turn | None = None,
    ) -> None:
        """`message_attributes` names the producer's attributes to ask for. `in_flight`: what the
        queues of the process may hold together; call `leave` at the end. `redrive_policy`: the
        queue's, if it was just read; "" if it has none. `turn`: its own among the queues of the
        process.
        """
        self.turn = turn or Turns().join()
        """Its turn to receive where several have a backlog."""
        self._in_flight = in_flight or InFlight(sys.maxsize)
        self._message_attributes = message_attributes
        self._redrive_policy = redrive_policy
        self._client = client
        self.queue_url = queue_url
        self._settings = settings
        self._metrics = metrics
        self._leases = Leases()
        self._extensions: set[asyncio.Task[None]] = set()
        self._reserved_messages = 0
        self._reserved_bytes = 0
        self._noted = 0  # the load that the process knows of
        self._poll_bytes = _FIRST_POLL_BYTES
        self.room = Gate()
        """Closed while a poll waits for room in the budget. Read only."""
        self.deleter = Deleter(
            client,
            queue_url,
            metrics,
            requests_max=settings.receivers_max,
            on_end=self._stop_holding,
            round_trip=self.turn.deleting,
        )
        self.receiving = self.turn.receiving
        """Of polls that came back full. The time of other polls depends on when messages come."""
        self._last_poll = math.nan
        # Computed when a scrape asks for them: they change far more often than that.
        metrics.in_flight_messages.set_function(lambda: self.held_count)
        metrics.in_flight_bytes.set_function(lambda: self._leases.bytes)
        metrics.last_poll.set_function(lambda: self._last_poll)
        self._in_flight.join(self, self._tell_load)

    @property
    def is_fifo(self) -> bool:
        """Whether order within a message group counts. SQS: the name of a FIFO queue ends so."""
        return self.queue_url.endswith(".fifo")

    @property
    def polls_max(self) -> int:
        """How many polls at once leave every queue of the process its share of the connections.

        An idle poll holds its connection for `wait_time_s`: with more, one queue's would keep
        another one from receiving.
        """
        share = self._client.polls.connections_max // self._in_flight.queues
        return max(1, min(self._settings.receivers_max, share))

    @property
    def turn_polls_max(self) -> int:
        """How many polls at once it may make in its turn.

        Those beyond `polls_max` must not wait for messages.
        """
        # One part more: the polls of the turn before may not have come back.
        share = (self._client.polls.connections_max - self._in_flight.queues) // (AT_ONCE + 1)
        return max(self.polls_max, min(self._settings.receivers_max, share))

    @property
    def held_count(self) -> int:
        """How many messages are held."""
        return len(self._leases.by_id)

    def held(self) -> list[Message]:
        """Return the held messages."""
        return self._leases.messages()

    async def poll(
        self,
        *,
        wait_s: int | None = None,
        max_messages: int = BATCH_MAX,
        keep_polling: Callable[[int], bool] = lambda _count: False,
        on_messages: Callable[[list[Message], int], None] = lambda _messages, _count: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Message], int]:
        """Receive up to `max_messages` messages that are not held yet; wait for budget first.

        `max_messages`: 1 to 10. Returns the new messages, which are now held, and how many messages
        came in all. If one was held already (its lease had run out), only its newer receipt handle
        is kept.

        After each reply, as long as there is budget and `keep_polling(count)` is true, the new
        messages and the count go to `on_messages` instead, and the next poll is sent at once on
        the same connection. If `stopped()` is true after the wait for budget, no poll is sent.
        Raises the client's TransientFault or FatalFault for the last poll.
        """
        while not self._has_room():
            self.room.close()
            self._in_flight.wait(self, self._signal_room)
            await self.room.wait()
            if stopped():
                return [], 0
        reserved = self._poll_bytes
        self._reserved_messages += BATCH_MAX
        self._reserved_bytes += reserved
        self._note_load()

        began = time.monotonic()

        def take(messages: list[Message]) -> bool:
            nonlocal began
            # The reservation of this poll serves the next one.
            if not (self._has_room() and keep_polling(len(messages))):
                return False
            on_messages(self._receive(messages, began), len(messages))
            began = time.monotonic()
            return True

        try:
            messages = await self._client.receive_while(
                take,
                self.queue_url,
                max_messages=max_messages,
                wait_s=self._settings.wait_time_s if wait_s is None else wait_s,
                visibility_timeout_s=self._settings.visibility_timeout_s,
                message_attributes=self._message_attributes,
            )
            return self._receive(messages, began), len(messages)
        finally:
            self._reserved_messages -= BATCH_MAX
            self._reserved_bytes -= reserved
            self._note_load()
            self._signal_room()

    def _receive(self, messages: list[Message], began: float) -> list[Message]:
        """Hold a poll's messages; return those that were not held before."""
        client, clock_s = self._client, time.time()
        self._last_poll = clock_s
        if not messages:
            return messages
        messages = bounded(messages, clock_s + client.skew_s)
        now = time.monotonic()
        count = len(messages)
        if count == BATCH_MAX:
            self.receiving.observe(now - began, now)
        self._metrics.requests.reply(count, now - began)
        leases = self._leases
        fresh = leases.hold(messages, began, began + self._settings.visibility_timeout_s)
        if fresh is not messages:
            self._metrics.leases_lost.inc(count - len(fresh))
        # Up at once, down slowly: the next poll reserves what a large reply would need.
        self._poll_bytes = max(BATCH_MAX * max(leases.largest, 1024), self._poll_bytes * 7 // 8)
        self._note_load()
        return fresh

    def _has_room(self) -> bool:
        leases = self._leases
        messages = len(leases.by_id) + self._reserved_messages + BATCH_MAX
        size = leases.bytes + self._reserved_bytes + self._poll_bytes
        # One poll is always allowed: a budget below one reply must not stop the pipeline.
        return (
            messages <= self._settings.in_flight_messages_max
            and size <= self._settings.in_flight_bytes_max
            and self._in_flight.has_room(self, size + messages * MESSAGE_BYTES)
        ) or not (leases.by_id or self._reserved_messages)

    def _load(self) -> int:
        """Return how many bytes are held and reserved, rounded up to a step of the process's."""
        leases, step = self._leases, self._in_flight.step
        messages = len(leases.by_id) + self._reserved_messages
        load = leases.bytes + self._reserved_bytes + messages * MESSAGE_BYTES
        return -(-load // step) * step

    def _tell_load(self) -> int:
        self._noted = self._load()
        return self._noted

    def _note_load(self) -> None:
        # The only queue is asked; and most changes stay within a step.
        if self._in_flight.queues > 1 and (load := self._load()) != self._noted:
            self._noted = load
            self._in_flight.note(self, load)

    def _signal_room(self) -> None:
        if self.room.is_open:
            return
        if self._has_room():
            self.room.open()
        else:
            self._in_flight.wait(self, self._signal_room)

    def leave(self) -> None:
        """Count no longer in what the process holds: the pipeline is closed."""
        self._in_flight.leave(self)

    def _stop_holding(self, messages: list[Message]) -> None:
        """Hold these messages no longer: they leave the budget. Sends nothing to SQS."""
        self._leases.release(messages)
        self._note_load()
        if not self.room.is_open:
            self._signal_room()

    def acknowledge(self, messages: list[Message]) -> None:
        """Delete messages whose outcome is durable, in the background.

        They stay held and in the budget until SQS has answered. A delete that fails in the end
        is harmless: SQS delivers the message again, and the ledger knows it.
        """
        self.deleter.delete(messages)

    async def acknowledged(self) -> None:
        """Wait until no delete is under way."""
        await self.deleter.finished()

    async def release(self, messages: list[Message], visible_in_s: int = 0) -> None:
        """Hold messages no longer, and make them visible on the queue again in so many seconds.

        Best effort: if SQS cannot be reached, the lease runs out by itself.
        """
        batches = [messages[i : i + BATCH_MAX] for i in range(0, len(messages), BATCH_MAX)]

        async def make_visible(batch: list[Message]) -> None:
            handles = [message.receipt_handle for message in batch]
            for _ in range(_RELEASE_ATTEMPTS_MAX):
                try:
                    failures = await self._client.change_visibility(
                        self.queue_url, handles, visible_in_s
                    )
                except (TransientFault, FatalFault) as fault:
                    self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                    return
                handles = [handles[failed.index] for failed in failures if not failed.sender_fault]
                if not handles:
                    return

        await asyncio.gather(*map(make_visible, batches))
        self._stop_holding(messages)

    async def keep_leases(self) -> None:
        """Extend each lease when a third of its time is over. Runs until cancelled."""
        timeout_s = self._settings.visibility_timeout_s
        try:
            while True:
                await asyncio.sleep(min(1.0, timeout_s / 12))
                for lease in self._leases.due(time.monotonic() + timeout_s * 2 / 3):
                    lease.extending = True
                    # Not awaited: a stalled request must not delay the other leases.
                    task = asyncio.create_task(self._extend(lease))
                    self._extensions.add(task)
                    task.add_done_callback(self._extensions.discard)
        finally:
            for task in self._extensions:
                task.cancel()

    async def _extend(self, lease: Lease) -> None:
        now = time.monotonic()
        messages = self._leases.under(lease)
        if not messages:
            return  # all of its messages were settled in the meantime
        handles = [message.receipt_handle for message in messages]
        # The rest of the twelve hours; after them the lease runs out.
        left_s = int(LEASE_TOTAL_S - (now - lease.received)) - 1
        timeout_s = self._settings.visibility_timeout_s
        try:
            failures = await self._client.change_visibility(
                self.queue_url, handles, max(0, min(timeout_s, left_s))
            )
        except (TransientFault, FatalFault) as fault:
            # Tried again at the next turn. The pollers meet a fatal fault too, and stop.
            self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
            return
        finally:
            lease.extending = False
        self._metrics.lease_extensions.inc(len(messages) - len(failures))
        leases = self._leases
        lost = Lease([], lease.received, now + LEASE_TOTAL_S, lease.share)
        again = Lease([], lease.received, lease.expires, lease.share)
        for failure in failures:
            message = messages[failure.index]
            held = leases.by_id.get(message.message_id) is lease
            if held and message.receipt_handle == handles[failure.index]:
                # If lost, another consumer may have it. Keep working: the ledger decides.
                leases.move(message, lost if failure.sender_fault else again)
        self._metrics.leases_lost.inc(len(lost.messages))
        if lease.left:
            lease.expires = now + timeout_s
            leases.move_last(lease)
        if lost.left:
            leases.stop_extending(lost)
        if again.left:
            leases.move_first(again)  # tried again at the next turn

    async def max_receives(self) -> int:
        """Return how many deliveries make a message a suspect.

        That is the setting, else one below the queue's maxReceiveCount, so that the message is
        tried alone once before SQS moves it to the dead-letter queue. The policy is read at each
        call, unless it was just read.
        """
        if self._settings.max_receives:
            return self._settings.max_receives
        given, self._redrive_policy = self._redrive_policy, None
        if given is None:
            answer = await self._client.attributes(self.queue_url, ["RedrivePolicy"])
            given = answer.get("RedrivePolicy", "")
        try:
            policy = msgspec.json.decode(given or "{}")
            return max(2, int(policy["maxReceiveCount"]) - 1)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, OverflowError):
            return SUSPECT_RECEIVES

    async def depth(self) -> tuple[int, int, int]:
        """Return the queue's approximate counts: visible, in flight, delayed.

        Raises TransientFault if the answer has no counts: that is not an empty queue.
        """
        return await read_depth(self._client, self.queue_url)


async def read_depth(client: SqsClient, queue_url: str) -> tuple[int, int, int]:
    """As `QueueSource.depth`, of any queue."""
    answer = await client.attributes(queue_url, _COUNTS)
    visible, in_flight, delayed = read_counts(answer, _COUNTS)
    return visible, in_flight, delayed

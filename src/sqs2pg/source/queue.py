"""The queue as the pipeline sees it: poll, hold under lease, acknowledge, release.

A message in hand is *held* from the reply that brought it until it is deleted, released or given
up. While it is held its visibility timeout is extended before it ends, the newest receipt handle
wins, and its count and bytes stand against the budget that polls draw on.

Must never do: delete on its own. `acknowledge` is called by the pipeline, after COMMIT.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import msgspec
import structlog

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.message import Message
from sqs2pg.metrics import Metrics
from sqs2pg.settings import Source
from sqs2pg.source.client import SqsClient

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
_FIRST_POLL_BYTES = 2**20  # reserved for a poll while no body has been seen yet

log = structlog.get_logger(__name__)


class Held(msgspec.Struct, eq=False, gc=False):
    """One message in hand."""

    message: Message
    size: int
    """Bytes of the body, as UTF-8 at the most."""
    received: float
    """time.monotonic() before the receive was sent: the lease began no earlier."""
    expires: float
    """time.monotonic() at which the visibility timeout ends, at the earliest."""


class QueueSource:
    """One queue, shared by all pollers and writers of the process."""

    def __init__(
        self, client: SqsClient, queue_url: str, settings: Source, metrics: Metrics
    ) -> None:
        self._client = client
        self.queue_url = queue_url
        self._settings = settings
        self._metrics = metrics
        self._held: dict[str, Held] = {}  # by MessageId, soonest to expire first
        self._bytes = 0
        self._reserved_messages = 0
        self._reserved_bytes = 0
        self._poll_bytes = _FIRST_POLL_BYTES
        self._room = asyncio.Event()
        self._room.set()
        self._deletes: set[asyncio.Task[None]] = set()
        # Read when they are asked for, which is seldomer than they change.
        metrics.in_flight_messages.set_function(lambda: len(self._held))
        metrics.in_flight_bytes.set_function(lambda: self._bytes)

    @property
    def held_count(self) -> int:
        """Messages in hand."""
        return len(self._held)

    def held(self) -> list[Message]:
        """Return the messages in hand."""
        return [held.message for held in self._held.values()]

    async def poll(self, *, wait_s: int | None = None) -> tuple[list[Message], int]:
        """Receive up to ten messages that are not in hand yet; wait for budget first.

        Returns the new messages, now held, and how many came in all: a message that is in hand
        already (its lease had run out) only brings its newer receipt handle.
        Raises TransientFault or FatalFault of the client.
        """
        reserved = await self._reserve()
        try:
            began = time.monotonic()
            messages = await self._client.receive(
                self.queue_url,
                max_messages=BATCH,
                wait_s=self._settings.wait_time_s if wait_s is None else wait_s,
                visibility_timeout_s=self._settings.visibility_timeout_s,
            )
            self._metrics.last_poll.set_to_current_time()
            self._metrics.received.inc(len(messages))
            return self._hold(messages, began), len(messages)
        finally:
            self._reserved_messages -= BATCH
            self._reserved_bytes -= reserved
            self._signal_room()

    async def _reserve(self) -> int:
        """Wait until ten more messages fit; return the bytes set aside for them."""
        while not self._has_room():
            self._room.clear()
            await self._room.wait()
        self._reserved_messages += BATCH
        self._reserved_bytes += self._poll_bytes
        return self._poll_bytes

    def _has_room(self) -> bool:
        messages = len(self._held) + self._reserved_messages + BATCH
        size = self._bytes + self._reserved_bytes + self._poll_bytes
        # One poll is always allowed: a budget below one reply must not stop the pipeline.
        return (
            messages <= self._settings.in_flight_messages_max
            and size <= self._settings.in_flight_bytes_max
        ) or not (self._held or self._reserved_messages)

    def _signal_room(self) -> None:
        if self._has_room():
            self._room.set()

    def _hold(self, messages: Sequence[Message], began: float) -> list[Message]:
        fresh: list[Message] = []
        expires = began + self._settings.visibility_timeout_s
        largest = 0
        for message in messages:
            size = len(message.body)
            if not message.body.isascii():
                size *= 3
            largest = max(largest, size)
            if known := self._held.pop(message.message_id, None):
                self._metrics.leases_lost.inc()
                known.message.receipt_handle = message.receipt_handle
                known.received, known.expires = began, expires
                self._held[message.message_id] = known
                continue
            self._held[message.message_id] = Held(message, size, began, expires)
            self._bytes += size
            fresh.append(message)
        if messages:
            # Up at once, down slowly: the next poll sets aside what a large reply would need.
            seen = BATCH * max(largest, 1024)
            self._poll_bytes = max(seen, self._poll_bytes * 7 // 8)
        return fresh

    def drop(self, messages: Iterable[Message]) -> None:
        """Let messages go from hand and budget, without a word to SQS."""
        for message in messages:
            if held := self._held.pop(message.message_id, None):
                self._bytes -= held.size
        self._signal_room()

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Delete messages whose outcome is durable, in the background.

        They leave hand and budget when SQS has answered. A delete that fails in the end is
        harmless: the message comes again and the ledger knows it.
        """
        for start in range(0, len(messages), BATCH):
            task = asyncio.create_task(self._delete(messages[start : start + BATCH]))
            self._deletes.add(task)
            task.add_done_callback(self._deletes.discard)

    async def acknowledged(self) -> None:
        """Wait for the deletes under way."""
        while self._deletes:
            await asyncio.wait(self._deletes)

    async def _delete(self, messages: Sequence[Message]) -> None:
        left = list(messages)
        for _ in range(_DELETE_TRIES):
            try:
                handles = [message.receipt_handle for message in left]
                failures = await self._client.delete(self.queue_url, handles)
            except TransientFault as fault:
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                continue
            except FatalFault as fault:
                # Harmless here, and the pollers meet it too: they stop the process.
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
                break
            for failure in failures:
                code = failure.code if failure.code in ENTRY_CODES else "other"
                self._metrics.count_fault(Stage.ACKNOWLEDGE, code)
            # A stale handle stays stale, unless a later delivery has brought a newer one.
            left = [
                left[failure.index]
                for failure in failures
                if not failure.sender_fault
                or left[failure.index].receipt_handle != handles[failure.index]
            ]
            given_up = len(failures) - len(left)
            if given_up:
                self._metrics.deletes_failed.inc(given_up)
            if not left:
                break
        if left:
            self._metrics.deletes_failed.inc(len(left))
        self.drop(messages)

    async def release(self, messages: Sequence[Message]) -> None:
        """Make messages visible again at once and let them go. Best effort: a lease that cannot
        be given back runs out by itself.
        """
        batches = [messages[i : i + BATCH] for i in range(0, len(messages), BATCH)]

        async def give_back(batch: Sequence[Message]) -> None:
            handles = [message.receipt_handle for message in batch]
            try:
                await self._client.change_visibility(self.queue_url, handles, 0)
            except (TransientFault, FatalFault) as fault:
                self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)

        await asyncio.gather(*map(give_back, batches))
        self.drop(messages)

    async def keep_leases(self) -> None:
        """Extend every lease that has run a third of its time. Runs until cancelled."""
        timeout_s = self._settings.visibility_timeout_s
        while True:
            await asyncio.sleep(min(1.0, timeout_s / 12))
            await self._extend_due(time.monotonic() + timeout_s * 2 / 3)

    async def _extend_due(self, due: float) -> None:
        now = time.monotonic()
        batch: list[Held] = []
        tasks = []
        for held in self._held.values():
            if held.expires > due:
                break  # soonest first
            batch.append(held)
            if len(batch) == BATCH:
                tasks.append(self._extend(batch, now))
                batch = []
        if batch:
            tasks.append(self._extend(batch, now))
        await asyncio.gather(*tasks)

    async def _extend(self, batch: Sequence[Held], now: float) -> None:
        timeout_s = self._settings.visibility_timeout_s
        # What is left of the twelve hours; past them the lease just runs out.
        left_s = min(int(LEASE_TOTAL_S - (now - held.received)) for held in batch)
        handles = [held.message.receipt_handle for held in batch]
        try:
            failures = await self._client.change_visibility(
                self.queue_url, handles, max(0, min(timeout_s, left_s - 1))
            )
        except TransientFault as fault:
            self._metrics.count_fault(Stage.ACKNOWLEDGE, fault.code)
            return
        failed = {failure.index for failure in failures}
        self._metrics.lease_extensions.inc(len(batch) - len(failed))
        self._metrics.leases_lost.inc(len(failed))
        for index, held in enumerate(batch):
            message_id = held.message.message_id
            if self._held.get(message_id) is not held:
                continue  # acknowledged meanwhile
            if index in failed and held.message.receipt_handle == handles[index]:
                # Lost: another consumer may have it. Keep working; the ledger decides.
                held.expires = now + LEASE_TOTAL_S
            elif index not in failed:
                held.expires = now + timeout_s
            self._held[message_id] = self._held.pop(message_id)

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

"""The buffer: messages between the pollers that bring them and the writers that take them.

Place in the flow: after receive, before decode. In memory, bounded by the source's budget, in order
of arrival. On FIFO queues one batch per message group is in flight. Messages of a standard queue
may have a MessageGroupId too (fair queues), which says nothing of their order. No I/O.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate, takewhile

from sqs2pg.message import Message
from sqs2pg.sqs.gate import Gate

BACKLOG_REPLIES = 16
"""The queue has a backlog after so many full replies; each one that is not full halves their count.
At a steady rate replies take what has come since the last poll, and few of them are full."""
BACKLOG_LINGERS = 5
"""How many times as long a batch may wait to fill up while there is a backlog. A transaction has a
fixed cost of about a millisecond in the process and another one in PostgreSQL, and the messages
have waited much longer already."""
TURN_WAIT_S = 10.0
"""How long a batch may wait to fill up in its queue's turn (`sqs/turns.py`), seconds."""
TURN_LOOK_S = 1.0
"""How often it looks whether that is still worth while, though nobody wakes it."""


class Buffer:
    """Messages between pollers and writers, in order of arrival.

    On a FIFO queue one batch per message group is in flight: while a writer has messages of a
    group, the group's other messages wait here until the writer is `done`.
    """

    def __init__(
        self,
        full_at: int = 4_000,
        *,
        fifo: bool = False,
        load_of: Callable[[Message], float] | None = None,
    ) -> None:
        """`full_at`: with this many messages it is full; at half of them it has room again.
        `fifo`: the messages come from a FIFO queue. `load_of`: which part of a batch a message may
        be; a batch of several has no more than 1.
        """
        self.fills: Callable[[int], bool] = lambda _count: False
        """Whether a batch of so many messages is to wait for its queue's turn, or the end of it."""
        self._load_of = load_of
        self._full_at = full_at
        self._fifo = fifo
        self._room = Gate()
        self.messages: deque[Message] = deque()
        """Those that wait; only to be read."""
        self._busy_groups: set[str] = set()
        self._under_way = 0
        self._changed = asyncio.Event()
        self._more = False
        self._full_replies = 0  # those that were not full count against them
        self.filling = False
        """Whether the queue has a backlog, by most of its replies. Read only."""
        self._enough = 1  # messages that are worth waking a writer for

    def __len__(self) -> int:
        return len(self.messages)

    def put(self, messages: Sequence[Message], *, more: bool = False) -> None:
        """Add messages at the end. `more`: the reply was full, so the queue holds more."""
        self.messages.extend(messages)
        self._more = more
        full_replies = self._full_replies + 1 if more else self._full_replies // 2
        self._full_replies, self.filling = full_replies, full_replies >= BACKLOG_REPLIES
        waiting = len(self.messages)
        if waiting >= self._enough or not self._worth_waiting():
            self._changed.set()
        if waiting >= self._full_at:
            self._room.close()

    @property
    def backlog(self) -> bool:
        """Whether the queue has a backlog, and the last reply was full."""
        return self._more and self.filling

    def hold(self) -> None:
        """Be full for now: until a batch is taken and no more than half is left."""
        if len(self.messages) > self._full_at // 2:
            self._room.close()

    def wake(self) -> None:
        """Have a writer that waits look again."""
        self._changed.set()

    @property
    def full(self) -> bool:
        """Whether more messages would only wait, because writing is the limit. None is refused."""
        return not self._room.is_open

    def would_fill(self, count: int) -> bool:
        """Whether it is full, or would be with `count` more."""
        return len(self.messages) + count >= self._full_at or not self._room.is_open

    async def room(self) -> None:
        """Wait until it is no longer full."""
        await self._room.wait()

    async def take(self, rows_max: int, linger_s: float) -> list[Message]:
        """Wait for a message, then for more while the batch is not full; return 1 to rows_max.

        A message that comes alone to an idle pipeline is written at once. If more are coming, or
        other batches are under way, a larger batch costs less and delays no message. While the
        queue has a backlog, it waits up to `BACKLOG_LINGERS` times `linger_s`.
        """
        while True:
            while not self.messages:
                self._changed.clear()
                await self._changed.wait()
            if linger_s and len(self.messages) < rows_max and self._worth_waiting():
                await self._linger(rows_max, linger_s)
                if len(self.messages) < rows_max and self.filling:
                    await self._linger(rows_max, (BACKLOG_LINGERS - 1) * linger_s)
                    await self._fill_up(rows_max)
            if batch := self._pick(rows_max):
                if len(self.messages) <= self._full_at // 2:
                    self._room.open()
                self._under_way += 1
                return batch
            self._changed.clear()
            await self._changed.wait()

    def _worth_waiting(self) -> bool:
        return self._more or self._under_way > 0

    async def _linger(
        self, rows_max: int, linger_s: float, fills: Callable[[int], bool] = lambda _count: True
    ) -> None:
        """Wait for a full batch while that is worth while and `fills` of its present size."""
        self._enough = rows_max
        try:
            async with asyncio.timeout(linger_s):
                while (
                    self._worth_waiting()
                    and len(self.messages) < rows_max
                    and fills(len(self.messages))
                ):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self._enough = 1

    async def _fill_up(self, rows_max: int) -> None:
        """Wait for the messages of a turn."""
        late = time.monotonic() + TURN_WAIT_S
        while self.fills(len(self.messages)) and time.monotonic() < late:
            if len(self.messages) >= rows_max or not self._worth_waiting():
                return
            await self._linger(rows_max, TURN_LOOK_S, self.fills)

    def _pick(self, rows_max: int) -> list[Message]:
        messages = self.messages
        if self._load_of is not None:
            rows_max = min(rows_max, self._count_within(self._load_of))
        if not self._fifo:
            whole = list(messages)
            messages.clear()
            messages.extend(whole[rows_max:])
            return whole[:rows_max]
        batch: list[Message] = []
        later: deque[Message] = deque()
        while messages and len(batch) < rows_max:
            message = messages.popleft()
            busy = message.attributes.message_group_id in self._busy_groups
            (later if busy else batch).append(message)
        later.extend(messages)
        self.messages = later
        self._busy_groups.update(m.attributes.message_group_id or "" for m in batch)
        return batch

    def _count_within(self, load_of: Callable[[Message], float]) -> int:
        """Return how many of the first messages make one batch."""
        loads = accumulate(map(load_of, self.messages))
        return max(1, sum(1 for _ in takewhile(lambda load: load <= 1, loads)))

    def put_back(self, messages: Sequence[Message]) -> None:
        """Add messages that were taken before: at the end, on a FIFO queue at the beginning."""
        if self._fifo:
            self.messages.extendleft(reversed(messages))
        else:
            self.messages.extend(messages)
        self._changed.set()

    def take_groups(self, groups: Collection[str]) -> list[Message]:
        """Take the messages of these message groups that wait here; return them."""
        taken = [m for m in self.messages if m.attributes.message_group_id in groups]
        if taken:
            self.messages = deque(
                m for m in self.messages if m.attributes.message_group_id not in groups
            )
            if len(self.messages) <= self._full_at // 2:
                self._room.open()
        return taken

    def done(self, batch: Sequence[Message]) -> None:
        """Free the batch's groups for the next writer, and wake a writer that lingers."""
        self._under_way -= 1
        self._changed.set()
        if self._busy_groups:
            self._busy_groups -= {m.attributes.message_group_id for m in batch}

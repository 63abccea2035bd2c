"""The buffer: messages between the pollers that bring them and the writers that take them.

Place in the flow: after receive, before decode. In memory, bounded by the source's budget. Order is
that of arrival; on FIFO queues one batch is in flight a message group. No I/O.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from sqs2pg.message import Message
from sqs2pg.sqs.gate import Gate


class Buffer:
    """Messages between pollers and writers, in order of arrival.

    On a FIFO queue one batch is in flight a message group: messages of a group that a writer has
    in hand wait here until it is `done` with them.
    """

    def __init__(self, full_at: int = 4_000) -> None:
        """`full_at`: messages at which it has enough; it has room again at half of it."""
        self._full_at = full_at
        self._room = Gate()
        self.messages: deque[Message] = deque()
        """Those that wait; to read only."""
        self._busy_groups: set[str] = set()
        self._under_way = 0
        self._changed = asyncio.Event()
        self._more = False
        self._enough = 1  # messages that are worth waking a writer for

    def __len__(self) -> int:
        return len(self.messages)

    def put(self, messages: Sequence[Message], *, more: bool = False) -> None:
        """Add messages at the end; `more`: the reply was full, so the queue holds more."""
        self.messages.extend(messages)
        self._more = more
        if len(self.messages) >= self._enough or not self._worth_waiting():
            self._changed.set()
        if len(self.messages) >= self._full_at:
            self._room.close()

    @property
    def full(self) -> bool:
        """Whether more would only wait: writing is what limits. Nothing is refused."""
        return not self._room.is_open

    def would_fill(self, count: int) -> bool:
        """Whether it is full, or would be with `count` more."""
        return len(self.messages) + count >= self._full_at or not self._room.is_open

    async def room(self) -> None:
        """Wait until it is no longer full."""
        await self._room.wait()

    async def take(self, rows_max: int, linger_s: float) -> list[Message]:
        """Wait for a message, linger for more unless the batch is full; return 1 to rows_max.

        A message that comes alone to an idle pipeline is written at once. Where more are coming,
        or other batches are under way, a larger batch costs less and nobody waits for longer.
        """
        while True:
            while not self.messages:
                self._changed.clear()
                await self._changed.wait()
            if linger_s and len(self.messages) < rows_max and self._worth_waiting():
                await self._linger(rows_max, linger_s)
            if batch := self._pick(rows_max):
                if len(self.messages) <= self._full_at // 2:
                    self._room.open()
                self._under_way += 1
                return batch
            self._changed.clear()
            await self._changed.wait()

    def _worth_waiting(self) -> bool:
        return self._more or self._under_way > 0

    async def _linger(self, rows_max: int, linger_s: float) -> None:
        self._enough = rows_max
        try:
            async with asyncio.timeout(linger_s):
                while self._worth_waiting() and len(self.messages) < rows_max:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self._enough = 1

    def _pick(self, rows_max: int) -> list[Message]:
        messages = self.messages
        if messages and messages[0].attributes.message_group_id is None:
            if len(messages) > rows_max:
                return [messages.popleft() for _ in range(rows_max)]
            whole = list(messages)
            messages.clear()
            return whole
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

    def done(self, batch: Sequence[Message]) -> None:
        """Let the next messages of the batch's groups be taken, and who lingers go on."""
        self._under_way -= 1
        self._changed.set()
        if self._busy_groups:
            self._busy_groups -= {m.attributes.message_group_id for m in batch}

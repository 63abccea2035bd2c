"""A limit on received messages: a token bucket, filled evenly, that holds a second's worth.

A poll takes the tokens of the messages it may bring before it is sent, and puts back those it did
not use. A slow limit asks for few messages at a time, so that they come evenly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sqs2pg.sqs.wire import BATCH_MAX

_LEAST_WAIT_S = 0.005
_LOOK_S = 0.2
"""How often a poll that waits looks whether it is given up."""


class RateLimit:
    """At most so many messages per second of one process. For the tasks of one event loop."""

    def __init__(self, per_second: float | None) -> None:
        """`per_second`: None is no limit."""
        self._per_second = per_second or 0.0
        self.is_set = bool(per_second)
        """Whether there is a limit. Read only."""
        self.ask = BATCH_MAX
        """How many messages one poll may bring, 1 to 10."""
        if per_second:
            self.ask = max(1, min(BATCH_MAX, round(per_second)))
        self._most = max(self._per_second, float(self.ask))
        self._tokens = float(self.ask)
        self._filled_at = time.monotonic()

    def try_take(self) -> bool:
        """Take the tokens of one poll; False, and none is taken, where there are too few."""
        return self._take(self.ask)

    async def take(self, given_up: Callable[[], bool]) -> bool:
        """Wait for the tokens of one poll, and take them; False once the poll is given up."""
        while not given_up():
            if self.try_take():
                return True
            await asyncio.sleep(min(_LOOK_S, max(_LEAST_WAIT_S, self.wait_s())))
        return False

    def take_next(self, messages: int) -> bool:
        """Take the tokens of the next poll where this one brought so many messages.

        As `brought` and `try_take` do; False, with nothing taken or put back, if there are too few.
        """
        return self._take(messages)

    def wait_s(self) -> float:
        """Return how long it takes until there are enough tokens for one poll, in seconds."""
        return max(0.0, (self.ask - self._tokens) / self._per_second) if self._per_second else 0.0

    def brought(self, messages: int) -> None:
        """Put back what a poll has not used. `messages`: how many it brought."""
        if self._per_second:
            self._fill()
            self._tokens = min(self._most, self._tokens + max(0, self.ask - messages))

    def _take(self, tokens: int) -> bool:
        if not self._per_second:
            return True
        self._fill()
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def _fill(self) -> None:
        now = time.monotonic()
        gained = (now - self._filled_at) * self._per_second
        self._tokens = min(self._most, self._tokens + gained)
        self._filled_at = now

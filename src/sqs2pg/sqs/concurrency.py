"""How many requests to have under way at once, by the time that a round trip takes.

Place in the flow: polls and deletes. With too few, the network is idle. More than needed are only
connections to look after, and each of them brings or takes just ten messages a time. No I/O.
"""

from __future__ import annotations

import math

WITHIN_S = 0.02
"""The requests of one batch are to be made within this time, in which a batch is written."""
CONCURRENCY_MIN = 8
"""Enough on one machine or in one rack, where a round trip takes no longer than our own work."""
_GUESS_S = 0.002
_WINDOW_S = 5.0


class RoundTripTime:
    """The time that one kind of request takes, learnt from its answers."""

    def __init__(self) -> None:
        self._before_s = math.inf
        self._now_s = math.inf
        self._until = -math.inf
        self.under_way = 0
        """How many tasks make such requests now, where somebody counts them."""
        self.minimum_s = _GUESS_S
        """The minimum of the last 5 to 10 seconds. What comes on top is our own process being
        busy with something else."""

    def observe(self, took_s: float, now: float) -> None:
        """Note that a request took `took_s` seconds; `now` is from a monotonic clock."""
        if now >= self._until:
            self._before_s = self._now_s
            self._until = now + _WINDOW_S
        elif took_s >= self._now_s:
            return
        self._now_s = took_s
        self.minimum_s = min(self._before_s, took_s)

    def concurrency(self, requests: int) -> int:
        """Return how many requests at once make `requests` within WITHIN_S; at least 8."""
        return CONCURRENCY_MIN + int(requests * self.minimum_s / WITHIN_S)

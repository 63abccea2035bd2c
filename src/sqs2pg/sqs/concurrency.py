"""How many requests at once: as many as the time of a round trip asks for.

Place in the flow: polls and deletes. Too few leave the network idle; more than needed are only
connections to look after, each of which brings or takes ten messages a batch. No I/O.
"""

from __future__ import annotations

import math

WITHIN_S = 0.02
"""In which the requests that belong to one batch are to be made: a batch's time to be written."""
AT_ONCE_MIN = 8
"""Enough on one machine or in one rack, where a round trip takes no longer than our own work."""
_GUESS_S = 0.002
_WINDOW_S = 5.0


class RoundTrip:
    """The time of one kind of request, learnt from its answers."""

    def __init__(self) -> None:
        self._before_s = math.inf
        self._now_s = math.inf
        self._until = -math.inf
        self.least_s = _GUESS_S
        """The least of the last 5 to 10 seconds: what is above it is ours, busy elsewhere."""

    def note(self, took_s: float, now: float) -> None:
        """Take note of a request that took so many seconds; `now` is of a monotonic clock."""
        if now >= self._until:
            self._before_s = self._now_s
            self._until = now + _WINDOW_S
        elif took_s >= self._now_s:
            return
        self._now_s = took_s
        self.least_s = min(self._before_s, took_s)

    def at_once(self, requests: int) -> int:
        """Return how many at once make so many `requests` within WITHIN_S, 8 at the least."""
        return AT_ONCE_MIN + int(requests * self.least_s / WITHIN_S)

"""How many consumers a backlog wants: backlog over measured rate, between bounds, without flutter.

Place: `ray_fleet` asks it every few seconds. No I/O and no clock of its own: a load goes in, a
number comes out.
"""

from __future__ import annotations

import math

import msgspec

SMOOTHING = 0.3
"""Weight of the newest rate; the rest is what was known before."""
BUSY_SHARE = 0.5
"""A consumer's rate counts only while it had at least this share of the work of `catch_up_s`: an
idle consumer is not slow."""


class Load(msgspec.Struct, frozen=True):
    """What was seen at one moment."""

    backlog: int
    """Messages on the queue: visible, delayed, and held by consumers."""
    rate: float | None
    """Messages per second that one consumer settled recently: the mean of those that answered, each
    by its own clock. None if none answered."""
    at_s: float
    """A clock that only rises; seconds."""
    consumers: int
    """Consumers at work."""
    paused: bool = False
    """Whether they receive nothing because the pipeline is paused on record."""


class Scaler:
    """Turns loads into a number of consumers.

    It grows at once, to the number that clears the backlog in `catch_up_s` seconds at the measured
    rate, but at most doubles each time. It shrinks by one at a time, after `quiet_s` seconds in
    which fewer would have been enough.
    """

    def __init__(
        self, *, least: int, most: int, catch_up_s: float, quiet_s: float | None = None
    ) -> None:
        self._least = least
        self._most = most
        self._catch_up_s = catch_up_s
        self._quiet_s = catch_up_s if quiet_s is None else quiet_s
        self._enough_since: float | None = None
        self.rate = 0.0
        """Messages per second that one consumer settles when it has work; 0 until it is known."""

    def wanted(self, load: Load, running: int) -> int:
        """Return how many consumers there should be; `running` is how many there are now."""
        if load.paused:
            # What waits is nobody's work, and a consumer that rests is not slow.
            self._enough_since = None
            return max(self._least, min(self._most, running))
        self._measure(load)
        if self.rate:
            target = math.ceil(load.backlog / (self.rate * self._catch_up_s))
        else:
            # Nothing is known yet: keep what there is, or begin with one.
            target = max(running, 1 if load.backlog else 0)
        target = max(self._least, min(self._most, target))
        if target >= running:
            self._enough_since = None
            return min(target, max(2 * running, self._least, 1))
        if self._enough_since is None:
            self._enough_since = load.at_s
        if load.at_s - self._enough_since < self._quiet_s:
            return max(self._least, min(self._most, running))
        self._enough_since = load.at_s
        return running - 1

    def _measure(self, load: Load) -> None:
        rate = load.rate
        if rate is None:
            return
        enough = load.backlog >= BUSY_SHARE * self.rate * self._catch_up_s * load.consumers
        if rate > self.rate or (enough and rate > 0):
            self.rate = rate if not self.rate else self.rate + SMOOTHING * (rate - self.rate)

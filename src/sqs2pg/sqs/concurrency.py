"""How many requests to have under way at once, by the time that a round trip takes.

Place in the flow: polls and deletes. With too few, the network is idle. More than needed are only
connections to look after, and each of them brings or takes just ten messages a time.

An answer that waits until our own process has looked after the others seems slow, and slow answers
ask for more requests at once: that would feed itself, and never end. So from time to time there are
few at once for a moment. Their answers count, and only for the share of that moment in which the
thread had nothing to do. Where it was busy, or had to wait for a core, more requests would bring
nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WITHIN_S = 0.02
"""The requests of one batch are to be made within this time, in which a batch is written."""
CONCURRENCY_MIN = 32
"""Enough on one machine or in one rack, where a round trip takes no longer than our own work: more
answers wait for each turn of the event loop, which then costs less a message (benchmarks)."""
TRIAL_AT_ONCE = 8
"""Requests at once in a trial: few enough not to wait for each other."""
TRIAL_ANSWERS = 16
"""Answers that a trial with few requests at once waits for."""
TRIAL_SETTLES_S = 0.01
"""After the beginning of a trial, until there are few: answers to earlier requests do not count."""
TRIAL_EVERY_S = 4.0, 64.0
"""Between two trials, seconds: first, when the process is busy with its start, and later; each time
twice as long."""


def occupied_s() -> float:
    """Return for how long this thread has run or waited for a core so far, in seconds."""
    return time.thread_time() + _run_delay_s()


def _run_delay_s() -> float:
    """Return the wait for a core; 0 where the system does not tell it (proc(5), schedstat)."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:  # noqa: PTH123  half the time
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class RoundTripTime:
    """The time that one kind of request takes, learnt from its answers. For one thread."""

    def __init__(self, busy_s: Callable[[], float] = occupied_s) -> None:
        """`busy_s`: for how long the thread has not been idle so far, in seconds."""
        self.under_way = 0
        """How many tasks make such requests now, where somebody counts them."""
        self.minimum_s = 0.0
        """What the last trial has found, or the minimum since. What comes on top is our own process
        being busy with something else."""
        self._busy_s = busy_s
        self._trial_left = TRIAL_ANSWERS
        self._trial_began = -math.inf
        self._trial_began_busy_s = 0.0
        self._trial_found_s = math.inf
        self._trial_next = -math.inf
        self._trial_every_s = TRIAL_EVERY_S[0]

    def observe(self, took_s: float, now: float) -> None:
        """Note that a request took `took_s` seconds; `now` is from a monotonic clock."""
        if now >= self._trial_next:
            self._trial_next = math.inf
            self._trial_left = TRIAL_ANSWERS
            self._trial_began, self._trial_began_busy_s = now, self._busy_s()
            self._trial_found_s = math.inf
        elif self._trial_left:
            self._observe_trial(took_s, now)
        elif took_s < self.minimum_s:
            self.minimum_s = took_s

    def _observe_trial(self, took_s: float, now: float) -> None:
        if now - took_s < self._trial_began + TRIAL_SETTLES_S:
            return  # it was sent before, among many
        self._trial_found_s = min(self._trial_found_s, took_s)
        self._trial_left -= 1
        if not self._trial_left:
            busy_s = self._busy_s() - self._trial_began_busy_s
            idle_share = 1 - busy_s / max(now - self._trial_began, 1e-6)
            self.minimum_s = self._trial_found_s * max(0.0, idle_share)
            self._trial_next = now + self._trial_every_s
            self._trial_every_s = min(TRIAL_EVERY_S[1], 2 * self._trial_every_s)

    def concurrency(self, requests: int) -> int:
        """Return how many requests at once make `requests` within WITHIN_S; at least 32.

        In a trial: 8.
        """
        if self._trial_left:
            return TRIAL_AT_ONCE
        return CONCURRENCY_MIN + int(requests * self.minimum_s / WITHIN_S)

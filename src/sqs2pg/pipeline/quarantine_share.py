"""Which share of what came lately was quarantined. No I/O.

The span looked at is as short as it can be: SPAN_LEAST_S, or longer until it has enough messages,
at most SPAN_MOST_S. So a busy pipeline is judged by its last seconds, and a quiet one is not judged
by a handful.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple, Protocol

SPAN_LEAST_S = 10.0
SPAN_MOST_S = 600.0
_STEP_S = 1.0
"""Between two samples, seconds."""


class Settled(Protocol):
    """What is counted since the start: messages, and lines of S3 objects."""

    settled: int
    settled_bad: int


class Share(NamedTuple):
    """What was settled in a span, duplicates apart, and how much of it was quarantined."""

    messages: int
    quarantined: int


class _Sample(NamedTuple):
    at: float
    settled: int
    bad: int


class QuarantineShare:
    """Compares the share of one process with its limit."""

    def __init__(self, counts: Settled, share_max: float, messages_min: int) -> None:
        """`share_max`: 0 to 1, 1 is no limit. `messages_min`: fewer are not judged."""
        self._counts = counts
        self._share_max = share_max
        self._messages_min = messages_min
        self._samples: deque[_Sample] = deque()
        self.begin()

    def begin(self) -> None:
        """Judge by what comes from now on."""
        self._samples.clear()
        self._samples.append(self._present())

    def above(self) -> Share | None:
        """Return the share if it is above the limit; None where it is not, or too little came."""
        if self._share_max >= 1:
            return None
        now, samples = self._present(), self._samples
        while len(samples) > 1 and now.at - samples[1].at > SPAN_MOST_S:
            samples.popleft()
        found: Share | None = None
        for sample in reversed(samples):
            found = Share(now.settled - sample.settled, now.bad - sample.bad)
            if now.at - sample.at >= SPAN_LEAST_S and found.messages >= self._messages_min:
                break
        if now.at - samples[-1].at >= _STEP_S:
            samples.append(now)
        if found is None or found.messages < self._messages_min:
            return None
        return found if found.quarantined > self._share_max * found.messages else None

    def _present(self) -> _Sample:
        return _Sample(time.monotonic(), self._counts.settled, self._counts.settled_bad)

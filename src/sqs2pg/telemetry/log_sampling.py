"""Limits repeated log lines: the first few are logged, the rest are counted and logged as a number.

Place in the flow: in front of the log. A line that is only counted costs a dictionary look-up, so
that a hundred thousand faults a minute neither flood the log nor slow the pipeline. No I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import msgspec

WINDOW_S = 10.0
LINES_MAX = 5
"""Lines of one kind that are logged in one window."""
KINDS_MAX = 500
"""Kinds that have a window of their own; all others share one."""


class _Window(msgspec.Struct):
    ends: float
    logged: int = 0
    held_back: int = 0


class RepeatLimiter:
    """Counts lines by kind. Threads that share one need a lock."""

    def __init__(
        self,
        *,
        lines_max: int = LINES_MAX,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lines_max = lines_max
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[Hashable, _Window] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Return None if this line is only counted; else how many were held back before it.

        A window begins with a line that is logged. After its end, the next line of its kind brings
        the number of lines that were held back.
        """
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= KINDS_MAX:
                kind = None
                window = self._windows.get(kind)
            if window is None:
                self._windows[kind] = _Window(self._clock() + self._window_s, logged=1)
                return 0
        if window.logged < self._lines_max:
            window.logged += 1
            return 0
        now = self._clock()
        if now < window.ends:
            window.held_back += 1
            return None
        more, window.held_back = window.held_back, 0
        window.logged, window.ends = 1, now + self._window_s
        return more

    def hold_back(self, kind: Hashable, lines: int) -> None:
        """Count lines of a kind that come with one for which `admit` has just returned None."""
        window = self._windows.get(kind) or self._windows[None]
        window.held_back += lines

    def overdue(self, *, everything: bool = False) -> list[tuple[Hashable, int]]:
        """Return the kinds whose window is over, with the number held back; forget them."""
        now = self._clock()
        over = [kind for kind, w in self._windows.items() if everything or now >= w.ends]
        windows = [(kind, self._windows.pop(kind).held_back) for kind in over]
        return [(kind, count) for kind, count in windows if count]

"""Repeats of one log line: the first few are told, the rest are counted and told as one number.

Place in the flow: in front of the log. What is not told costs a dictionary look-up, so that a
hundred thousand faults a minute neither flood the log nor slow the pipeline. No I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

import msgspec

WINDOW_S = 10.0
TOLD_MAX = 5
"""Lines of one kind in one window."""
KINDS_MAX = 500
"""Kinds that are told apart; those beyond share one window."""


class _Window(msgspec.Struct):
    ends: float
    told: int = 0
    kept_back: int = 0


class Repeats:
    """Counts lines by kind. Not for use by several threads at once without a lock of theirs."""

    def __init__(
        self,
        *,
        told_max: int = TOLD_MAX,
        window_s: float = WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._told_max = told_max
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[Hashable, _Window] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Return None where this line is only counted; else how many were since the last one told.

        A window begins with a line that is told. When it is over, the next line of its kind brings
        the number of those that were kept back.
        """
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= KINDS_MAX:
                kind = None
                window = self._windows.get(kind)
            if window is None:
                self._windows[kind] = _Window(self._clock() + self._window_s, told=1)
                return 0
        if window.told < self._told_max:
            window.told += 1
            return 0
        now = self._clock()
        if now < window.ends:
            window.kept_back += 1
            return None
        more, window.kept_back = window.kept_back, 0
        window.told, window.ends = 1, now + self._window_s
        return more

    def overdue(self, *, all_of_them: bool = False) -> list[tuple[Hashable, int]]:
        """Return the kinds whose window is over, and how many were kept back in it; forget them."""
        now = self._clock()
        over = [kind for kind, w in self._windows.items() if all_of_them or now >= w.ends]
        windows = [(kind, self._windows.pop(kind).kept_back) for kind in over]
        return [(kind, count) for kind, count in windows if count]

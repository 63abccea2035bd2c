"""The last counts of workers that no longer answer, so that the sum over all never falls.

If a counter falls, Prometheus assumes that it started again at 0, and adds its whole value. So if
one worker of ten were killed, the counts of the other nine would show as a burst of messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Counts = TypeVar("Counts")


class CounterHistory(Generic[Counts]):
    """Counts by place. In one place, a worker may be followed by another. No I/O."""

    def __init__(self, add: Callable[[Counts, Counts], Counts]) -> None:
        """`add` returns the sum of two, and changes neither."""
        self._add = add
        self._last: dict[str, tuple[float, Counts]] = {}
        self._ended: Counts | None = None

    def update(self, answers: Mapping[str, tuple[float, Counts] | None]) -> list[Counts]:
        """Note the answers; return the counts to add to them.

        An answer is the time at which the worker in that place began, and its counts. It is None if
        the worker does not answer; its last counts are then used. If a place is missing, its worker
        has ended. If the time differs, the place has a new worker.
        """
        for place, (began, counts) in list(self._last.items()):
            answer = answers.get(place)
            if place not in answers or (answer and answer[0] != began):
                self._ended = counts if self._ended is None else self._add(self._ended, counts)
                del self._last[place]
        silent = [
            self._last[place][1]
            for place, answer in answers.items()
            if answer is None and place in self._last
        ]
        self._last |= {place: answer for place, answer in answers.items() if answer}
        return silent if self._ended is None else [self._ended, *silent]

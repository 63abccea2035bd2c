"""What workers had counted that answer no more, so that the sum of all never falls.

A counter that falls was started again, as Prometheus reads it, and the whole of it is new: one
worker killed of ten would show as a burst of nine workers' messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

Counts = TypeVar("Counts")


class Past(Generic[Counts]):
    """Counts of workers by place; in a place one worker follows another. No I/O."""

    def __init__(self, add: Callable[[Counts, Counts], Counts]) -> None:
        """`add` returns the sum of two, neither changed."""
        self._add = add
        self._last: dict[str, tuple[float, Counts]] = {}
        self._ended: Counts | None = None

    def beside(self, answers: Mapping[str, tuple[float, Counts] | None]) -> list[Counts]:
        """Note the answers; return what is to be added to them.

        An answer is when the worker in that place began and its counts, None where it is silent:
        then its last counts stand for it. A place that is missing has ended; one where the worker
        began at another time has a new worker.
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

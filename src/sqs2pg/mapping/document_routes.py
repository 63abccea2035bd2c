"""Document routes: which target takes which documents of a batch.

Part of the usual way of `decode.py`. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping import json_slices
from sqs2pg.mapping.condition import Condition
from sqs2pg.mapping.document_batch import WRONG, Batch
from sqs2pg.mapping.document_expressions import BatchViews
from sqs2pg.mapping.document_types import Node
from sqs2pg.mapping.document_values import Reading
from sqs2pg.mapping.documents import steps_of
from sqs2pg.mapping.lazy_expressions import condition_of
from sqs2pg.settings import Settings, When


class Routes:
    """Which target takes which document."""

    def __init__(self, settings: Settings, root: Node) -> None:
        self._routed = settings.routed
        self._filters = [_compile(one.when, root) for one in settings.filters]
        self._conditions = [
            _compile(target.when, root) if target.when else None for target in settings.targets
        ]
        self._drop_unmatched = settings.drops_unmatched

    def take(
        self, batch: Batch, seen: BatchViews | None
    ) -> tuple[list[Sequence[int]], Counter[int]]:
        """Return the positions that each target takes, and how many each message has that none
        takes. Where the settings do not drop those, their messages are left.

        `seen`: what expressions see; None without any.
        """
        everywhere: Sequence[int] = range(len(batch.documents))
        dropped: Counter[int] = Counter()
        for condition in self._filters:
            found = condition.positions(batch, seen, everywhere)
            dropped.update(batch.messages[position] for position in found)
            everywhere = _without(everywhere, found)
        if not self._routed:
            return [everywhere for _ in self._conditions], dropped
        taken = [
            [] if condition is None else condition.positions(batch, seen, everywhere)
            for condition in self._conditions
        ]
        matched = [position for positions in taken for position in positions]
        rest = _without(everywhere, matched)
        if None in self._conditions:
            pairs = zip(self._conditions, taken, strict=True)
            return [rest if one is None else positions for one, positions in pairs], dropped
        if not self._drop_unmatched:
            batch.leave(rest)
        dropped.update(batch.messages[position] for position in rest)
        return [*taken], dropped


def _without(positions: Sequence[int], found: Sequence[int]) -> Sequence[int]:
    gone = set(found)
    return [position for position in positions if position not in gone] if gone else positions


class _RouteCondition(Protocol):
    """The `when` of one route."""

    def positions(
        self, batch: Batch, seen: BatchViews | None, among: Sequence[int]
    ) -> Sequence[int]:
        """Return the positions, of some, of the documents for which it holds.

        Messages for which that cannot be told are left.
        """


def _compile(when: When, root: Node) -> _RouteCondition:
    return _ExpressionCondition(when) if when.expression else _FieldCondition(when, root)


class _ExpressionCondition:
    """See `_RouteCondition`."""

    def __init__(self, when: When) -> None:
        self._expression = condition_of(when.expression)

    def positions(
        self, batch: Batch, seen: BatchViews | None, among: Sequence[int]
    ) -> Sequence[int]:
        """See `_RouteCondition`."""
        assert seen is not None, "there is an expression"
        holds = self._expression.holds
        found: list[int] = []
        for position in among:
            try:
                if holds(*seen.at(position)):
                    found.append(position)
            except PermanentFault:
                batch.leave([position])
        return found


class _FieldCondition:
    """See `_RouteCondition`."""

    def __init__(self, when: When, root: Node) -> None:
        place = root.place(steps_of(when.field))
        self._read = Reading(place, json_slices.anything)
        condition = Condition(when)
        self._holds = condition.holds_string if place.leaf == "text" else condition.holds

    def positions(
        self, batch: Batch, _seen: BatchViews | None, among: Sequence[int]
    ) -> Sequence[int]:
        """See `_RouteCondition`."""
        values = self._read(batch.documents_at(among))
        holds = {value: self._holds(None if value is WRONG else value) for value in set(values)}  # type: ignore[arg-type]
        return [p for p, value in zip(among, values, strict=True) if holds[value]]

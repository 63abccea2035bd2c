"""Document routes: which target takes which documents of a batch.

Part of the usual way of `decode.py`. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqs2pg.mapping import json_slices
from sqs2pg.mapping.condition import Condition
from sqs2pg.mapping.document_batch import WRONG, Batch
from sqs2pg.mapping.document_types import Node
from sqs2pg.mapping.document_values import Reading
from sqs2pg.mapping.documents import steps_of
from sqs2pg.settings import Settings, When


class Routes:
    """Which target takes which document."""

    def __init__(self, settings: Settings, root: Node) -> None:
        self._routed = bool(settings.route)
        self._conditions = [
            _RouteCondition(target.when, root) if target.when else None
            for target in settings.targets
        ]
        self._drop_unmatched = settings.unmatched == "drop"

    def take(self, batch: Batch) -> tuple[list[Sequence[int]], Counter[int]]:
        """Return the positions that each target takes, and how many each message has that none
        takes. Where the settings do not drop those, their messages are left.
        """
        everywhere = range(len(batch.documents))
        if not self._routed:
            return [everywhere for _ in self._conditions], Counter()
        taken = [
            [] if condition is None else condition.positions(batch.documents)
            for condition in self._conditions
        ]
        matched = {position for positions in taken for position in positions}
        rest = [position for position in everywhere if position not in matched]
        if None in self._conditions:
            pairs = zip(self._conditions, taken, strict=True)
            return [rest if one is None else positions for one, positions in pairs], Counter()
        if not self._drop_unmatched:
            batch.leave(rest)
        return [*taken], Counter(batch.messages[position] for position in rest)


class _RouteCondition:
    """The `when` of one route."""

    def __init__(self, when: When, root: Node) -> None:
        place = root.place(steps_of(when.field))
        self._read = Reading(place, json_slices.anything)
        condition = Condition(when)
        self._holds = condition.holds_string if place.leaf == "text" else condition.holds

    def positions(self, documents: Sequence[Any]) -> list[int]:
        """Return the positions of the documents for which it holds."""
        values = self._read(documents)
        holds = {value: self._holds(None if value is WRONG else value) for value in set(values)}  # type: ignore[arg-type]
        return [position for position, value in enumerate(values) if holds[value]]

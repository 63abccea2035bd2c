"""Verdicts: what the C code found to be wrong with a unit -> its fault, or none after all.

The C code is certain of what is no JSON, and of what a document lacks. Of a value that it cannot
convert or mask it is not: the reference then makes this cell alone, and says. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.compile import MessageMapping
from sqs2pg.mapping.encoder import UnitFault
from sqs2pg.message import Message

# As in native/plan.h.
_NOT_JSON, _NOT_AN_OBJECT, _WRONG_TYPE, _MISSING, _EMPTY, _OF_COLUMN = range(1, 7)

_Place = tuple[int, int]
"""A target, and one of its columns."""


class UnitVerdict(NamedTuple):
    """One verdict, as the C code gives it."""

    unit: int
    """Its index in the batch."""
    key: str
    """Its ledger key."""
    is_: int
    """One of `enum verdict_is`."""
    target: int
    place: int
    """The number of the check, or of the target's column."""
    text: str | None
    """The value of the column, as `Transformer.faults_of` takes it."""


class Verdicts:
    """Compiled from the mapping: makes faults of verdicts."""

    def __init__(self, mapping: MessageMapping, names: Sequence[str]) -> None:
        """`names`: of the checks (`fast_path_checks.checked_names`)."""
        self._mapping = mapping
        # Nobody raises them, so one serves all units that are alike.
        self._known = {
            (_NOT_JSON, 0): PermanentFault("not_json"),
            (_NOT_AN_OBJECT, 0): PermanentFault("not_an_object"),
        }
        for place, name in enumerate(names):
            self._known[_WRONG_TYPE, place] = PermanentFault("wrong_type", name)
            self._known[_MISSING, place] = PermanentFault("missing_field", name)
            self._known[_EMPTY, place] = PermanentFault("empty_field", name)

    def faults(
        self, units: Sequence[Message], verdicts: Sequence[Sequence[Any]]
    ) -> tuple[list[UnitFault], list[int]]:
        """Return the faults, then the units that may have none after all. Both in their order."""
        faults: list[UnitFault] = []
        suspects: dict[_Place, list[UnitVerdict]] = {}
        for verdict in verdicts:
            unit, key, is_, target, place, _ = verdict
            if is_ == _OF_COLUMN:
                suspects.setdefault((target, place), []).append(UnitVerdict(*verdict))
            else:
                faults.append(UnitFault(unit, key, self._known[is_, place]))
        if not suspects:
            return faults, []
        without: list[int] = []
        transformers = self._mapping.transformers
        for (target, column), its in suspects.items():
            messages = [units[one.unit] for one in its]
            found = transformers[target].faults_of(column, messages, [one.text for one in its])
            faults += [UnitFault(its[i].unit, its[i].key, fault) for i, fault in found.items()]
            without += [one.unit for i, one in enumerate(its) if i not in found]
        return sorted(faults), sorted(without)

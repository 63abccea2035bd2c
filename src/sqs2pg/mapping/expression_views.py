"""What expressions see of documents, and what looking may cost.

The costs of expressions are bounded for each message (an archive's line), so that no producer can
hold a worker with a document that makes a harmless expression expensive: their steps, and the size
of each text and each result. No I/O here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.settings.expressions import Syntax
from sqs2pg.settings.source_paths import EACH, Step

STEPS_LEAST = 100_000
"""Of all expressions of one message, its records together. One step is one part of an expression
that is visited, or one element that a function handles."""
STEPS_A_CHARACTER = 4
"""More of them for each character of the message: an expression may go through a large array a few
times, and through none as often as it has elements."""
STEPS_FREE = 20
"""Of each evaluation; they do not count, so that a message may have as many records (`RECORDS_MAX`)
as without expressions."""
_COPIED_A_STEP = 64
DIGITS_MAX = 1_000
"""A longer number is not in the range of any column. Python converts 4,300 at most."""


class StepBudget:
    """The steps that are left for the expressions of one message."""

    __slots__ = ("left",)

    def __init__(self, characters: int) -> None:
        """`characters`: of the message's documents together."""
        self.left = STEPS_LEAST + STEPS_A_CHARACTER * characters


Evaluate = Callable[[Any, StepBudget], str | None]
"""From a document to the text that a field's converter takes."""


class Viewer:
    """Compiled from the expressions of a mapping: the text of a document in, what they see out."""

    def __init__(self, read: Sequence[Syntax]) -> None:
        """Only members at the top that an expression reads are decoded."""
        each = [syntax.top_names for syntax in read]
        names = [name for top in each for name in top or ()]
        # The functional form: names of members need not be names of Python.
        make: Any = TypedDict
        some = make("Some", dict.fromkeys(names, Any), total=False)
        self._decode = msgspec.json.Decoder(Any if None in each else some).decode

    def view(self, text: str) -> Any:
        """Return a document, which must be valid JSON, as Python's values.

        Whole numbers are exact, fractions the nearest 64-bit number; of a name that an object has
        twice, the last value counts. A number past 64 bits is infinite: it can be compared, but not
        written.
        """
        try:
            return self._decode(text)
        except msgspec.ValidationError:  # a number out of range
            return json.loads(text, parse_int=_whole, parse_float=float)


class Sight:
    """What the expressions of one message see of one of its documents; decoded if one looks."""

    __slots__ = ("_document", "_text", "_viewer", "budget")

    def __init__(self, viewer: Viewer, text: str, budget: StepBudget) -> None:
        self._viewer = viewer
        self._text = text
        self._document: Any = None
        self.budget = budget

    @property
    def document(self) -> Any:
        """The document."""
        if self._document is None:
            self._document = self._viewer.view(self._text)
        return self._document

    def __repr__(self) -> str:
        return "Sight(…)"

    def __rich_repr__(self) -> Any:
        yield "…"


def _whole(text: str) -> float:
    return int(text) if len(text) <= DIGITS_MAX else float(text)


def views(document: Any, explode: Sequence[Step], budget: StepBudget) -> Iterator[Any]:
    """Yield what an expression sees of each record of a document.

    It is the document; but an array that is exploded has only the record's own element. `explode`
    are the steps of the target's `explode`. Arrays that are missing give no record.
    Raises PermanentFault `expression_too_costly`.
    """
    if EACH not in explode:
        yield document
        return
    end = explode.index(EACH)
    array = document
    for step in explode[:end]:
        array = _member(array, step)
    if isinstance(array, list):
        for element in array:
            for inner in views(element, explode[end + 1 :], budget):
                yield _replaced(document, explode[:end], [inner], budget)


def _member(value: Any, step: Step) -> Any:
    if isinstance(step, str):
        return value.get(step) if isinstance(value, dict) else None
    assert step is not None
    is_there = isinstance(value, list) and -len(value) <= step < len(value)
    return value[step] if is_there else None


def _replaced(value: Any, steps: Sequence[Step], inner: Any, budget: StepBudget) -> Any:
    """Return a copy of a value with another one at the end of the steps, which exist."""
    if not steps:
        return inner
    budget.left -= 1 + len(value) // _COPIED_A_STEP
    if budget.left < 0:
        raise PermanentFault("expression_too_costly")
    copy = value.copy()
    copy[steps[0]] = _replaced(value[steps[0]], steps[1:], inner, budget)
    return copy

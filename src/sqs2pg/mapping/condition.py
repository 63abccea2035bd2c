"""Conditions: whether the `when` of a route holds for a document. No I/O here."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping import json_slices
from sqs2pg.mapping.expression_views import Sight
from sqs2pg.mapping.json_slices import Slice
from sqs2pg.mapping.lazy_expressions import condition_of
from sqs2pg.settings import When, source_paths

_Constant = str | int | float | bool
_NUMBER_CHARACTERS_MAX = 1_000
"""A longer number is not compared: no constant of the settings is that long."""


class DocumentCondition:
    """Compiled from a `when`: holds for a document or not."""

    def __init__(self, when: When) -> None:
        self._expression = condition_of(when.expression) if when.expression else None
        self._condition = Condition(when)
        self._steps: tuple[str | int, ...] = ()
        if when.field:
            self._steps = source_paths.compile_sources([when.field])[when.field].steps

    def holds(self, document: Slice, sight: Sight | None) -> bool:
        """Whether it holds. `sight`: what expressions see of the document; None without any.

        Raises PermanentFault, of an expression.
        """
        if self._expression is not None and sight is not None:
            return self._expression.holds(sight.document, sight.budget)
        return self._condition.holds(self._text(document))

    def _text(self, document: Slice) -> str | None:
        try:
            found = document.read(self._steps)
        except PermanentFault:  # another shape on the way
            return None
        return None if found is None else found.text


class Condition:
    """Compiled from the field conditions of a `when`; knows nothing of where its field is."""

    def __init__(self, when: When) -> None:
        self._exists = when.exists
        self._wanted = [*when.any_of, *([] if when.equals is None else [when.equals])]

    def holds(self, text: str | None) -> bool:
        """Whether it holds for a JSON value, as its slice of the document; None: it is missing."""
        if self._exists is not None and (text is not None) is not self._exists:
            return False
        if not self._wanted:
            return True
        return text is not None and any(_same(text, wanted) for wanted in self._wanted)

    def holds_string(self, string: str | None) -> bool:
        """As `holds`, of a string that is decoded."""
        if self._exists is not None and (string is not None) is not self._exists:
            return False
        return not self._wanted or (string is not None and string in self._wanted)


def _same(text: str, wanted: _Constant) -> bool:
    """Whether a slice is the JSON value that a constant of the settings stands for."""
    if isinstance(wanted, bool):  # in JSON, true is not 1
        return text == ("true" if wanted else "false")
    if isinstance(wanted, str):
        return text[0] == '"' and json_slices.string(text) == wanted
    if text[0] not in "-0123456789" or len(text) > _NUMBER_CHARACTERS_MAX:
        return False
    try:
        return Decimal(text) == Decimal(str(wanted))
    except InvalidOperation:  # an exponent of too many digits
        return False

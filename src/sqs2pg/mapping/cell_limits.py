"""Limits: what a column takes, known before the database sees a row.

They are those of the field's settings and of the column: a length, the range of an integer type,
the labels of an enum. An array's limits are those of each element. No I/O here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping import base64_text
from sqs2pg.mapping.arrays import Element, array_converter
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.conversions import converter_of, json_kind, text_editor
from sqs2pg.mapping.field_types import ARRAY, INTEGER_RANGES
from sqs2pg.settings import Field

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}\Z")


class CellLimits(NamedTuple):
    """What the text of a cell, or of an array's element, must be like."""

    length_max: int | None = None
    """Characters."""
    truncates: bool = False
    """A longer text is cut."""
    range: tuple[int, int] | None = None
    labels: frozenset[str] | None = None

    @property
    def only_length(self) -> bool:
        """Whether any text that is short enough fits."""
        return self.range is None and self.labels is None

    def fit(self, text: str) -> str:
        """Return the text as it fits.

        Raises PermanentFault `too_long`, `bad_integer`, `out_of_range`, `not_in_enum`.
        """
        if self.length_max is not None and len(text) > self.length_max:
            if not self.truncates:
                raise PermanentFault("too_long", stage=Stage.MASK)
            text = text[: self.length_max]
        if self.range is not None:
            if not _INTEGER.match(text):
                raise PermanentFault("bad_integer", stage=Stage.MASK)
            low, high = self.range
            if not low <= int(text) <= high:
                raise PermanentFault("out_of_range", stage=Stage.MASK)
        if self.labels is not None and text not in self.labels:
            raise PermanentFault("not_in_enum", stage=Stage.MASK)
        return text


def limits_of(field: Field, column: Column) -> CellLimits:
    """Return the limits of a field's cells; of an array's elements, where it is one."""
    range_ = INTEGER_RANGES.get(column.type.removeprefix(ARRAY))
    lengths = [length for length in (field.length_max, column.length_max) if length]
    length = min(lengths) if lengths and range_ is None else None
    if length is not None and field.type.startswith("bytea") and field.mask == "keep":
        length = base64_text.characters(length)
    labels = None if column.labels is None else frozenset(column.labels)
    return CellLimits(length, field.over_length == "truncate", range_, labels)


def fitted_array(
    field: Field, limits: CellLimits, mask: Element | None = None
) -> Callable[[str], str]:
    """Return the converter of an array field whose elements must fit.

    Each element is converted as a field of its type would be: `field` is that of the elements.
    `mask` takes an element's text where it is masked. The converter raises what those of arrays
    and of the element's type raise, what the mask raises, and what `CellLimits.fit` raises.
    """
    edit = text_editor(field)
    transform: Element = converter_of(field) if mask is None else mask

    def written(text: str) -> str | None:
        edited = text if edit is None else edit(text)
        made = None if edited is None else transform(edited)
        return None if made is None else limits.fit(made)

    return array_converter(json_kind(field), written)

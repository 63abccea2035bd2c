"""The fast path's conversions: what a field's settings do to a value before its type converts it.

The cells of a map are made here by the reference, so the C code only looks them up. What depends on
a machine's database of time zones, or on Python's `strptime`, is left to Python. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqs2pg.mapping.column_cells import map_cells
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.conversions import constant_text, json_kind
from sqs2pg.mapping.fast_path_tree import NotFastError
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.settings import RECORD_INDEX, Field, attribute_keys
from sqs2pg.settings.fields import Constant

# The enumerations and bounds of native/conversion.h.
_TRIM, _LOWER, _UPPER, _EMPTY_IS_NULL = 1, 2, 4, 8
_FORMS = {"": 0, "rfc3339": 0, "iso8601": 0, "epoch_s": 1, "epoch_ms": 2, "epoch_us": 3}
"""Of rfc3339 and iso8601 the C code takes the texts that the type takes anyway."""
_PYTHONS, _KEPT, _NULL, _CELL = range(4)
_UNMAPPED: Mapping[object, int] = {
    None: _PYTHONS,
    "quarantine": _PYTHONS,
    "keep": _KEPT,
    "null": _NULL,
}
_OTHERS_MAX, _PAIRS_MAX = 7, 4096


def compile_conversion(
    field: Field,
    column: Column,
    mask: Operator | Mask | None,
    others: Sequence[tuple[int, int]],
) -> tuple[Any, ...]:
    """Return a column's conversion as the extension takes it; an empty tuple where there is none.

    `others` are the places of the sources besides the first. Raises NotFastError.
    """
    if not (others or field.edits_text or field.format or field.from_):
        return ()
    if (
        field.format not in _FORMS
        or len(others) > _OTHERS_MAX
        or len(field.map) > _PAIRS_MAX
        or json_kind(field) == "json_text"
        or attribute_keys(field) == (RECORD_INDEX,)
    ):
        raise NotFastError
    edits = (
        _TRIM * field.trim
        + _LOWER * field.lower
        + _UPPER * field.upper
        + _EMPTY_IS_NULL * (field.empty == "null")
    )
    cells = map_cells(field, column, mask)
    pairs = sorted(
        ((key.encode(), _given(field, cells, constant)) for key, constant in field.map.items()),
        key=lambda pair: (len(pair[0]), pair[0]),
    )
    unmapped = _UNMAPPED.get(field.otherwise, _CELL)
    cell = _given(field, cells, field.otherwise) if unmapped == _CELL else None
    if cell is None and unmapped == _CELL:
        unmapped = _PYTHONS
    return (
        edits,
        _FORMS[field.format],
        tuple(others),
        bool(field.map),
        tuple(pairs),
        unmapped,
        cell or b"",
    )


def _given(field: Field, cells: Mapping[str, str], constant: Constant | None) -> bytes | None:
    """Return the cell of a constant; None where Python must say what is wrong with it."""
    assert constant is not None
    text = constant_text(constant)
    cell = cells.get(text)  # none: `otherwise` is not used
    return None if cell is None or (field.required and not text) else cell.encode()

"""The fast path's conditions: which documents a route takes, a filter drops, or delete rows.

The C code evaluates no expression, and compares numbers only as whole ones. No I/O here.
"""

from __future__ import annotations

import msgspec

from sqs2pg.mapping.fast_path_tree import NotFastError
from sqs2pg.settings import Field, Target, When
from sqs2pg.settings.staged_fields import DELETES

# The enumerations and bounds of native/plan.h and native/json.h.
_ALWAYS, _CONDITIONAL, _OTHERWISE = range(3)
_STRING, _NUMBER, _TRUE, _FALSE = 2, 3, 4, 5
_WANTED_MAX = 32


def compile_mode(when: When | None, *, routed: bool) -> int:
    """Return which documents a target takes: all, those of a condition, or the others'."""
    if when is not None:
        return _CONDITIONAL
    return _OTHERWISE if routed else _ALWAYS


def compile_condition(when: When | None) -> tuple[int, tuple[tuple[int, bytes], ...]]:
    """Return whether the field must exist (-1: not asked), and the values that it may have.

    Raises NotFastError.
    """
    if when is None:
        return -1, ()
    wanted = [*when.any_of, *([] if when.equals is None else [when.equals])]
    if len(wanted) > _WANTED_MAX:
        raise NotFastError
    return -1 if when.exists is None else int(when.exists), tuple(map(_wanted, wanted))


def _wanted(value: str | float | bool) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return (_TRUE if value else _FALSE), b""
    if isinstance(value, str):
        return _STRING, value.encode()
    if isinstance(value, int):
        return _NUMBER, str(value).encode()
    raise NotFastError


def says_deletion(field: Field, target: Target) -> bool:
    """Whether a field says if a record deletes, by a field of the document.

    In Python its expression does. A condition of the document says the same.
    """
    when = target.write.delete_when
    return field.column == DELETES and when is not None and not when.expression


def without_deletion(target: Target) -> Target:
    """Return a target without the field that says if a record deletes."""
    fields = tuple(field for field in target.fields if not says_deletion(field, target))
    return msgspec.structs.replace(target, fields=fields)

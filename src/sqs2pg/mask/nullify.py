"""Nullify: NULL for every value, present or not, so that nothing of the field is in the table."""

from __future__ import annotations

from sqs2pg.mask.canonical import of_kind
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)


def nullify(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault where a value is not of it."""
    check = of_kind(kind)

    def mask(value: str) -> None:
        if check is not None:
            check(value)

    return Operator("nullify", PROPERTIES, mask)


DECLARATION = Declaration(
    "nullify",
    PROPERTIES,
    lambda kind, _domain, _roots: nullify(kind),
    shows="nothing to reverse, with or without a key",
)

"""Nullify: NULL for every value, so that nothing of the field gets into the table."""

from __future__ import annotations

from sqs2pg.mask.canonical import of_kind
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)


def nullify(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault for another kind of value."""
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

"""Nullify: NULL for every value, so that nothing of the field gets into the table."""

from __future__ import annotations

from sqs2pg.mask.operator import Declaration, Operator, Properties, of_kind

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)


def nullify(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault for another kind of value."""
    return Operator("nullify", PROPERTIES, of_kind(kind, lambda _: None))


DECLARATION = Declaration(
    "nullify",
    PROPERTIES,
    lambda kind, _domain, _roots: nullify(kind),
    shows="nothing to reverse, with or without a key",
)

"""Keep: the value as it is, for fields that the mapping declares not sensitive.

The only operator that returns cleartext, and only under its own name in the settings.
"""

from __future__ import annotations

from sqs2pg.mask.operator import Declaration, Operator, Properties, of_kind

PROPERTIES = Properties(deterministic=True, reversible=True, joinable=True, format_preserving=True)


def keep(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault for another kind of value."""
    return Operator("keep", PROPERTIES, of_kind(kind, lambda value: value))


DECLARATION = Declaration(
    "keep",
    PROPERTIES,
    lambda kind, _domain, _roots: keep(kind),
)

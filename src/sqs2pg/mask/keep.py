"""Keep: the value as it is, for fields that the mapping declares not sensitive.

The only operator that returns cleartext, and only under its own name in the settings.
"""

from __future__ import annotations

from sqs2pg.mask.canonical import of_kind
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(deterministic=True, reversible=True, joinable=True, format_preserving=True)


def keep(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault for another kind of value."""
    check = of_kind(kind)

    def mask(value: str) -> str:
        if check is not None:
            check(value)
        return value

    return Operator("keep", PROPERTIES, mask)


DECLARATION = Declaration(
    "keep",
    PROPERTIES,
    lambda kind, _domain, _roots: keep(kind),
)

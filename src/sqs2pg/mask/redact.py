"""Redact: one constant for every value, so that only its presence shows."""

from __future__ import annotations

from sqs2pg.mask.canonical import of_kind
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)

REDACTED = "[redacted]"


def redact(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault for another kind of value.

    The caller keeps NULL as NULL.
    """
    check = of_kind(kind)

    def mask(value: str) -> str:
        if check is not None:
            check(value)
        return REDACTED

    return Operator("redact", PROPERTIES, mask)


DECLARATION = Declaration(
    "redact",
    PROPERTIES,
    lambda kind, _domain, _roots: redact(kind),
    width=len(REDACTED),
    shows="nothing to reverse, with or without a key",
)

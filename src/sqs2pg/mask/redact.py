"""Redact: one constant for every value, so that only its presence shows."""

from __future__ import annotations

from sqs2pg.mask.operator import Declaration, Operator, Properties, of_kind

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)

REDACTED = "[redacted]"


def redact(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault for another kind of value.

    The caller keeps NULL as NULL.
    """
    return Operator("redact", PROPERTIES, of_kind(kind, lambda _: REDACTED))


DECLARATION = Declaration(
    "redact",
    PROPERTIES,
    lambda kind, _domain, _roots: redact(kind),
    width=len(REDACTED),
    shows="nothing to reverse, with or without a key",
)

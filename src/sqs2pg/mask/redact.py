"""Redact: one constant for every value, so that only its presence shows."""

from __future__ import annotations

from sqs2pg.mask.canonical import ip
from sqs2pg.mask.operator import Operator, Properties

PROPERTIES = Properties(
    deterministic=True, reversible=False, joinable=False, format_preserving=False
)

REDACTED = "[redacted]"


def redact(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault `bad_ip` for kind `ip`.

    A value that is not of its kind is a fault under every operator, so that changing the
    operator changes no message's outcome. NULL stays NULL, at the caller.
    """
    return Operator("redact", PROPERTIES, _mask_ip if kind == "ip" else _mask)


def _mask(_value: str) -> str:
    return REDACTED


def _mask_ip(value: str) -> str:
    ip(value)
    return REDACTED

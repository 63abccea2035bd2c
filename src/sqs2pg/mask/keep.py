"""Keep: the value as it is, for fields that the mapping declares not sensitive.

The only operator that returns cleartext, and only under its own name in the settings.
"""

from __future__ import annotations

from sqs2pg.mask.canonical import ip
from sqs2pg.mask.operator import Operator, Properties

PROPERTIES = Properties(deterministic=True, reversible=True, joinable=True, format_preserving=True)


def keep(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault `bad_ip` for kind `ip`."""
    return Operator("keep", PROPERTIES, _mask_ip if kind == "ip" else _mask)


def _mask(value: str) -> str:
    return value


def _mask_ip(value: str) -> str:
    ip(value)
    return value

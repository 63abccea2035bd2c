"""SHA-256 of the raw string, for tables that hold such hashes already. Not a protection.

Anyone can hash every IPv4 address in two minutes, so the settings want explicit consent
(`i_accept_reversible`). Byte for byte `hashlib.sha256(value.encode()).hexdigest()`: the kind only
decides whether the value is one, and spellings of one value stay apart.
"""

from __future__ import annotations

import hashlib

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mask.canonical import ip
from sqs2pg.mask.operator import Operator, Properties

PROPERTIES = Properties(deterministic=True, reversible=True, joinable=True, format_preserving=False)


def sha256(kind: str) -> Operator:
    """Return the operator for a kind. Its mask raises PermanentFault `bad_ip`, `bad_unicode`."""
    return Operator("sha256", PROPERTIES, _mask_ip if kind == "ip" else _mask)


def _mask(value: str) -> str:
    try:
        return hashlib.sha256(value.encode()).hexdigest()
    except UnicodeEncodeError:
        pass  # its context would hold the value
    raise PermanentFault("bad_unicode", stage=Stage.MASK)


def _mask_ip(value: str) -> str:
    ip(value)
    return _mask(value)

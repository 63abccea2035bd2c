"""SHA-256 of the raw string, for tables that have such hashes already. It protects nothing.

Anyone can hash every IPv4 address in two minutes, so the settings require explicit consent
(`i_accept_reversible`). Byte for byte `hashlib.sha256(value.encode()).hexdigest()`: the kind only
decides which values are accepted, and different spellings of a value get different hashes.
"""

from __future__ import annotations

import hashlib

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mask.operator import Declaration, Operator, Properties, of_kind

PROPERTIES = Properties(
    deterministic=True,
    reversible=True,
    joinable=True,
    format_preserving=False,
    # One GPU tries 2**60 in a year, so no name or number is long enough to be safe.
    values_min=2**80,
)


def sha256(kind: str) -> Operator:
    """Return the operator for a kind.

    Its mask raises PermanentFault `bad_unicode`, and what refuses a value that is not of its kind.
    """

    def mask(value: str) -> str:
        try:
            return hashlib.sha256(value.encode()).hexdigest()
        except UnicodeEncodeError:
            pass  # raised below, since its context would have the value
        raise PermanentFault("bad_unicode", stage=Stage.MASK)

    return Operator("sha256", PROPERTIES, of_kind(kind, mask))


DECLARATION = Declaration(
    "sha256", PROPERTIES, lambda kind, _domain, _roots: sha256(kind), width=64
)

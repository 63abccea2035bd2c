"""Lengths: how many characters a column needs for an operator's masks.

A column that cannot hold them would send every message to quarantine, so it is refused at start.
Encrypted text grows with its value: what is counted here is a value of 63 bytes, and each further
32 bytes take 43 characters more; a value whose token does not fit is quarantined as `too_long`.
"""

from __future__ import annotations

from sqs2pg.keys.aead import OVERHEAD_BYTES
from sqs2pg.mask.partial import HIDDEN, SHOWN_MAX
from sqs2pg.mask.redact import REDACTED
from sqs2pg.mask.token import token_length

_SIV_BYTES = 16
_VALUE_BYTES = 64
"""Padded: of text of up to 63 bytes, and of an address or UUID in its longest spelling, 45."""
_CANONICAL_BYTES = 32
"""Padded: of an address, a phone number or a UUID in its canonical form."""

_BY_OPERATOR = {
    "pseudonymize": 38,  # of version 9999
    "sha256": 64,
    "redact": len(REDACTED),
    "encrypt": token_length(OVERHEAD_BYTES + _VALUE_BYTES),
    "encrypt_deterministic": token_length(_SIV_BYTES + _VALUE_BYTES),
    "truncate_ip": len("ffff:ffff:ffff::"),
    "partial": len(HIDDEN) + SHOWN_MAX,
}
_BY_KIND = {
    ("encrypt_deterministic", "ip"): token_length(_SIV_BYTES + _CANONICAL_BYTES),
    ("encrypt_deterministic", "phone"): token_length(_SIV_BYTES + _CANONICAL_BYTES),
    ("encrypt_deterministic", "uuid"): token_length(_SIV_BYTES + _CANONICAL_BYTES),
    ("fpe_ff1", "ip"): len(":".join(["ffff"] * 8)),
    ("fpe_ff1", "phone"): 15,
    ("fpe_ff1", "uuid"): 36,
    ("partial", "ip"): len("ffff:ffff:" + HIDDEN),
}


def mask_length(operator: str, kind: str) -> int:
    """Return the characters that a column must hold; 0 where the value's own length decides."""
    return _BY_KIND.get((operator, kind), _BY_OPERATOR.get(operator, 0))

"""Encrypt, equal for equal values: AES-SIV (RFC 5297); whoever has the key gets the value back.

`d<version>_`, then SIV's 16-byte tag and the ciphertext of the padded canonical value, bound to its
domain. Tokens can be counted and joined like pseudonyms, and decrypted like ciphertexts. So an
attacker with the key opens all of them at once, where pseudonyms must be guessed one by one. Prefer
`pseudonymize`, with the vault if values must be recovered.
"""

from __future__ import annotations

import contextlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from sqs2pg.keys.derive import operator_key
from sqs2pg.mask import token
from sqs2pg.mask.canonical import CANONICAL, shown
from sqs2pg.mask.domain import Roots, active_root
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(
    deterministic=True,
    reversible=False,
    joinable=True,
    format_preserving=False,
    keyed=True,
    recoverable=True,
)
LETTER = "d"
KEY_BYTES = 64
"""Two AES-256 keys: for S2V and for CTR (RFC 5297, section 2.2)."""

_TAG_BYTES = 16
_CANONICAL_BYTES = 32
"""Padded: of an address, a phone number or a UUID in its canonical form."""
_PURPOSE = b"sqs2pg/1/encrypt_deterministic"


def encrypt_deterministic(version: int, key: bytes, domain: str, kind: str) -> Operator:
    """Return the operator of one domain; `key` is the domain's, 64 bytes.

    Its mask raises what the kind's canonical form raises.
    """
    canonical = CANONICAL[kind]
    cipher = AESSIV(key)
    bound = [_PURPOSE, token.domain_bytes(domain)]

    def mask(value: str) -> str:
        ciphertext = cipher.encrypt(token.pad(canonical(value)), bound)
        return token.format_token(LETTER, version, ciphertext)

    return Operator("encrypt_deterministic", PROPERTIES, mask)


def decrypt(key: bytes, domain: str, kind: str, ciphertext: bytes) -> str:
    """Return the canonical value of a token's ciphertext. Raises Sqs2pgError `mask_damaged`."""
    padded: bytes | None = None
    with contextlib.suppress(InvalidTag, ValueError):  # ValueError: shorter than a tag
        padded = AESSIV(key).decrypt(ciphertext, [_PURPOSE, token.domain_bytes(domain)])
    if padded is None:
        raise token.damaged()
    return shown(kind, token.unpad(padded))


def _compile(kind: str, domain: str, roots: Roots | None) -> Operator:
    version, root = active_root("encrypt_deterministic", domain, roots)
    key = operator_key(root, "encrypt_deterministic", domain, KEY_BYTES)
    return encrypt_deterministic(version, key, domain, kind)


DECLARATION = Declaration(
    "encrypt_deterministic",
    PROPERTIES,
    _compile,
    width=token.token_length(_TAG_BYTES + token.VALUE_BYTES),
    widths=dict.fromkeys(
        ("ip", "phone", "uuid"), token.token_length(_TAG_BYTES + _CANONICAL_BYTES)
    ),
)

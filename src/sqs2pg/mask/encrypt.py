"""Encrypt: AES-256-GCM, another token each time; whoever has the key gets the value back.

`e<version>_` and the sealed value (`keys/aead.py`: XAES-256-GCM, a key for each value from a
24-byte random nonce, so that one domain key is safe past 2**32 values), bound to its domain. Equal
values give unequal tokens: nothing can be counted or joined, not even by frequency.

The value is encrypted as received, padded to a multiple of 32 bytes.
"""

from __future__ import annotations

from sqs2pg.errors import Sqs2pgError
from sqs2pg.keys.aead import OVERHEAD_BYTES, SealingKey, associated, open_sealed
from sqs2pg.keys.derive import operator_key
from sqs2pg.mask import token
from sqs2pg.mask.domain import Roots, active_root
from sqs2pg.mask.operator import Declaration, Operator, Properties, of_kind

PROPERTIES = Properties(
    deterministic=False,
    reversible=False,
    joinable=False,
    format_preserving=False,
    keyed=True,
    recoverable=True,
)
LETTER = "e"

_PURPOSE = b"sqs2pg/1/encrypt"


def encrypt(version: int, key: bytes, domain: str, kind: str) -> Operator:
    """Return the operator of one domain; `key` is the domain's, 32 bytes.

    Its mask raises PermanentFault `bad_unicode`, and what refuses a value that is not of its kind.
    The mask is not a function of the value alone: the transform calls it for every row.
    """
    prepared = SealingKey(key)
    bound = associated([_PURPOSE, token.domain_bytes(domain)])

    def mask(value: str) -> str:
        sealed = prepared.seal(token.pad(token.utf8(value)), bound)
        return token.format_token(LETTER, version, sealed)

    return Operator("encrypt", PROPERTIES, of_kind(kind, mask))


def decrypt(key: bytes, domain: str, sealed: bytes) -> str:
    """Return the value of a token's ciphertext. Raises Sqs2pgError `mask_damaged`."""
    try:
        padded = open_sealed(key, sealed, [_PURPOSE, token.domain_bytes(domain)])
    except Sqs2pgError:
        padded = None  # raised below, as a damaged mask
    if padded is None:
        raise token.damaged()
    return token.unpad(padded).decode()


def _compile(kind: str, domain: str, roots: Roots | None) -> Operator:
    version, root = active_root("encrypt", domain, roots)
    return encrypt(version, operator_key(root, "encrypt", domain), domain, kind)


DECLARATION = Declaration(
    "encrypt",
    PROPERTIES,
    _compile,
    width=token.token_length(OVERHEAD_BYTES + token.VALUE_BYTES),
)

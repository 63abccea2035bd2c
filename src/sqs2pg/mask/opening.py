"""Opening: a mask of `encrypt`, `encrypt_deterministic` or `fpe_ff1` -> its value, with the key.

A Python interface for whoever has the keyring (docs/reference/masking.md); no command calls it. The
flow of messages only masks. Callers record the act in the audit first; nothing here logs or keeps
the values that it returns.
"""

from __future__ import annotations

from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.keys.derive import operator_key
from sqs2pg.mask import encrypt, encrypt_deterministic, fpe_ff1
from sqs2pg.mask.domain import Roots
from sqs2pg.mask.token import damaged, parse_token


def open_mask(mask: str, *, kind: str, domain: str, keyring: Roots) -> str:
    """Return the value of a token: `encrypt` as received, `encrypt_deterministic` canonical.

    `kind` and `domain` are those of the field that the token's column belongs to; the default
    domain is the field's source. The token names the root's version. Raises Sqs2pgError
    `not_a_mask`, `mask_damaged`; KeyFault `key_missing` if the version is not in the keyring.
    """
    letter, version, ciphertext = parse_token(mask)
    if letter == encrypt.LETTER:
        key = operator_key(keyring.root("pseudonym", version), "encrypt", domain)
        return encrypt.decrypt(key, domain, ciphertext)
    if letter == encrypt_deterministic.LETTER:
        key = operator_key(
            keyring.root("pseudonym", version),
            "encrypt_deterministic",
            domain,
            encrypt_deterministic.KEY_BYTES,
        )
        return encrypt_deterministic.decrypt(key, domain, kind, ciphertext)
    raise Sqs2pgError(
        "a token of this form cannot be opened",
        code="not_a_mask",
        hint="a pseudonym (v1_…) is looked up in the vault: `sqs2pg reveal`",
    )


def open_fpe_ff1(mask: str, *, kind: str, domain: str, keyring: Roots, version: int) -> str:
    """Return the canonical value of a mask of `fpe_ff1`, which does not name its root's version.

    A wrong version, domain or kind gives a wrong value and no error: FF1 has no checksum. Raises
    Sqs2pgError `mask_damaged` if the text does not have the form of a mask; KeyFault.
    """
    key = operator_key(keyring.root("pseudonym", version), "fpe_ff1", domain)
    try:
        return fpe_ff1.decrypt(key, kind, mask)
    except PermanentFault:
        pass
    raise damaged()

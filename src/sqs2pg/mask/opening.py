"""Opening: a mask of `encrypt`, `encrypt_deterministic` or `fpe_ff1` -> its value, with the key.

For whoever holds the keyring: no part of the flow of messages, which only masks. Callers record
the act in the audit first; nothing here logs or keeps what it returns.
"""

from __future__ import annotations

from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.keys.derive import operator_key
from sqs2pg.mask import encrypt, encrypt_deterministic, fpe_ff1
from sqs2pg.mask.domain import Roots
from sqs2pg.mask.token import damaged, unarmour


def open_mask(mask: str, *, kind: str, domain: str, keyring: Roots) -> str:
    """Return the value of a token: `encrypt` as received, `encrypt_deterministic` canonical.

    `kind` and `domain` are those of the field whose column the token stands in; the domain is the
    field's source where none is set. The token names the root's version. Raises Sqs2pgError
    `not_a_mask`, `mask_damaged`; KeyFault `key_missing` where the version is not in the keyring.
    """
    letter, version, ciphertext = unarmour(mask)
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

    Another version, domain or kind gives another value without a complaint: FF1 has no checksum.
    Raises Sqs2pgError `mask_damaged` where the mask has not the form of one; KeyFault.
    """
    key = operator_key(keyring.root("pseudonym", version), "fpe_ff1", domain)
    try:
        return fpe_ff1.decrypt(key, kind, mask)
    except PermanentFault:
        pass
    raise damaged()

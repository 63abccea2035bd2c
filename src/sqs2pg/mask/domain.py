"""Domains and roots: what the key of a keyed operator is derived from.

A domain separates tokens: the same value has unrelated tokens in two domains, equal ones in fields
that share one. The keyring comes as the protocol below: masking needs one root and its version,
and does no I/O.
"""

from __future__ import annotations

from typing import Protocol

from sqs2pg.errors import KeyFault, SettingsError
from sqs2pg.keys.derive import Secret

DOMAIN_BYTES_MAX = 255
"""Bytes of UTF-8. Some HKDF implementations bound the info string (OpenSSL 1.1 at 1,024 bytes)."""


class Roots(Protocol):
    """What masking asks of a keyring."""

    def active(self, series: str, /) -> int:
        """Return the active version of a series."""

    def root(self, series: str, version: int, /) -> bytes:
        """Return a root, 32 bytes."""


def active_root(operator: str, domain: str, roots: Roots | None) -> tuple[int, Secret]:
    """Return the version and the root that an operator makes new masks with.

    It is always a pseudonym root: masks in a table never depend on the vault's roots. Raises
    SettingsError `bad_domain`, KeyFault `key_missing` where there are no roots.
    """
    check_domain(domain)
    if roots is None:
        raise KeyFault(
            f"{operator} needs a pseudonym root key and there is no keyring",
            code="key_missing",
            hint="make one with `sqs2pg keys init` and set SQS2PG_KEYS__FILE",
        )
    version = roots.active("pseudonym")
    return version, Secret(roots.root("pseudonym", version))


def check_domain(domain: str) -> None:
    """Refuse a domain that no key is derived for. Raises SettingsError `bad_domain`."""
    try:
        length = len(domain.encode())
    except UnicodeEncodeError:
        length = 0
    if not 1 <= length <= DOMAIN_BYTES_MAX or not domain.isprintable():
        raise SettingsError(
            "the masking domain is empty, longer than 255 bytes, or not printable",
            code="bad_domain",
            hint="give the field a short domain, such as ip",
        )

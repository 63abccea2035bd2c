"""Policy: a field's operator by its name in the settings, compiled at start.

Everything that can be wrong with a field's masking is wrong here, before the first message. The
keyring comes as the protocol below: masking needs one root and its version, and does no I/O.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Protocol

from sqs2pg.errors import KeyFault, SettingsError
from sqs2pg.keys.derive import pseudonym_key
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.keep import keep
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.pseudonymize import pseudonymize
from sqs2pg.mask.redact import redact
from sqs2pg.mask.sha256 import sha256

DOMAIN_BYTES_MAX = 255
"""Of UTF-8. Some HKDF implementations bound the info string (OpenSSL 1.1 at 1,024 bytes)."""


class Roots(Protocol):
    """What masking asks of a keyring."""

    def active(self, series: str, /) -> int:
        """Return the active version of a series."""

    def root(self, series: str, version: int, /) -> bytes:
        """Return a root, 32 bytes."""


def compile_operator(name: str, *, kind: str, domain: str, keyring: Roots | None) -> Operator:
    """Return the operator of one field, ready to be called for each distinct value.

    `domain` separates tokens: the same value has unrelated tokens in two domains, equal ones in
    fields that share one. A field's own name is the default, and the caller's to give. `keyring`
    may be None for operators that use no key. The active version is taken now: compile again
    when it changes.

    Raises SettingsError `unknown_operator`, `unknown_kind`, `bad_domain`; KeyFault `key_missing`
    where an operator needs a key and there is none.
    """
    if name not in _COMPILERS:
        raise _unknown("operator", name, _COMPILERS)
    if kind not in CANONICAL:
        raise _unknown("kind", kind, CANONICAL)
    return _COMPILERS[name](kind, domain, keyring)


def _pseudonymize(kind: str, domain: str, keyring: Roots | None) -> Operator:
    _check_domain(domain)
    if keyring is None:
        raise KeyFault(
            "pseudonymize needs a pseudonym root key and there is no keyring",
            code="key_missing",
            hint="make one with `sqs2pg keys init` and set SQS2PG_KEYS__FILE",
        )
    version = keyring.active("pseudonym")
    key = pseudonym_key(keyring.root("pseudonym", version), domain)
    return pseudonymize(version, key, CANONICAL[kind])


_COMPILERS: dict[str, Callable[[str, str, Roots | None], Operator]] = {
    "pseudonymize": _pseudonymize,
    "sha256": lambda kind, _domain, _keyring: sha256(kind),
    "redact": lambda kind, _domain, _keyring: redact(kind),
    "keep": lambda kind, _domain, _keyring: keep(kind),
}

OPERATORS = tuple(sorted(_COMPILERS))
"""Every name that `mask` of a field may have."""


def _check_domain(domain: str) -> None:
    try:
        length = len(domain.encode())
    except UnicodeEncodeError:
        length = 0
    if not 1 <= length <= DOMAIN_BYTES_MAX or not domain.isprintable():
        raise SettingsError(
            "a masking domain is empty, longer than 255 bytes, or not printable",
            code="bad_domain",
            hint="set the field's domain to a short name, such as ip",
        )


def _unknown(what: str, name: str, known: Iterable[str]) -> SettingsError:
    near = difflib.get_close_matches(name, known, n=1)
    return SettingsError(
        f"unknown masking {what} {name!r}",
        code=f"unknown_{what}",
        hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}",
    )

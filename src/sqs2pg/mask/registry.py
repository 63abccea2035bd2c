"""Policy: a field's operator by its name in the settings, compiled at start.

Everything that can be wrong with a field's masking is wrong here, before the first message. The
keyring comes as the protocol below: masking needs one root and its version, and does no I/O.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Protocol

from sqs2pg.errors import KeyFault, SettingsError
from sqs2pg.keys.derive import Secret, operator_key, pseudonym_key
from sqs2pg.mask import encrypt as encrypt_module
from sqs2pg.mask import encrypt_deterministic as siv
from sqs2pg.mask import fpe_ff1 as ff1
from sqs2pg.mask import keep as keep_module
from sqs2pg.mask import nullify as nullify_module
from sqs2pg.mask import partial as partial_module
from sqs2pg.mask import pseudonymize as pseudonymize_module
from sqs2pg.mask import redact as redact_module
from sqs2pg.mask import sha256 as sha256_module
from sqs2pg.mask import truncate_ip as truncate_module
from sqs2pg.mask.canonical import CANONICAL
from sqs2pg.mask.operator import Operator, Properties

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

    Raises SettingsError `unknown_operator`, `unknown_kind`, `operator_kind`, `bad_domain`,
    `extra_missing`; KeyFault `key_missing`
    where an operator needs a key and there is none.
    """
    if name not in _COMPILERS:
        raise _unknown("operator", name, _COMPILERS)
    if kind not in CANONICAL:
        raise _unknown("kind", kind, CANONICAL)
    if kind not in PROPERTIES[name].kinds:
        raise SettingsError(
            f"mask = {name!r} cannot mask values of kind {kind!r}",
            code="operator_kind",
            hint=f"it masks kind = {' or '.join(PROPERTIES[name].kinds)}",
        )
    return _COMPILERS[name](kind, domain, keyring)


def _pseudonymize(kind: str, domain: str, keyring: Roots | None) -> Operator:
    version, root = _active_root("pseudonymize", domain, keyring)
    return pseudonymize_module.pseudonymize(version, pseudonym_key(root, domain), CANONICAL[kind])


def _encrypt(kind: str, domain: str, keyring: Roots | None) -> Operator:
    version, root = _active_root("encrypt", domain, keyring)
    return encrypt_module.encrypt(version, operator_key(root, "encrypt", domain), domain, kind)


def _encrypt_deterministic(kind: str, domain: str, keyring: Roots | None) -> Operator:
    version, root = _active_root("encrypt_deterministic", domain, keyring)
    key = operator_key(root, "encrypt_deterministic", domain, siv.KEY_BYTES)
    return siv.encrypt_deterministic(version, key, domain, kind)


def _fpe_ff1(kind: str, domain: str, keyring: Roots | None) -> Operator:
    _, root = _active_root("fpe_ff1", domain, keyring)
    return ff1.fpe_ff1(operator_key(root, "fpe_ff1", domain), kind)


def _active_root(name: str, domain: str, keyring: Roots | None) -> tuple[int, Secret]:
    """Return the root that new masks are made with; what is in a table never needs the vault's."""
    check_domain(domain)
    if keyring is None:
        raise KeyFault(
            f"{name} needs a pseudonym root key and there is no keyring",
            code="key_missing",
            hint="make one with `sqs2pg keys init` and set SQS2PG_KEYS__FILE",
        )
    version = keyring.active("pseudonym")
    return version, Secret(keyring.root("pseudonym", version))


_COMPILERS: dict[str, Callable[[str, str, Roots | None], Operator]] = {
    "pseudonymize": _pseudonymize,
    "encrypt": _encrypt,
    "encrypt_deterministic": _encrypt_deterministic,
    "fpe_ff1": _fpe_ff1,
    "sha256": lambda kind, _domain, _keyring: sha256_module.sha256(kind),
    "truncate_ip": lambda _kind, _domain, _keyring: truncate_module.truncate_ip(),
    "partial": lambda kind, _domain, _keyring: partial_module.partial(kind),
    "redact": lambda kind, _domain, _keyring: redact_module.redact(kind),
    "nullify": lambda kind, _domain, _keyring: nullify_module.nullify(kind),
    "keep": lambda kind, _domain, _keyring: keep_module.keep(kind),
}

PROPERTIES: dict[str, Properties] = {
    "pseudonymize": pseudonymize_module.PROPERTIES,
    "encrypt": encrypt_module.PROPERTIES,
    "encrypt_deterministic": siv.PROPERTIES,
    "fpe_ff1": ff1.PROPERTIES,
    "sha256": sha256_module.PROPERTIES,
    "truncate_ip": truncate_module.PROPERTIES,
    "partial": partial_module.PROPERTIES,
    "redact": redact_module.PROPERTIES,
    "nullify": nullify_module.PROPERTIES,
    "keep": keep_module.PROPERTIES,
}
"""What each operator declares, by its name: known without a key."""

KEYED = frozenset({"pseudonymize", "encrypt", "encrypt_deterministic", "fpe_ff1"})
"""Operators whose mask needs a key."""

OF_CANONICAL_FORM = KEYED - {"encrypt"}
"""Operators whose masks are equal for all spellings of a value."""

OPERATORS = tuple(sorted(_COMPILERS))
"""Every name that `mask` of a field may have."""


def properties(name: str) -> Properties:
    """Return what an operator declares. Raises SettingsError `unknown_operator`."""
    if name not in PROPERTIES:
        raise _unknown("operator", name, PROPERTIES)
    return PROPERTIES[name]


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


def _unknown(what: str, name: str, known: Iterable[str]) -> SettingsError:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return SettingsError(
        f"unknown masking {what} {name!r}",
        code=f"unknown_{what}",
        hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}",
    )

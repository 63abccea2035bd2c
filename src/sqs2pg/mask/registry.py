"""The registry: every masking operator by its name in the settings, compiled at start.

Whatever is wrong with a field's masking is refused here, before the first message.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqs2pg.errors import SettingsError, nearest
from sqs2pg.mask import (
    encrypt,
    encrypt_deterministic,
    fpe_ff1,
    keep,
    nullify,
    partial,
    pseudonymize,
    redact,
    sha256,
    truncate_ip,
)
from sqs2pg.mask.canonical import CANONICAL, IP_OR_TEXT
from sqs2pg.mask.domain import Roots
from sqs2pg.mask.operator import KINDS, Declaration, Operator, Properties

OPERATORS: dict[str, Declaration] = {
    module.DECLARATION.name: module.DECLARATION
    for module in (
        encrypt,
        encrypt_deterministic,
        fpe_ff1,
        keep,
        nullify,
        partial,
        pseudonymize,
        redact,
        sha256,
        truncate_ip,
    )
}
"""What each operator declares, by its name, in the order of the names. Known without a key."""

KEYED = frozenset(name for name, known in OPERATORS.items() if known.properties.keyed)
"""Operators whose mask needs a key."""

OF_CANONICAL_FORM = frozenset(
    name for name, known in OPERATORS.items() if known.properties.of_canonical_form
)
"""Operators whose masks are equal for all spellings of a value."""


def compile_operator(name: str, *, kind: str, domain: str, keyring: Roots | None) -> Operator:
    """Return the operator of one field, ready to be called for each distinct value.

    `domain` is the field's own name by default, which is the caller's to give. `keyring` may be
    None for operators that use no key. The active version is taken now: compile again when it
    changes.

    Raises SettingsError `unknown_operator`, `unknown_kind`, `operator_kind`, `bad_domain`,
    `extra_missing`; KeyFault `key_missing` where an operator needs a key and there is none.
    """
    kinds = properties(name).kinds
    if kind not in CANONICAL:
        raise _unknown("kind", kind, KINDS)
    if not (kinds == KINDS if kind == IP_OR_TEXT else kind in kinds):
        raise SettingsError(
            f"mask = {name!r} cannot mask values of kind {kind!r}",
            code="operator_kind",
            hint=f"it masks kind = {' or '.join(kinds)}",
        )
    return OPERATORS[name].compile(kind, domain, keyring)


def properties(name: str) -> Properties:
    """Return what an operator promises. Raises SettingsError `unknown_operator`."""
    if name not in OPERATORS:
        raise _unknown("operator", name, OPERATORS)
    return OPERATORS[name].properties


def mask_length(name: str, kind: str) -> int:
    """Return the characters that a column must hold; 0 where the value's own length decides."""
    known = OPERATORS[name]
    return known.widths.get(kind, known.width)


def _unknown(what: str, name: str, known: Iterable[str]) -> SettingsError:
    near = nearest(name, sorted(known))
    return SettingsError(
        f"unknown masking {what} {name!r}",
        code=f"unknown_{what}",
        hint=f"did you mean {near}?" if near else f"known: {', '.join(sorted(known))}",
    )

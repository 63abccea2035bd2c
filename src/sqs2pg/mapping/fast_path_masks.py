"""The fast path's masks: which operators the C code applies, to which canonical forms.

No I/O here.
"""

from __future__ import annotations

from sqs2pg.mapping.fast_path_tree import NotFastError
from sqs2pg.mask.canonical import IP_OR_TEXT
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.settings import Field
from sqs2pg.settings.mask_rules import MASKABLE

# The enumerations and the bound of native/mask.h.
_OPERATORS = {
    name: number
    for number, name in enumerate(
        ("", "keep", "pseudonymize", "sha256", "redact", "nullify", "truncate_ip", "partial")
    )
}
_KINDS = {
    name: number
    for number, name in enumerate(("text", "ip", "email", "phone", "uuid", "exact", IP_OR_TEXT))
}
_PREFIX_MAX = 8

Pseudonym = tuple[int, bytes, bytes]
"""Kind, the token's prefix and its key, as C code takes them."""

NO_MASK = (_OPERATORS[""], 0, b"", b"")
"""What `compile_mask` returns without a mask."""


def compile_mask(field: Field, mask: Operator | Mask | None) -> tuple[int, int, bytes, bytes]:
    """Return operator, kind, the token's prefix and key. Raises NotFastError."""
    if mask is None:
        return NO_MASK
    if not isinstance(mask, Operator) or mask.name not in _OPERATORS:
        raise NotFastError
    constant = mask.name in ("redact", "nullify") and field.kind == "text"
    if field.mask_kind not in _KINDS or not (constant or field.type in MASKABLE):
        raise NotFastError  # a mask takes such a value as it is, not in the type's form
    if field.mask_kind == IP_OR_TEXT and mask.name == "partial":
        raise NotFastError
    token = mask.token
    prefix, key, kind = (token.prefix.encode(), token.key, token.form) if token else (b"", b"", "")
    if len(prefix) > _PREFIX_MAX or kind is None or (mask.name == "pseudonymize" and not token):
        raise NotFastError
    return _OPERATORS[mask.name], _KINDS[kind or field.mask_kind], prefix, bytes(key)


def compile_pseudonym(field: Field, mask: Operator) -> Pseudonym | None:
    """Return how C code makes the pseudonyms of a field; None where it cannot."""
    if field.type != "text":
        return None  # the mask takes the form that the type gives the value
    try:
        _, kind, prefix, key = compile_mask(field, mask)
    except NotFastError:
        return None
    return kind, prefix, key

"""Mask rules: whether a field fits its mask, by what the operator declares. Checked at start.

Each refusal says what would go wrong and what to set instead. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqs2pg.errors import SettingsError
from sqs2pg.mask.domain import check_domain
from sqs2pg.mask.operator import KINDS
from sqs2pg.mask.registry import properties
from sqs2pg.settings import source_paths
from sqs2pg.settings.fields import DROP, Field, read_of_message

MASKABLE = ("text", "integer", "bigint", "uuid")
"""Types of fields that an operator may mask: it gets their text."""
MASKABLE_ARRAYS = tuple(f"{name}[]" for name in MASKABLE)
"""Types of arrays whose elements an operator may mask, each by itself."""


def check_fields(
    fields: Iterable[Field], *, accept_reversible: bool, cost: Callable[[], str]
) -> None:
    """Raise SettingsError for the first field that does not fit its mask.

    `cost` tells how long reversing a reversible mask takes; it is called only for that refusal.
    Codes: `unknown_operator`, `operator_kind`, `reversible_mask`, `mask_type`,
    `mask_not_recoverable`, `bad_domain`, `too_few_values`, `kept_beside_mask`, `domain_mixed`.
    """
    fields = list(fields)
    for field in fields:
        _check_field(field, accept_reversible=accept_reversible, cost=cost)
    _check_together(fields)


def _check_field(field: Field, *, accept_reversible: bool, cost: Callable[[], str]) -> None:
    where = f"field {field.name!r}"
    declared = properties(field.mask)
    mixed = field.mask_kind != field.kind
    if field.kind not in declared.kinds or (mixed and declared.kinds != KINDS):
        raise SettingsError(
            f"{where}: mask = {field.mask!r} cannot mask values of kind {field.kind!r}"
            + (", or text" if mixed else ""),
            code="operator_kind",
            hint=f"it masks kind = {' or '.join(map(repr, declared.kinds))}",
        )
    if declared.reversible and field.mask != "keep" and not accept_reversible:
        raise SettingsError(
            f'{where}: mask = "{field.mask}" is reversible: {cost()}',
            code="reversible_mask",
            hint='use mask = "pseudonymize", or set i_accept_reversible = true for the old output',
        )
    maskable = field.type in (*MASKABLE, *MASKABLE_ARRAYS)
    if not maskable and field.mask not in ("keep", "redact", "nullify"):
        raise SettingsError(
            f"{where}: mask = {field.mask!r} gives text, but its type is {field.type!r}",
            code="mask_type",
            hint='set type = "text", or "integer", "bigint" or "uuid", for a masked field, or an '
            "array of one of them",
        )
    if field.recover and field.type.endswith("[]"):
        raise SettingsError(
            f"{where}: recover = true on an array: the vault keeps one value for one token",
            code="mask_not_recoverable",
            hint="remove recover, or `explode` the array into rows of its elements",
        )
    if field.recover and not (declared.deterministic and declared.joinable):
        raise SettingsError(
            f"{where}: recover = true needs a mask by which a value is found again, and "
            f"{field.mask!r} "
            + (
                "is the same for many values"
                if declared.deterministic
                else "gives another mask each time"
            ),
            code="mask_not_recoverable",
            hint='use mask = "pseudonymize"'
            + (", or leave out recover: the key opens it" if declared.recoverable else ""),
        )
    if field.recover and field.mask == "keep":
        raise SettingsError(
            f"{where}: recover = true on a field that is kept as it is: there is nothing to "
            "recover, and the vault would store the cleartext value as its own token",
            code="mask_not_recoverable",
            hint='remove recover, or set mask = "pseudonymize"',
        )
    if declared.keyed:
        try:
            check_domain(field.domain or field.name)
        except SettingsError as error:
            error.what = f"{where}: {error.what}"
            raise
    few = field.possible_values
    if few is not None and few < declared.values_min and not declared.reversible:
        raise SettingsError(
            f"{where}: mask = {field.mask!r} is safe for {declared.values_min:,} possible values "
            f"or more, and the field has {few:,}",
            code="too_few_values",
            hint='use mask = "pseudonymize"',
        )


def _check_together(fields: list[Field]) -> None:
    for field in fields:
        if field.mask != "keep":
            continue
        for other in fields:
            if other.mask in ("keep", "partial", DROP) or not other.sources:
                continue
            shared = shared_source(field, other)
            if shared is not None:
                kept, masked = shared
                raise SettingsError(
                    f"field {masked!r} is masked for one column and kept for another"
                    + ("" if kept == masked else f", inside {kept!r}"),
                    code="kept_beside_mask",
                    hint="readers of the table see both; mask it in each, or drop one",
                )
    by_domain: dict[str, Field] = {}
    for field in fields:
        if not field.domain:
            continue
        first = by_domain.setdefault(field.domain, field)
        if (first.kind, first.mask) != (field.kind, field.mask):
            raise SettingsError(
                f"fields {first.name!r} and {field.name!r} share the domain "
                f"{field.domain!r} and would not join: "
                f"{first.mask} of {first.kind} and {field.mask} of {field.kind}",
                code="domain_mixed",
                hint="give them the same mask and kind, or domains of their own",
            )


def shared_source(outer: Field, inner: Field) -> tuple[str, str] | None:
    """Return a source of each field so that the first holds the second; None: no pair."""
    beside = read_of_message(outer)
    pairs = ((one, other) for one in outer.body_sources for other in inner.body_sources)
    found = next((pair for pair in pairs if source_paths.contains(*pair)), None)
    same = ((other, other) for other in inner.sources if other in beside)
    return found or next(same, None)

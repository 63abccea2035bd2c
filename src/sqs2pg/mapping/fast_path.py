"""The fast path: a mapping compiled to what the C code of the native executor follows.

There is none if this installation lacks the extension, or if the mapping has something that the C
code cannot do. No I/O here; the C code is in native/ of the source tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.budget import is_packed
from sqs2pg.mapping.column_cells import missing_cell
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.copy_text import NULL
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.fast_path_checks import compile_checks
from sqs2pg.mapping.fast_path_conditions import (
    compile_condition,
    compile_mode,
    says_deletion,
    without_deletion,
)
from sqs2pg.mapping.fast_path_conversions import compile_conversion
from sqs2pg.mapping.fast_path_masks import NO_MASK, compile_mask
from sqs2pg.mapping.fast_path_tree import NotFastError, Tree
from sqs2pg.mapping.field_types import FIELD_TYPES, INTEGER_RANGES
from sqs2pg.mapping.ledger_key import EventKeys
from sqs2pg.mapping.native_encoder import FastPath, PackLines
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.message import Message
from sqs2pg.settings import (
    ATTRIBUTE,
    SYSTEM,
    Field,
    Settings,
    Target,
    is_of_message,
    required_sources,
)
from sqs2pg.settings.expression_rules import syntaxes

# The enumerations of native/plan.h.
_NOWHERE, _DOCUMENT, _ELEMENT, _LAYER, _CONDITION = range(5)
_PYTHONS, _CELL, _DAY, _SENT_DAY, _SENT_TIME, _SENT_MS, _MESSAGE_ID, _RECORD_INDEX = range(8)
_TYPES = {
    name: number
    for number, names in enumerate(
        [
            ("text",),
            ("integer", "bigint"),
            ("numeric",),
            ("double",),
            ("boolean",),
            ("date",),
            ("timestamptz",),
            ("uuid",),
            ("inet",),
            ("jsonb",),
            ("version",),
            ("major",),
        ]
    )
    for name in names
}
_WHOLE = {"integer": 2**31, "bigint": 2**63, "version": 2**63, "major": 2**63}
"""The bound of the types whose text is a whole number: from -bound to bound - 1."""
_RECORDS = {"one": 0, "array": 1, "lines": 2, "auto": 3}
_NO_USE, _TEXT, _SLICE, _SNS_TYPE, _ATTRIBUTES = range(5)
_TARGETS_MAX, _COLUMNS_MAX, _LAYERS_MAX = 8, 128, 4
_ATTRIBUTES_MAX, _FILTERS_MAX = 16, 8

_LAYERS: dict[str, dict[str, int]] = {
    "s3": {},  # only to see that the body does not point to an object
    "sns": {"Type": _SNS_TYPE, "Message": _TEXT}
    | dict.fromkeys(("MessageId", "TopicArn", "Timestamp"), _NO_USE),
    "eventbridge": {"detail": _SLICE}
    | dict.fromkeys(
        ("version", "id", "detail-type", "source", "account", "time", "region"), _NO_USE
    ),
}
"""The names that an envelope must have (`envelope/formats.py`), and what each is for."""
_FLAG = (
    *(_CONDITION, 0, False, _TYPES["boolean"], 0, 0, _PYTHONS, b"", -1),
    *NO_MASK,
    (),
)
"""The column that says whether a record deletes."""
_SILENT = frozenset({"base64", "gzip", "zstd", "content_encoding"})
"""Layers that say nothing of the message inside."""
_SAID = {
    "sns": ("MessageId", "TopicArn", "Timestamp", "Subject"),
    "eventbridge": ("id", "detail-type", "source", "account", "time", "region"),
}
"""What an envelope says of the message inside, where it is a text."""


def compile_fast_path(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | Mask | None]],
    extension: ModuleType | None,
    dedupe: EventKeys | None = None,
) -> FastPath | None:
    """Return the fast path of a mapping; None without the extension, or where it cannot do it.

    `columns[t]` and `masks[t]` are those of the fields of target t, in their order. `dedupe` makes
    the keys of events, where `ledger.dedupe_key` is set.
    """
    if extension is None:
        return None
    opens = is_packed(settings.envelope)
    try:
        inside = _without_layers(settings) if opens else settings
        given = _compile(inside, columns, masks, dedupe)
    except NotFastError:
        return None
    compiled = extension.FastPath(*given)
    if opens:
        return OpeningFastPath(compiled, Envelope(settings.envelope))
    return cast("FastPath", compiled)


class OpeningFastPath:
    """A fast path whose units Python takes out of their envelopes, one at a time."""

    pack_lines: PackLines | None = None

    def __init__(self, inside: Any, envelope: Envelope) -> None:
        """`inside`: the extension's, for what is in the envelope."""
        self._inside = inside
        self._envelope = envelope

    def pack(
        self,
        units: Sequence[Message],
        ledger_end: bytes,
        keying: int,
        in_order: bool,
        left: bytes,
        bytes_max: int = 0,
        records_max: int = 0,
        text_max: int = 0,
        /,
    ) -> tuple[Any, ...] | None:
        """See `FastPath`."""
        bounds = (bytes_max, records_max, text_max)
        return cast(
            "tuple[Any, ...] | None",
            self._inside.pack(
                units, ledger_end, keying, in_order, left, *bounds, self._envelope.content
            ),
        )


def _without_layers(settings: Settings) -> Settings:
    """Return the settings of what is in the envelope.

    Raises NotFastError where a field may read what the envelope says.
    """
    says = not set(settings.envelope.layers) <= _SILENT
    if says and any(map(_attribute_of, settings.fields)):
        raise NotFastError
    envelope = msgspec.structs.replace(settings.envelope, layers=())
    return msgspec.structs.replace(settings, envelope=envelope)


def _compile(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | Mask | None]],
    dedupe: EventKeys | None,
) -> tuple[Any, ...]:
    """Return the arguments of the extension's FastPath. Raises NotFastError."""
    if any(map(is_of_message, (s for field in settings.fields for s in field.sources))):
        raise NotFastError
    targets = settings.targets
    if syntaxes(map(without_deletion, targets), settings.filters):
        raise NotFastError  # the C code evaluates no expression
    if len(settings.filters) > _FILTERS_MAX:
        raise NotFastError
    event = settings.ledger.dedupe_key
    if event and (dedupe is None or settings.envelope.records != "one"):
        raise NotFastError
    if settings.dropped and settings.envelope.records != "one":
        raise NotFastError
    tree = Tree(targets, event, settings.dropped, settings.filters)
    forbid_unknown = settings.unknown_fields == "quarantine"
    if len(targets) > _TARGETS_MAX or (forbid_unknown and tree.has_indexes):
        raise NotFastError
    said = _said_by_layers(settings)
    attributes = _attributes(settings, said)
    slots = said | {name: len(said) + index for index, name in enumerate(attributes)}
    compiled = []
    for number, target in enumerate(targets):
        places = _Places(tree, target, number, slots, attributes)
        its_columns = tuple(map(places.column, target.fields, columns[number], masks[number]))
        compiled.append(
            (
                compile_mode(target.when, routed=settings.routed),
                tree.groups_of[number],
                tree.conditions[number],
                *compile_condition(target.when),
                tree.deletes[number],
                *compile_condition(target.write.delete_when),
                its_columns,
            )
        )
    if any(len(target.fields) > _COLUMNS_MAX for target in targets):
        raise NotFastError
    return (
        tree.nodes(),
        tree.groups(),
        tuple(compiled),
        _layers(settings.envelope.layers, said),
        forbid_unknown,
        settings.drops_unmatched,
        _RECORDS[settings.envelope.records],
        tree.slots,
        len(said) + len(attributes),
        attributes,
        () if dedupe is None else (tree.event, dedupe.secret, dedupe.prefix),
        tree.dropped,
        tuple(
            (slot, *compile_condition(one.when))
            for slot, one in zip(tree.filters, settings.filters, strict=True)
        ),
        _recovery(settings, tree),
        compile_checks(settings, tree),
    )


def _recovery(settings: Settings, tree: Tree) -> tuple[Any, ...]:
    """Return the slot of the person's id and the recoverable columns; () without the vault.

    `compile_encoder.py` says of which mappings the extension keeps originals.
    """
    if not settings.vault.enabled:
        return ()
    target, *more = settings.targets
    if more or target.explode or settings.routed or settings.envelope.records != "one":
        raise NotFastError
    _, subject = tree.slot(0, settings.vault.subject)
    return subject, tuple(place for place, field in enumerate(target.fields) if field.recover)


def _said_by_layers(settings: Settings) -> dict[str, int]:
    """Return the attributes of the envelope that fields read, each with its slot."""
    layers = settings.envelope.layers
    if len(layers) > _LAYERS_MAX or not set(layers) <= _LAYERS.keys():
        raise NotFastError
    known = {f"{layer}.{name}" for layer in layers for name in _SAID.get(layer, ())}
    read = dict.fromkeys(map(_attribute_of, settings.fields))
    return {name: slot for slot, name in enumerate(name for name in read if name in known)}


def _attributes(settings: Settings, said: dict[str, int]) -> tuple[str, ...]:
    """Return the attributes of the message itself that fields read.

    An envelope may bring attributes of its own, which count more: then Python reads them all.
    """
    if not set(settings.envelope.layers) <= {"s3"}:
        return ()
    read = dict.fromkeys(_attribute_of(field) for field in settings.fields if not field.sources)
    names = tuple(name for name in read if name and name not in said)
    if len(said) + len(names) > _ATTRIBUTES_MAX:
        raise NotFastError
    return names


def _attribute_of(field: Field) -> str:
    """Return the attribute that a field's default names; "" where it names none."""
    default = field.default
    if not isinstance(default, str) or not default.startswith(ATTRIBUTE):
        return ""
    return default.removeprefix(ATTRIBUTE)


def _layers(layers: Sequence[str], said: dict[str, int]) -> tuple[Any, ...]:
    return tuple(
        tuple(
            (
                name.encode(),
                name in _LAYERS[layer],
                use,
                said.get(f"{layer}.{name}", -1),
            )
            for name, use in _names(layer, said).items()
        )
        for layer in layers
    )


def _names(layer: str, said: dict[str, int]) -> dict[str, int]:
    names = dict(_LAYERS[layer])
    if layer == "sns" and said:
        names |= {"Subject": _NO_USE, "MessageAttributes": _ATTRIBUTES}
    return names


class _Places:
    """Where the values of one target are found; makes its columns."""

    def __init__(
        self, tree: Tree, target: Target, number: int, said: dict[str, int], own: Sequence[str]
    ) -> None:
        """`number`: the target's index. `said`: slots of attributes; `own`: the message's own."""
        self._own = own
        self._target_of = target
        self._tree = tree
        self._target = number
        self._said = said
        self._required = required_sources(target.fields)

    def column(self, field: Field, column: Column, mask: Operator | Mask | None) -> tuple[Any, ...]:
        """Return one column as the extension takes it. Raises NotFastError."""
        if says_deletion(field, self._target_of):
            return _FLAG
        if field.type not in _TYPES or column.labels is not None:
            raise NotFastError
        whole_number = INTEGER_RANGES.get(column.type)
        if whole_number and (field.type not in _WHOLE if mask is None else not _is_null(mask)):
            raise NotFastError
        bound = _WHOLE.get(field.type, 0)
        low, high = whole_number or (-(2**63), 2**63 - 1)
        limits = [limit for limit in (field.length_max, column.length_max) if limit]
        own = _attribute_of(field) in self._own
        missing, cell = _missing(field, column, mask, own_attribute=own)
        if missing == _DAY and limits and min(limits) < len("YYYY-MM-DD"):
            missing = _PYTHONS
        return (
            *self._source(field),
            bool(field.sources) and (field.required or self._required[field.first_source]),
            _TYPES[field.type],
            max(low, -bound),
            min(high, bound - 1),
            missing,
            cell,
            -1 if whole_number or not limits else min(limits),
            *compile_mask(field, mask),
            compile_conversion(field, column, mask, self._others(field)),
        )

    def _others(self, field: Field) -> list[tuple[int, int]]:
        """Return the places of the sources besides the first."""
        places = [self._tree.slot(self._target, source) for source in field.sources[1:]]
        return [(_ELEMENT if depth else _DOCUMENT, slot) for depth, slot in places]

    def _source(self, field: Field) -> tuple[int, int]:
        if field.sources:
            depth, slot = self._tree.slot(self._target, field.first_source)
            return (_ELEMENT if depth else _DOCUMENT), slot
        name = _attribute_of(field)
        if not name:
            return _NOWHERE, 0
        if name not in self._said or FIELD_TYPES[field.type].json_kind != "string":
            raise NotFastError
        return _LAYER, self._said[name]


def _missing(
    field: Field, column: Column, mask: Operator | Mask | None, *, own_attribute: bool
) -> tuple[int, bytes]:
    """Return what a missing value becomes. `own_attribute`: it is the message's, no envelope's."""
    default = field.default
    null = (_CELL, NULL.encode()) if column.nullable else (_PYTHONS, b"")
    if default is None:
        return null
    if default == "record_index" and field.sources:
        return null
    if isinstance(default, str):
        if default.startswith(SYSTEM):
            raise NotFastError
        if _attribute_of(field):
            # What an envelope does not say, the message itself may: Python looks.
            return null if not field.sources and own_attribute else (_PYTHONS, b"")
        if default == "sent_date" and field.type == "date":
            return _DAY, b""
        said = {
            "sent_date": _SENT_DAY,
            "sent_time": _SENT_MS if field.type == "bigint" else _SENT_TIME,
            "message_id": _MESSAGE_ID,
            "record_index": _RECORD_INDEX,
        }
        if default in said:
            number = said[default] in (_SENT_MS, _RECORD_INDEX)
            if FIELD_TYPES[field.type].json_kind not in ("string", "number" if number else ""):
                raise NotFastError
            return said[default], b""
    cell = missing_cell(field, column, mask)
    return (_PYTHONS, b"") if isinstance(cell, PermanentFault) else (_CELL, cell.encode())


def _is_null(mask: Operator | Mask) -> bool:
    return isinstance(mask, Operator) and mask.name == "nullify"

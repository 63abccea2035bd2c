"""The compiler of encoders: settings, columns and masks -> an executor. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from types import ModuleType

from sqs2pg.mapping.budget import budget_of
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.conversions import json_kind
from sqs2pg.mapping.convert import text
from sqs2pg.mapping.encoder import Encoder
from sqs2pg.mapping.fast_path import compile_fast_path
from sqs2pg.mapping.fast_path_checks import checked_names
from sqs2pg.mapping.fast_path_tree import node_paths
from sqs2pg.mapping.ledger_key import UNDATED_MS, EventKeys, delivery_keys, line_keys
from sqs2pg.mapping.native_encoder import Keying, NativeEncoder
from sqs2pg.mapping.object_batch import ObjectEncoder
from sqs2pg.mapping.packed_originals import PackedFields
from sqs2pg.mapping.python_encoder import PythonEncoder
from sqs2pg.mapping.subject import stored_form
from sqs2pg.mask.operator import Operator
from sqs2pg.message import Message
from sqs2pg.settings import Settings, is_of_message, source_paths

_message_id = attrgetter("message_id")
_sent_timestamp = attrgetter("attributes.sent_timestamp")


def compile_encoder(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | None]],
    extension: ModuleType | None,
    *,
    keying: Keying = "dated",
    dedupe: EventKeys | None = None,
    clock: Callable[[], float] = lambda: 0.0,
) -> Encoder:
    """Return the native executor where it can do the mapping, else the reference.

    `columns[t]` and `masks[t]` are those of the fields of target t. `extension`: None for the
    reference. `clock` as of PythonEncoder. Raises SettingsError where they do not fit together.
    """
    if not settings.envelope.has_objects or keying == "lines":
        return _units_encoder(settings.of_units, columns, masks, extension, keying, dedupe, clock)
    lines = _units_encoder(settings.of_units, columns, masks, extension, "lines", dedupe, clock)
    return ObjectEncoder(
        lines,
        len(settings.targets),
        _KEYS[keying],
        together=dedupe is not None,
        budget=budget_of(settings),
    )


def _units_encoder(
    settings: Settings,
    columns: Sequence[Sequence[Column]],
    masks: Sequence[Sequence[Operator | None]],
    extension: ModuleType | None,
    keying: Keying,
    dedupe: EventKeys | None,
    clock: Callable[[], float],
) -> Encoder:
    vault = settings.vault.enabled
    budget = budget_of(settings)
    python = PythonEncoder(
        compile_mapping(settings, columns, masks),
        len(settings.targets),
        _KEYS[keying],
        dedupe=dedupe,
        in_order=keying == "undated",
        recovers=vault,
        clock=clock,
        budget=budget,
    )
    if vault and not _finds_subjects(settings):
        return python
    fast_path = compile_fast_path(settings, columns, masks, extension, dedupe)
    if fast_path is None:
        return python
    originals = PackedFields(settings.fields, extension) if vault and extension else None
    paths = node_paths(settings)
    return NativeEncoder(
        fast_path,
        python,
        keying,
        settings.dropped,
        originals,
        paths,
        budget,
        checked_names(settings),
    )


def _finds_subjects(settings: Settings) -> bool:
    """Whether the C code finds the stored id of a person in the body, and values as they came."""
    [target, *more] = settings.targets
    is_plain = not (more or target.explode or settings.route or settings.envelope.layers)
    return (
        is_plain
        and settings.envelope.records == "one"
        and all(
            json_kind(field) == "string"
            and not field.edits_text
            and len(field.sources) == 1
            and source_paths.is_plain(field.first_source)
            and not is_of_message(field.first_source)
            for field in target.fields
        )
        and stored_form(settings.fields, settings.vault.subject) is text
    )


def _dated_keys(units: Sequence[Message]) -> list[str]:
    return delivery_keys(list(map(_message_id, units)), list(map(_sent_timestamp, units)))


def _undated_keys(units: Sequence[Message]) -> list[str]:
    return delivery_keys(list(map(_message_id, units)), [UNDATED_MS] * len(units))


def _line_keys(units: Sequence[Message]) -> list[str]:
    return line_keys(list(map(_message_id, units)), list(map(_sent_timestamp, units)))


_KEYS: dict[Keying, Callable[[Sequence[Message]], list[str]]] = {
    "dated": _dated_keys,
    "undated": _undated_keys,
    "lines": _line_keys,
}

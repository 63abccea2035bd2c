"""Rules over several settings: each is valid by itself, but not together with another.

`load` calls them once. Every refusal says what is wrong, where, and what to change. No I/O.
"""

from __future__ import annotations

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.mask.brute_force import cost_to_reverse
from sqs2pg.mask.registry import OF_CANONICAL_FORM
from sqs2pg.settings import source_paths
from sqs2pg.settings.conversion_rules import check_conversions
from sqs2pg.settings.expression_rules import check_expressions, first_names
from sqs2pg.settings.fields import DROP, EnvelopeSettings, Field, is_of_message
from sqs2pg.settings.mask_rules import check_fields, shared_source
from sqs2pg.settings.message_rules import check_message_sources, check_of_body
from sqs2pg.settings.routes import Route
from sqs2pg.settings.sections import Settings
from sqs2pg.settings.write_rules import check_write_modes


def cross_check(settings: Settings) -> None:
    """Refuse settings that are each valid but do not fit together."""
    check_fields(
        settings.fields, accept_reversible=settings.i_accept_reversible, cost=cost_to_reverse
    )
    _check_routes(settings)
    check_expressions(settings)
    _check_envelope(settings)
    _check_dropped(settings)
    for target in settings.targets:
        columns = [field.column for field in target.fields]
        for column in columns:
            if columns.count(column) > 1:
                raise SettingsError(
                    f"two fields go to the column {column!r}",
                    hint="give each [[field]] a column of its own",
                )
        for field in target.fields:
            _check_field(field)
        source_paths.compile_sources(
            [source for field in target.fields for source in field.body_sources], target.explode
        )
    if settings.vault.enabled and settings.vault.subject not in {
        field.first_source for field in settings.fields
    }:
        raise SettingsError(
            f"vault.subject names {settings.vault.subject!r}, which is not the source of any field",
            hint="set vault.subject to the source of a mapped field, such as user_id",
        )
    check_of_body(settings)
    _check_subject(settings)
    check_write_modes(settings)


def _check_subject(settings: Settings) -> None:
    """Refuse a person's field if its columns could not tell people apart or find them again."""
    if not settings.vault.enabled:
        return
    about = [field for field in settings.fields if field.first_source == settings.vault.subject]
    if any(field.over_length == "truncate" for field in about):
        raise SettingsError(
            f'field {settings.vault.subject!r}: over_length = "truncate" on vault.subject',
            code="subject_truncated",
            hint="a cut id may belong to several people, and an erasure would not find it: remove "
            "over_length",
        )
    forms = {field.mask_kind if field.mask in OF_CANONICAL_FORM else "text" for field in about}
    if len(forms) > 1:
        raise SettingsError(
            f"field {settings.vault.subject!r} (vault.subject) has masks of several kinds",
            code="subject_kinds",
            hint="one mask stands for one person, in any spelling: give them all the same kind",
        )
    if any(field.map for field in about):
        raise SettingsError(
            f"field {settings.vault.subject!r}: map on vault.subject",
            code="subject_map",
            hint="a person is found by the id that messages have: map it in another field",
        )
    edits = {(f.sources, f.trim, f.lower, f.upper, f.empty) for f in about}
    if len(edits) > 1:
        raise SettingsError(
            f"field {settings.vault.subject!r} (vault.subject) has several conversions",
            code="subject_conversions",
            hint="they decide who a person is: give its fields the same source, trim, lower, upper "
            "and empty",
        )
    if len({field.type for field in about}) > 1:
        raise SettingsError(
            f"field {settings.vault.subject!r} (vault.subject) has several types",
            code="subject_types",
            hint="the type decides the form of a person's id: give them all the same type",
        )


def _check_envelope(settings: Settings) -> None:
    layers = settings.envelope.layers
    if settings.envelope.s3_delete and not settings.envelope.s3_buckets:
        raise SettingsError(
            "envelope.s3_delete is on, and envelope.s3_buckets names no bucket",
            hint="list the buckets whose objects may be deleted: a message could name any other",
        )
    if settings.envelope.has_objects:
        _check_objects(settings.envelope)
    if "auto" not in layers:
        return
    if len(layers) > 1:
        raise SettingsError(
            'envelope.layers has "auto" and others',
            hint='use "auto" alone, or declare all layers',
        )
    marks = {"TopicArn", "Message", "detail", "detail-type"}
    for name, read in first_names(settings):
        if marks & read:
            raise SettingsError(
                f'{name} reads an envelope that layers = "auto" would take off',
                code="ambiguous_envelope",
                hint="declare envelope.layers, or read the content: the envelope's own values are "
                "in attribute:sns.TopicArn, attribute:eventbridge.detail-type and the like",
            )


def _check_objects(envelope: EnvelopeSettings) -> None:
    """Refuse notifications of S3 that could not be read, or could name any bucket."""
    *outer, last = envelope.layers
    if last != "s3_event" or {"s3", "s3_event"} & set(outer):
        raise SettingsError(
            'envelope.layers: "s3_event" is the last layer, and does not go with "s3"',
            hint='write layers = ["s3_event"], ["sns", "s3_event"] or ["eventbridge", "s3_event"]',
        )
    if not envelope.s3_buckets:
        raise SettingsError(
            'envelope.layers has "s3_event", and envelope.s3_buckets names no bucket',
            hint="list the buckets whose objects may be read: a message could name any other",
        )
    if envelope.s3_delete:
        raise SettingsError(
            'envelope.s3_delete is on, and envelope.layers has "s3_event"',
            hint="objects that notifications name are never deleted: remove s3_delete, and let a "
            "lifecycle rule of the bucket do it",
        )


def check_columns(settings: Settings, origin: str) -> None:
    """Refuse a route without a table and a field without a column, unless it is dropped.

    `origin` names the file.
    """
    for number, route in enumerate(settings.route):
        if not route.table and not route.drop:
            raise SettingsError(
                f"setting route[{number}] in {origin}: Object missing required field `table`",
                hint="name the table that its records go to, or set drop = true: then they go to "
                "none",
            )
    lists = {"": settings.field} | {
        f"route[{number}].": route.field for number, route in enumerate(settings.route)
    }
    for place, fields in lists.items():
        for number, field in enumerate(fields):
            if not field.column and field.mask != DROP:
                raise SettingsError(
                    f"setting {place}field[{number}] in {origin}: Object missing required field "
                    "`column`",
                    hint='name the column it goes to, or set mask = "drop" if it is not needed',
                )


def _check_routes(settings: Settings) -> None:
    if not settings.route:
        return
    for number, route in enumerate(settings.route):
        if route.drop:
            _check_filter(route, f"route[{number}]")
    if not settings.routed:
        if settings.drops_unmatched and any(route.when is None for route in settings.route):
            raise SettingsError(
                "every record is dropped: the only [[route]] without `when` has drop = true",
                hint="give it a `when`, or remove it",
            )
        return
    if settings.field or settings.explode:
        raise SettingsError(
            "there are both [[route]] and fields outside of them",
            hint="with routes, put every field into one: [[route.field]]; `explode` too",
        )
    routes = [route for route in settings.route if not route.drop]
    tables = [route.table for route in routes]
    for route in routes:
        if not route.field:
            raise SettingsError(
                f"the route to {route.table!r} has no fields", hint="give it [[route.field]]"
            )
        if tables.count(route.table) > 1:
            raise SettingsError(
                f"two routes go to the table {route.table!r}",
                hint="one route can take several values: when = {field = …, any_of = […]}",
            )
    rest = [route for route in settings.route if route.when is None]
    if len(rest) > 1 and any(route.drop for route in rest):
        raise SettingsError(
            "a route without `when` drops what no other route takes, and another one writes it",
            hint="give one of the two a `when`, or remove it",
        )


def _check_filter(route: Route, where: str) -> None:
    if route != Route(drop=True, when=route.when):
        raise SettingsError(
            f"{where}: drop = true allows no other key than `when`",
            hint="its records go to no table: remove table, explode and fields, or drop",
        )


def _check_dropped(settings: Settings) -> None:
    declared = (*settings.field, *(field for route in settings.route for field in route.field))
    for field in declared:
        if field.mask != DROP:
            continue
        if not field.sources or field != Field(source=field.source, mask=DROP):
            raise SettingsError(
                f'field {field.name!r}: mask = "drop" allows no other key than source',
                hint="the field is written nowhere: remove the other keys, or use another mask",
            )
        for other in settings.fields:
            shared = shared_source(field, other)
            if shared is not None:
                raise SettingsError(
                    f"field {shared[0]!r} is dropped, and {shared[1]!r} goes to a column",
                    code="dropped_and_mapped",
                    hint="remove one of the two",
                )
            is_whole = other.type == "jsonb" and other.mask == "keep"
            if is_whole and (inside := shared_source(other, field)) is not None:
                raise SettingsError(
                    f"field {inside[1]!r} is dropped, and {inside[0]!r} goes to a column with all "
                    "that is in it",
                    code="dropped_and_mapped",
                    hint="map single values of it, or remove the dropped field",
                )


def _check_field(field: Field) -> None:
    where = f"field {field.name!r}"
    check_conversions(field)
    check_message_sources(field)
    if not field.is_read and field.default is None:
        raise SettingsError(
            f"the field of column {field.column!r} has neither source nor default",
            hint="give it a source or an expression, or a default for every row",
        )
    texts = field.type in ("text", "text[]")
    if field.over_length == "truncate" and not (texts and field.mask == "keep"):
        raise SettingsError(
            f'{where}: over_length = "truncate" is for text that is kept as it is',
            hint="cutting a mask or number gives another one: remove over_length",
        )
    if field.default is not None and field.required:
        raise SettingsError(
            f"{where} is required and has a default", hint="remove `required` or `default`"
        )
    if field.default is not None:
        _check_default(field)


_MESSAGE_DEFAULTS = {
    "sent_date": ("text", "date"),
    "sent_time": ("text", "date", "timestamptz", "bigint"),
    "message_id": ("text", "uuid"),
    "record_index": ("text", "integer", "bigint", "numeric", "double"),
}
"""Defaults that come from the message, and the field types that can take them."""


def _check_default(field: Field) -> None:
    """Refuse a default that would quarantine every message that needs it."""
    where, default = f"field {field.name!r}", field.default
    types = _MESSAGE_DEFAULTS.get(default) if isinstance(default, str) else None
    if types and field.type not in types:
        raise SettingsError(
            f"{where}: default = {default!r} is not a value of type {field.type!r}",
            hint=f"set type to one of {', '.join(types)}, or use another default",
        )
    if default == "record_index" and field.is_read:
        raise SettingsError(
            f'{where}: default = "record_index" and a source or an expression',
            hint="every record has an index: remove the other, or the default",
        )
    text = str(default).lower() if isinstance(default, bool) else str(default)
    json = field.type == "jsonb" or field.type.endswith("[]")
    if json and not is_of_message(text) and not _is_json(text):
        raise SettingsError(
            f"{where}: the default is not JSON",
            hint="write the JSON as text: '[]', '{}', '\"a text\"'",
        )


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True

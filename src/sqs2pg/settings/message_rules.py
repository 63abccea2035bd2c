"""Rules of what comes with a message beside its body: `sqs:NAME` and `attribute:NAME`. Pure."""

from __future__ import annotations

from sqs2pg.errors import SettingsError, nearest
from sqs2pg.message import SYSTEM_ATTRIBUTES
from sqs2pg.settings.fields import (
    ATTRIBUTE,
    DROP,
    ENVELOPE_ATTRIBUTES,
    ENVELOPE_NAMES,
    SYSTEM,
    SYSTEM_NAMES,
    Field,
    is_of_message,
    read_of_message,
)
from sqs2pg.settings.routes import conditions
from sqs2pg.settings.sections import Settings

_SYSTEM_SOURCES = ("MessageId", *SYSTEM_ATTRIBUTES)
_MOMENTS = ("SentTimestamp", "ApproximateFirstReceiveTimestamp")


def check_message_sources(field: Field) -> None:
    """Refuse a name that no message has, and a type that no such text has.

    Raises SettingsError `system_attribute`, `envelope_attribute`, `attribute_type`, or
    `attribute_name` for a prefix without a name.
    """
    where = f"field {field.name!r}"
    for given in read_of_message(field):
        prefix = SYSTEM if given.startswith(SYSTEM) else ATTRIBUTE
        name = given.removeprefix(prefix)
        if not name:
            raise SettingsError(
                f'{where}: "{prefix}" names no attribute',
                code="attribute_name",
                hint=f'write "{prefix}NAME", with the name of an attribute',
            )
        if prefix == SYSTEM:
            _check_system(where, name, field)
        else:
            _check_attribute(where, name)


def _check_system(where: str, name: str, field: Field) -> None:
    if name not in _SYSTEM_SOURCES:
        near = nearest(name, _SYSTEM_SOURCES)
        raise SettingsError(
            f"{where}: SQS sets no attribute {name!r}",
            code="system_attribute",
            hint=f"did you mean {SYSTEM}{near}?"
            if near
            else f"known: {', '.join(sorted(_SYSTEM_SOURCES))}",
        )
    if name in _MOMENTS and field.type in ("date", "timestamptz") and not field.format:
        raise SettingsError(
            f"{where}: {name} is a number of milliseconds, and the field's type is {field.type}",
            code="attribute_type",
            hint='set format = "epoch_ms"',
        )
    if field.type == "jsonb" or field.type.endswith("[]"):
        raise SettingsError(
            f"{where}: {SYSTEM}{name} is one value, and the field's type is {field.type}",
            code="attribute_type",
            hint='set type = "text"',
        )


def _check_attribute(where: str, name: str) -> None:
    """Refuse an attribute that no message can have: its column would be NULL for ever."""
    if name in SYSTEM_NAMES:
        raise SettingsError(
            f"{where}: {name} is set by SQS, and {ATTRIBUTE} reads what producers set",
            code="system_attribute",
            hint=f'write source = "{SYSTEM}{name}"'
            if name in _SYSTEM_SOURCES
            else "have the producer send the value in the body, or as a message attribute of "
            "another name",
        )
    if name.startswith(ENVELOPE_ATTRIBUTES) and name not in ENVELOPE_NAMES:
        prefix = name.partition(".")[0]
        known = sorted(one for one in ENVELOPE_NAMES if one.startswith(f"{prefix}."))
        raise SettingsError(
            f"{where}: the layer {prefix} adds no attribute {name!r}",
            code="envelope_attribute",
            hint=f"it adds {', '.join(known)}",
        )


def check_of_body(settings: Settings) -> None:
    """Refuse a source of the message in a setting that reads the body alone.

    Raises SettingsError `not_of_body`.
    """
    given = {"ledger.dedupe_key": settings.ledger.dedupe_key, "vault.subject": ""}
    if settings.vault.enabled:
        given["vault.subject"] = settings.vault.subject
    for target in settings.targets:
        given[f"explode of {target.table}"] = target.explode
    for when, route in conditions(settings.targets, settings.filters):
        given[f"when.field of {route}"] = when.field
    for number, source in enumerate(settings.dropped):
        given[f'field {number} with mask = "{DROP}"'] = source
    for name, source in given.items():
        if is_of_message(source):
            raise SettingsError(
                f"{name} is {source!r}, which is not in the body",
                code="not_of_body",
                hint=f"name a member of the body; one that is called so: ['{source}']",
            )

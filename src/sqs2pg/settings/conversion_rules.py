"""Conversion rules: whether the conversions of a field fit its type and each other.

Checked at the start. Each refusal says what would go wrong and what to set instead.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from sqs2pg.errors import SettingsError
from sqs2pg.settings.fields import EPOCHS, Field
from sqs2pg.settings.time_zones import zone_of

_FORMATS = (*EPOCHS, "rfc3339", "iso8601")
_MOMENTS = ("date", "timestamptz")
_NUMBERS_AND_BOOLEANS = ("integer", "bigint", "numeric", "double", "boolean")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
_DIRECTIVES = set("YymdHIMSfpbBaAjzGVuUWw%")
"""Of strptime, those that mean the same on every machine: not %Z, %c, %x and %X."""
_SAMPLE = datetime(2024, 2, 29, 13, 45, 56, 123456, tzinfo=UTC)


def check_conversions(field: Field) -> None:
    """Raise SettingsError where conversions of a field make no sense.

    Codes: `conversion`, `unknown_format`, `unknown_timezone`.
    """
    where = f"field {field.name!r}"
    if field.lower and field.upper:
        raise _refusal(f"{where}: lower and upper", "a text is in one case: remove one of them")
    _check_text(where, field)
    _check_map(where, field)
    if field.format:
        _check_format(where, field)
    elif field.timezone:
        raise _refusal(
            f"{where}: timezone without a format",
            'the default format has an offset in every value: set format = "iso8601", or a pattern '
            "such as %d.%m.%Y %H:%M",
        )


def _refusal(what: str, hint: str) -> SettingsError:
    return SettingsError(what, code="conversion", hint=hint)


def _unknown_format(what: str, hint: str) -> SettingsError:
    return SettingsError(what, code="unknown_format", hint=hint)


def _type_of(field: Field) -> str:
    """Return the field's type; of an array that of its elements: each one is converted."""
    return field.type.removesuffix("[]")


def _check_text(where: str, field: Field) -> None:
    """Refuse to edit the text of what never is one."""
    edits = {
        "trim": field.trim,
        "lower": field.lower,
        "upper": field.upper,
        "empty": field.empty == "null",
    }
    edit = next((name for name, is_set in edits.items() if is_set), None)
    if edit is None:
        return
    if field.type == "jsonb":
        raise _refusal(
            f"{where}: {edit} on a field of type jsonb", f"JSON is kept as it is: remove {edit}"
        )
    bare = _type_of(field) in _NUMBERS_AND_BOOLEANS and not (field.from_ or field.map)
    if bare and field.is_read:
        raise _refusal(
            f"{where}: {edit} is for texts, and its type is {field.type!r}",
            'set from = "text": then the value may come in quotes',
        )


def _check_map(where: str, field: Field) -> None:
    if not field.map:
        if field.otherwise is not None and field.mask_kind == field.kind:
            raise _refusal(
                f"{where}: otherwise without a map", "add map = {…}, or remove otherwise"
            )
        return
    if field.type == "jsonb":
        raise _refusal(
            f"{where}: map on a field of type jsonb", "a map is of texts, numbers and booleans"
        )
    lost = next((key for key in field.map if key != _edited(field, key)), None)
    if lost is not None:
        raise _refusal(
            f"{where}: map has {lost!r}, which no value is after trim, lower or upper",
            f"the map comes last: write {_edited(field, lost)!r}",
        )
    if "" in field.map and field.empty == "null":
        raise _refusal(
            f'{where}: map has an empty text, and empty = "null"',
            "an empty text is missing before the map is asked: remove one of them",
        )


def _edited(field: Field, text: str) -> str:
    text = text.strip() if field.trim else text
    return text.lower() if field.lower else text.upper() if field.upper else text


def _check_format(where: str, field: Field) -> None:
    if _type_of(field) not in _MOMENTS:
        raise _refusal(
            f"{where}: format = {field.format!r} on a field of type {field.type!r}",
            'a format is for type = "date" and "timestamptz": set one of them, or remove format',
        )
    if field.timezone:
        zone_of(field.timezone)
    if field.format in _FORMATS:
        if field.timezone and field.format != "iso8601":
            always = "is in UTC" if field.format in EPOCHS else "has an offset"
            raise _refusal(
                f"{where}: timezone beside format = {field.format!r}",
                f"such a value always {always}: remove timezone",
            )
        return
    _check_pattern(where, field)


def _check_pattern(where: str, field: Field) -> None:
    pattern = field.format
    used = _DIRECTIVE.findall(pattern)
    if not set(used) - {"%"}:
        raise _unknown_format(
            f"{where}: there is no format {pattern!r}",
            f"write {', '.join(_FORMATS)}, or a pattern of strptime such as %d.%m.%Y %H:%M",
        )
    unknown = next((name for name in used if name not in _DIRECTIVES), None)
    if unknown is not None:
        raise _unknown_format(
            f"{where}: format has %{unknown}, which "
            + ("ends the pattern" if not unknown else "is no directive that can be used"),
            "use %Y %m %d %H %M %S %f %z, %y %I %p %b %B %a %A %j %G %V %u; names are English",
        )
    if not set(used) & set("YyG"):
        raise _unknown_format(
            f"{where}: format {pattern!r} has no year",
            "add %Y, or %y for two digits",
        )
    try:
        datetime.strptime(_SAMPLE.strftime(pattern), pattern)  # noqa: DTZ007 - only tried
    except (ValueError, re.error):
        raise _unknown_format(
            f"{where}: format {pattern!r} cannot be read back",
            "use each directive once; a week needs its weekday: %G-W%V-%u",
        ) from None
    if "z" in used and field.timezone:
        raise _refusal(
            f"{where}: timezone, and %z in the format",
            "with %z every value has its offset: remove timezone, or %z",
        )
    if _type_of(field) == "timestamptz" and "z" not in used and not field.timezone:
        raise _refusal(
            f"{where}: format {pattern!r} has no offset, so its times are of no known zone",
            "set timezone to a name such as Europe/Berlin, or UTC; or add %z",
        )

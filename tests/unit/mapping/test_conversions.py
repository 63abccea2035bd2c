"""Conversions of a field: from the JSON of its source to the cell of its column, or a fault."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.columns import Column, column_for
from sqs2pg.mapping.compile import MessageMapping, compile_mapping
from sqs2pg.mapping.copy_text import values
from sqs2pg.mapping.subject import stored_form, subject_reader, subject_sources
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.settings import Field, Settings, cross_check
from tests.native import LEFT, SENT_MS, TAKEN


def field_of(**keys: Any) -> Field:
    """Return a field as a settings file gives it, checked."""
    made = msgspec.convert({"column": "c", "source": "a"} | keys, Field)
    cross_check(Settings(field=(made,)))
    return made


def mapping_of(*fields: Field) -> MessageMapping:
    masks = [
        None
        if field.mask == "keep"
        else compile_operator(field.mask, kind=field.kind, domain="d", keyring=None)
        for field in fields
    ]
    return compile_mapping(Settings(field=fields), [[*map(column_for, fields)]], [masks])


def cells(mapping: MessageMapping, body: Any, **attributes: str) -> list[str | None]:
    given = {name: MessageAttribute("String", text) for name, text in attributes.items()}
    text = body if isinstance(body, str) else json.dumps(body)
    message = Message("m", "h", text, SystemAttributes(SENT_MS), given)
    [row] = mapping.rows(["k"], [message], [mapping.decode(message)])
    if isinstance(row, PermanentFault):
        raise row
    return values(row.text.removesuffix("\n"))


def cell(value: Any, **keys: Any) -> str | None:
    """Return the cell of a value; a text that begins with `=` is JSON as it stands."""
    raw = value[1:] if isinstance(value, str) and value[:1] == "=" else json.dumps(value)
    [found] = cells(mapping_of(field_of(**keys)), f'{{"a": {raw}}}')
    return found


def fault(value: Any, **keys: Any) -> str:
    with pytest.raises(PermanentFault) as caught:
        cell(value, **keys)
    return f"{caught.value.code} {caught.value.detail}"


def refused(**keys: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        mapping_of(field_of(**keys))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("integer", 7, "7"),
        ("integer", "7", "7"),
        ("integer", "-7", "-7"),
        ("integer", "+7", "7"),
        ("integer", "007", "7"),
        ("integer", "7.0", "7"),
        ("integer", "1e3", "1000"),
        ("integer", "-0", "0"),
        ("bigint", "9007199254740993", "9007199254740993"),
        ("bigint", "9223372036854775807", "9223372036854775807"),
        ("bigint", "-9223372036854775808", "-9223372036854775808"),
        ("numeric", "0.1234567890123456789", "0.1234567890123456789"),
        ("numeric", "=0.1234567890123456789", "0.1234567890123456789"),
        ("numeric", "1e3", "1e3"),
        ("double", "1.50", "1.5"),
        ("double", 1.5, "1.5"),
        ("double", "1e3", "1000.0"),
        ("double", "NaN", "NaN"),
        ("double", "Infinity", "Infinity"),
        ("double", "-Infinity", "-Infinity"),
        ("boolean", True, "true"),
        ("boolean", "true", "true"),
        ("boolean", "false", "false"),
        ("jsonb", '{"x": [1]}', '{"x": [1]}'),
        ("jsonb", {"x": 1}, '{"x": 1}'),
        ("jsonb", "7", "7"),
        ("text", "x", "x"),
        ("date", "2026-11-22", "2026-11-22"),
    ],
)
def test_values_in_quotes_and_bare(type_: str, value: Any, expected: str) -> None:
    assert cell(value, **{"type": type_, "from": "text"}) == expected


@pytest.mark.parametrize(
    ("type_", "value", "code"),
    [
        *(
            ("integer", text, "bad_number")
            for text in ("", " 7", "7 ", "x", "0x7", "1_0", "\u0667")
        ),
        *(("integer", text, "bad_number") for text in (".5", "5.", "NaN", "++7", "1e")),
        ("integer", "7.5", "bad_integer"),
        ("integer", "2147483648", "out_of_range"),
        ("bigint", "9223372036854775808", "out_of_range"),
        ("integer", True, "wrong_type"),
        ("integer", [7], "wrong_type"),
        ("numeric", "NaN", "bad_number"),
        ("numeric", "Infinity", "bad_number"),
        ("double", "nan", "bad_number"),
        ("double", "inf", "bad_number"),
        ("double", "+Infinity", "bad_number"),
        ("double", "1e400", "out_of_range"),
        *(("boolean", text, "bad_boolean") for text in ("", "True", "TRUE", "t", "1", "0", "yes")),
        ("boolean", 1, "wrong_type"),
        ("jsonb", "{", "not_json"),
        ("jsonb", "", "not_json"),
    ],
)
def test_texts_that_are_no_such_value(type_: str, value: Any, code: str) -> None:
    assert fault(value, **{"type": type_, "from": "text"}) == f"{code} a"


def test_without_from_a_number_in_quotes_is_another_type() -> None:
    assert fault("7", type="integer") == "wrong_type a"
    assert fault("true", type="boolean") == "wrong_type a"


@pytest.mark.parametrize(
    ("format_", "value", "expected"),
    [
        ("epoch_s", 0, "1970-01-01 00:00:00+00"),
        ("epoch_s", 1_700_000_000, "2023-11-14 22:13:20+00"),
        ("epoch_s", "1700000000", "2023-11-14 22:13:20+00"),
        ("epoch_s", 1700000000.25, "2023-11-14 22:13:20.25+00"),
        ("epoch_s", "=1.7e9", "2023-11-14 22:13:20+00"),
        ("epoch_s", "=1700000000.1234567", "2023-11-14 22:13:20.123456+00"),
        ("epoch_s", -1, "1969-12-31 23:59:59+00"),
        ("epoch_s", "=-0.5", "1969-12-31 23:59:59.5+00"),
        ("epoch_s", "=-0.0000001", "1969-12-31 23:59:59.999999+00"),
        ("epoch_s", "+7", "1970-01-01 00:00:07+00"),
        ("epoch_s", "007", "1970-01-01 00:00:07+00"),
        ("epoch_s", "=-0", "1970-01-01 00:00:00+00"),
        ("epoch_ms", 1_700_000_000_123, "2023-11-14 22:13:20.123+00"),
        ("epoch_ms", "1700000000000", "2023-11-14 22:13:20+00"),
        ("epoch_ms", "=1700000000123.75", "2023-11-14 22:13:20.12375+00"),
        ("epoch_ms", "=1.7e12", "2023-11-14 22:13:20+00"),
        ("epoch_ms", "1.7E12", "2023-11-14 22:13:20+00"),
        ("epoch_ms", -1, "1969-12-31 23:59:59.999+00"),
        ("epoch_us", 1_700_000_000_123_456, "2023-11-14 22:13:20.123456+00"),
        ("epoch_us", "=0.9", "1970-01-01 00:00:00+00"),
        ("epoch_us", "=1e-200000", "1970-01-01 00:00:00+00"),
        ("epoch_us", "=-1e-150000", "1969-12-31 23:59:59.999999+00"),
        # PostgreSQL's first and last timestamps, year 1, and the years around 9999.
        ("epoch_s", -210_866_803_200, "4714-11-24 00:00:00+00 BC"),
        ("epoch_s", 9_224_318_015_999, "294276-12-31 23:59:59+00"),
        ("epoch_us", "=9224318015999999999", "294276-12-31 23:59:59.999999+00"),
        ("epoch_s", -62_135_596_800, "0001-01-01 00:00:00+00"),
        ("epoch_s", -62_135_596_801, "0001-12-31 23:59:59+00 BC"),
        ("epoch_s", 253_402_300_800, "10000-01-01 00:00:00+00"),
        ("rfc3339", "2026-03-01T12:00:00.250+01:00", "2026-03-01 11:00:00.250+00"),
        ("rfc3339", "2026-03-01t12:00:00z", "2026-03-01 12:00:00+00"),
        ("rfc3339", "0001-01-01T00:00:00+01:00", "0001-12-31 23:00:00+00 BC"),
        ("rfc3339", "9999-12-31T23:30:00-01:00", "10000-01-01 00:30:00+00"),
        ("", "0001-01-01T00:00:00+01:00", "0001-12-31 23:00:00+00 BC"),
        ("", "9999-12-31T23:30:00-01:00", "10000-01-01 00:30:00+00"),
        ("", "2026-03-01T12:00:00+0100", "2026-03-01 11:00:00+00"),
        ("", "9999-12-31T23:59:60Z", "10000-01-01 00:00:00+00"),
        ("iso8601", "2026-03-01T12:00:00+0100", "2026-03-01 11:00:00+00"),
        ("iso8601", "2026-03-01T12:00:00+01", "2026-03-01 11:00:00+00"),
        ("iso8601", "2026-03-01T12:00:00,5Z", "2026-03-01 12:00:00.5+00"),
        ("iso8601", "20260301T120000Z", "2026-03-01 12:00:00+00"),
        ("iso8601", "20260301T120000.25-0530", "2026-03-01 17:30:00.25+00"),
        ("iso8601", "2026-03-01T12:30Z", "2026-03-01 12:30:00+00"),
        ("iso8601", "2026-03-01T12Z", "2026-03-01 12:00:00+00"),
        ("iso8601", "2026-03-01T24:00:00Z", "2026-03-02 00:00:00+00"),
        ("iso8601", "2026-W09-7T12:00:00Z", "2026-03-01 12:00:00+00"),
        ("iso8601", "2026W097T12Z", "2026-03-01 12:00:00+00"),
        ("iso8601", "2026-060T12:00:00Z", "2026-03-01 12:00:00+00"),
        ("iso8601", "2016-12-31T23:59:60Z", "2017-01-01 00:00:00+00"),
        ("iso8601", "0001-01-01T00:00:00+14:00", "0001-12-31 10:00:00+00 BC"),
        ("%d/%b/%Y:%H:%M:%S %z", "10/Oct/2000:13:55:36 -0700", "2000-10-10 20:55:36+00"),
        ("%Y-%m-%d %H:%M:%S.%f%z", "2026-03-01 12:00:00.5+01:00", "2026-03-01 11:00:00.5+00"),
    ],
)
def test_formats_of_a_timestamp(format_: str, value: Any, expected: str) -> None:
    assert cell(value, type="timestamptz", format=format_) == expected


@pytest.mark.parametrize(
    ("format_", "timezone", "value", "expected"),
    [
        ("iso8601", "Europe/Berlin", "2026-01-01T12:00:00", "2026-01-01 11:00:00+00"),
        ("iso8601", "Europe/Berlin", "2026-07-01T12:00:00", "2026-07-01 10:00:00+00"),
        ("iso8601", "Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-01 12:00:00+00"),
        ("iso8601", "Europe/Berlin", "2026-07-01", "2026-06-30 22:00:00+00"),
        ("iso8601", "UTC", "2026-07-01 12:00", "2026-07-01 12:00:00+00"),
        ("iso8601", "+05:30", "2026-07-01T05:30:00", "2026-07-01 00:00:00+00"),
        ("%d.%m.%Y %H:%M", "Europe/Berlin", "01.07.2026 12:00", "2026-07-01 10:00:00+00"),
        # Clocks show 02:30 twice, or never: standard time, as PostgreSQL reads them.
        ("%d.%m.%Y %H:%M", "Europe/Berlin", "25.10.2026 02:30", "2026-10-25 01:30:00+00"),
        ("%d.%m.%Y %H:%M", "Europe/Berlin", "29.03.2026 02:30", "2026-03-29 01:30:00+00"),
        ("%Y-%m-%d", "-14:00", "9999-12-31", "9999-12-31 14:00:00+00"),
        ("%Y-%m-%d %H", "Asia/Tokyo", "0001-01-01 00", "0001-12-31 14:41:01+00 BC"),
        ("%Y-%m-%d %H", "-01:00", "9999-12-31 23", "10000-01-01 00:00:00+00"),
    ],
)
def test_times_of_a_zone(format_: str, timezone: str, value: str, expected: str) -> None:
    assert cell(value, type="timestamptz", format=format_, timezone=timezone) == expected


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ({"format": "epoch_s"}, -1, "1969-12-31"),
        ({"format": "epoch_ms"}, "1700000000000", "2023-11-14"),
        ({"format": "epoch_s"}, -62_135_596_801, "0001-12-31 BC"),
        ({"format": "rfc3339"}, "2026-03-01", "2026-03-01"),
        ({"format": "rfc3339"}, "2026-03-01T23:30:00-01:00", "2026-03-02"),
        ({"format": "rfc3339"}, "9999-12-31T23:30:00-01:00", "10000-01-01"),
        ({"format": "rfc3339"}, "2016-12-31T23:59:60Z", "2016-12-31"),
        ({"format": "iso8601"}, "20260301", "2026-03-01"),
        ({"format": "iso8601"}, "2026-W09-7", "2026-03-01"),
        ({"format": "iso8601"}, "2026-03-01T00:30:00+0100", "2026-02-28"),
        ({"format": "iso8601", "timezone": "Asia/Tokyo"}, "2026-03-01T08:59", "2026-02-28"),
        ({"format": "%d.%m.%Y"}, "1.3.2026", "2026-03-01"),
        ({"format": "%d.%m.%y"}, "01.03.26", "2026-03-01"),
        ({"format": "%d.%m.%Y", "timezone": "Europe/Berlin"}, "01.03.2026", "2026-03-01"),
        ({"format": "%d.%m.%Y %H", "timezone": "Asia/Tokyo"}, "01.03.2026 08", "2026-02-28"),
        ({"format": "%%H %Y-%m-%d", "timezone": "+02:00"}, "%H 2026-03-01", "2026-03-01"),
        ({"format": "%Y%j"}, "2026060", "2026-03-01"),
        ({"format": "%G-W%V-%u"}, "2026-W09-7", "2026-03-01"),
    ],
)
def test_formats_of_a_date(keys: dict[str, Any], value: Any, expected: str) -> None:
    assert cell(value, type="date", **keys) == expected


@pytest.mark.parametrize(
    ("keys", "value", "code"),
    [
        *(({"format": "epoch_s"}, text, "bad_timestamp") for text in ("", "x", " 1", "2026-01-01")),
        ({"format": "epoch_s"}, True, "wrong_type"),
        ({"format": "epoch_s"}, -210_866_803_201, "out_of_range"),
        ({"format": "epoch_s"}, 9_224_318_016_000, "out_of_range"),
        ({"format": "epoch_s"}, "=1e400", "out_of_range"),
        ({"format": "epoch_us"}, "9" * 400, "out_of_range"),
        ({"format": "epoch_ms"}, "NaN", "bad_timestamp"),
        ({"format": "rfc3339"}, "2026-03-01T12:00:00+0100", "bad_timestamp"),
        ({"format": "rfc3339"}, "2026-03-01", "bad_timestamp"),
        ({"format": "rfc3339"}, 1_700_000_000, "wrong_type"),
        *(
            ({"format": "iso8601"}, text, "bad_timestamp")
            for text in (
                *("2026-03-01T12:00:00", "2026-03-01", "2026-02-30T00:00:00Z", "0000-01-01T00Z"),
                *("2026-03-01T24:00:01Z", "2026-03-01T24:01Z", "2026-W54-1T00Z", "2025-366T00Z"),
                *("2026-000T00Z", "2026-03-01T12:00:00+24", "2026-03-01T12:0000Z", "2026-03T00Z"),
                *(
                    "2026-03-01T12:00:60Z",
                    "2026-03-01T12:00:00.Z",
                    "20260301120000Z",
                    "\u0662\u0660\u0662\u06660301T00Z",
                ),
            )
        ),
        ({"format": "%Y-%m-%d", "timezone": "UTC"}, "2026-02-30", "bad_timestamp"),
        ({"format": "%Y-%m-%d", "timezone": "UTC"}, "2026-03-01 ", "bad_timestamp"),
        (
            {"format": "%Y-%m-%d", "timezone": "UTC"},
            "\u0662\u0660\u0662\u0666-03-01",
            "bad_timestamp",
        ),
        ({"format": "%Y %z"}, "2026 +00:00:00.5", "bad_timestamp"),
    ],
)
def test_moments_that_are_refused(keys: dict[str, Any], value: Any, code: str) -> None:
    assert fault(value, type="timestamptz", **keys).partition(" ")[0] == code


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ({"trim": True}, "\t x y\u00a0\n", "x y"),
        ({"lower": True}, "ÀB", "àb"),
        ({"upper": True}, "straße", "STRASSE"),
        ({"empty": "null"}, "", None),
        ({"trim": True, "empty": "null"}, "  ", None),
        ({"empty": "null"}, " ", " "),
        ({"map": {"a": "b", "c": 7, "d": True}}, "a", "b"),
        ({"map": {"a": "b", "c": 7, "d": True}}, "c", "7"),
        ({"map": {"a": "b", "c": 7, "d": True}}, "d", "true"),
        ({"map": {"": "none"}}, "", "none"),
        ({"map": {"": "none"}, "required": True}, "", "none"),
        ({"map": {"1": "on", "true": "yes"}}, 1, "on"),
        ({"map": {"1": "on", "true": "yes"}}, True, "yes"),
        ({"map": {"a": "b"}, "otherwise": "keep"}, "x", "x"),
        ({"map": {"a": "b"}, "otherwise": "keep"}, 1.5, "1.5"),
        ({"map": {"a": "b"}, "otherwise": "null"}, "x", None),
        ({"map": {"a": "b"}, "otherwise": "other"}, "x", "other"),
        ({"map": {"a": "b"}, "otherwise": "other"}, None, None),
        ({"map": {"a": "b"}, "otherwise": "null", "default": "none"}, "x", "none"),
        ({"map": {"y": "true"}, "otherwise": False, "type": "boolean"}, "n", "false"),
        ({"map": {"low": 1}, "otherwise": "keep", "type": "integer"}, 5, "5"),
        ({"map": {"never": 0}, "otherwise": "keep", "type": "date", "format": "epoch_s"}, "never",
         "1970-01-01"),
        ({"trim": True, "lower": True, "empty": "null", "map": {"yes": "y"}}, " YES ", "y"),
        ({"trim": True, "from": "text", "type": "integer"}, " 7 ", "7"),
        ({"lower": True, "from": "text", "type": "boolean"}, "TRUE", "true"),
        ({"empty": "null", "from": "text", "type": "double"}, "", None),
        ({"trim": True, "type": "uuid"}, " 424CDD21-063A-43A7-B91B-7CA1A833AFAE",
         "424cdd21-063a-43a7-b91b-7ca1a833afae"),
        ({"trim": True, "length_max": 1}, " x ", "x"),
        # A default has the form of the type; one of the format is taken, too.
        ({"default": " X ", "trim": True, "lower": True}, None, "x"),
        ({"default": "unknown", "map": {"a": "b"}}, None, "unknown"),
        ({"default": "a", "map": {"a": "b"}}, None, "b"),
        ({"default": "2026-01-01T00:00:00Z", "type": "timestamptz", "format": "epoch_s"}, None,
         "2026-01-01 00:00:00+00"),
        ({"default": 7, "type": "timestamptz", "format": "epoch_s"}, None,
         "1970-01-01 00:00:07+00"),
        ({"default": "sent_time", "type": "timestamptz", "format": "epoch_ms"}, None,
         "2026-11-22 21:53:08.351+00"),
        ({"default": "sent_date", "type": "date", "format": "epoch_ms"}, None, "2026-11-22"),
        ({"default": "sent_date", "type": "date", "format": "%d.%m.%Y"}, None, "2026-11-22"),
    ],
)  # fmt: skip
def test_the_text_of_a_value_is_edited(keys: dict[str, Any], value: Any, expected: Any) -> None:
    assert cell(value, **keys) == expected


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ({"map": {"a": "b"}}, "x", "not_in_map a"),
        ({"map": {"a": "b"}, "otherwise": "quarantine"}, "x", "not_in_map a"),
        ({"map": {"1": "b"}}, "=1.0", "not_in_map a"),
        ({"map": {"a": "b"}}, [], "wrong_type a"),
        ({"trim": True, "required": True}, "  ", "empty_field a"),
        ({"trim": True, "empty": "null", "required": True}, "  ", "missing_field a"),
        ({"map": {"a": "b"}, "otherwise": "null", "required": True}, "x", "missing_field a"),
        ({"trim": True, "required": True}, None, "missing_field a"),
        ({"upper": True, "length_max": 6}, "straße", "too_long a"),
    ],
)
def test_an_edited_text_that_is_refused(keys: dict[str, Any], value: Any, expected: str) -> None:
    assert fault(value, **keys) == expected


def test_the_first_source_that_is_present_counts() -> None:
    mapping = mapping_of(field_of(source=["a", "b.c", "d"], type="integer", **{"from": "text"}))
    assert cells(mapping, {"a": 1, "d": 4}) == ["1"]
    assert cells(mapping, {"a": None, "b": {"c": "2"}}) == ["2"]
    assert cells(mapping, {"b": None, "d": 4}) == ["4"]
    assert cells(mapping, {}) == [None]
    for body, detail in (({"a": "x", "d": 4}, "a"), ({"b": {"c": "x"}}, "b.c"), ({"d": "x"}, "d")):
        with pytest.raises(PermanentFault) as caught:
            cells(mapping, body)
        assert (caught.value.code, caught.value.detail) == ("bad_number", detail)
    with pytest.raises(PermanentFault, match=r"wrong_type b\.c"):
        cells(mapping, {"a": 1, "b": 7})


def test_of_several_required_sources_one_is_enough() -> None:
    mapping = mapping_of(field_of(source=["a", "b"], required=True))
    assert cells(mapping, {"b": "x"}) == ["x"]
    for body, expected in (({}, "missing_field a"), ({"b": ""}, "empty_field b")):
        with pytest.raises(PermanentFault, match=expected):
            cells(mapping, body)


def test_an_attribute_is_converted_as_a_value_is() -> None:
    mapping = mapping_of(
        field_of(type="timestamptz", format="epoch_s", trim=True, default="attribute:at"),
        Field(column="d", default="attribute:at", map={"7": "seven"}, otherwise="keep"),
    )
    assert cells(mapping, {}, at=" 7 ") == ["1970-01-01 00:00:07+00", " 7 "]
    assert cells(mapping, {"a": 1}, at="7") == ["1970-01-01 00:00:01+00", "seven"]
    assert cells(mapping, {}) == [None, None]


def test_a_mask_takes_the_converted_text() -> None:
    def mask(value: Any, **keys: Any) -> str | None:
        settings = Settings(
            field=(msgspec.convert({"column": "c", "source": "a", "mask": "sha256"} | keys, Field),)
        )
        mapping = mapping_of(*settings.fields)
        [found] = cells(mapping, {"a": value})
        return found

    assert mask(" Ada ", trim=True, lower=True) == mask("ada")
    assert mask("x", map={"x": "ada"}) == mask("ada")
    assert mask("007", type="integer", **{"from": "text"}) == mask(7, type="integer")
    assert mask(" ", trim=True, empty="null") is None


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"lower": True, "upper": True}, "conversion"),
        ({"trim": True, "type": "integer"}, "conversion"),
        ({"empty": "null", "type": "boolean"}, "conversion"),
        ({"lower": True, "type": "jsonb"}, "conversion"),
        ({"map": {"a": "1"}, "type": "jsonb"}, "conversion"),
        ({"otherwise": "x"}, "conversion"),
        ({"map": {"A": "x"}, "lower": True}, "conversion"),
        ({"map": {" a": "x"}, "trim": True}, "conversion"),
        ({"map": {"": "x"}, "empty": "null"}, "conversion"),
        ({"format": "epoch_s", "type": "integer"}, "conversion"),
        ({"format": "epoch_s"}, "conversion"),
        ({"format": "epoch_s", "type": "date", "timezone": "UTC"}, "conversion"),
        ({"format": "rfc3339", "type": "date", "timezone": "UTC"}, "conversion"),
        ({"timezone": "UTC", "type": "timestamptz"}, "conversion"),
        ({"format": "%Y-%m-%d", "type": "timestamptz"}, "conversion"),
        ({"format": "%Y %z", "type": "timestamptz", "timezone": "UTC"}, "conversion"),
        ({"format": "epoch", "type": "date"}, "unknown_format"),
        ({"format": "%Y-%m-%Q", "type": "date"}, "unknown_format"),
        ({"format": "%Y-%m-%d %Z", "type": "date"}, "unknown_format"),
        ({"format": "%Y-%m-%d %", "type": "date"}, "unknown_format"),
        ({"format": "%m-%d", "type": "date"}, "unknown_format"),
        ({"format": "%Y %Y", "type": "date"}, "unknown_format"),
        ({"format": "%Y %V", "type": "date"}, "unknown_format"),
        ({"format": "%%", "type": "date"}, "unknown_format"),
        *(
            ({"format": "iso8601", "type": "date", "timezone": name}, "unknown_timezone")
            for name in ("Mars/Base", "../etc", "Europe", "+2", "+24:00", "localtime", "\x00", "")[
                :7
            ]
        ),
        ({"type": "integer", "map": {"a": "x"}}, "bad_map"),
        ({"type": "boolean", "map": {"a": True}, "otherwise": "x"}, "bad_map"),
        ({"map": {"a": "long"}, "length_max": 3}, "bad_map"),
        ({"default": "x", "type": "timestamptz", "format": "epoch_s"}, "bad_default"),
    ],
)
def test_conversions_that_make_no_sense_are_refused(keys: dict[str, Any], code: str) -> None:
    assert refused(**keys).code == code


def test_a_person_is_known_by_the_edited_id() -> None:
    fields = (field_of(source=["id", "uid"], trim=True, lower=True),)
    named = stored_form(fields, "id")
    assert named(" Ada ") == named("ada") == "ada"
    read = subject_reader(named, *subject_sources(fields, "id"))
    assert read('{"id": null, "uid": " ADA"}') == "ada"
    assert read('{"id": "Eve", "uid": "ada"}') == "eve"
    assert read('{"other": 1}') is None
    empty = stored_form((field_of(source="id", trim=True, empty="null"),), "id")
    with pytest.raises(PermanentFault, match="no_subject"):
        empty("  ")


def test_a_column_of_texts_has_the_same_forms() -> None:
    field = field_of(type="timestamptz", format="epoch_ms")
    settings = Settings(field=(field,))
    mapping = compile_mapping(settings, [[Column("c", "text")]], [[None]])
    assert cells(mapping, {"a": -62_135_596_800_001}) == ["0001-12-31 23:59:59.999+00 BC"]


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ({"type": "bigint[]", "from": "text"}, ["1", 2, None, "9007199254740993"],
         "{1,2,NULL,9007199254740993}"),
        ({"type": "text[]", "trim": True, "lower": True, "empty": "null"}, [" A ", "", "b c"],
         '{a,NULL,"b c"}'),
        ({"type": "text[]", "map": {"a": "b"}, "otherwise": "keep"}, ["a", 7], "{b,7}"),
        ({"type": "text[]", "map": {"a": "b"}, "otherwise": "keep", "default": '["a"]'}, None,
         "{b}"),
        ({"type": "timestamptz[]", "format": "epoch_s"}, [0, "7"],
         '{"1970-01-01 00:00:00+00","1970-01-01 00:00:07+00"}'),
        ({"type": "date[]", "format": "%d.%m.%Y"}, ["01.03.2026"], "{2026-03-01}"),
        ({"type": "integer[]", "map": {"a": 1}}, ["a"], "{1}"),
    ],
)  # fmt: skip
def test_each_element_of_an_array_is_converted(
    keys: dict[str, Any], value: Any, expected: str
) -> None:
    assert cell(value, **keys) == expected


def test_a_map_of_an_array_is_one_of_its_elements() -> None:
    assert fault(["x"], type="text[]", map={"a": "b"}) == "not_in_map a"
    assert refused(type="integer[]", map={"a": "x"}).code == "bad_map"
    assert refused(type="integer[]", trim=True).code == "conversion"


@pytest.mark.parametrize(
    "body",
    [
        *(*LEFT, *TAKEN),
        '\ufeff{"user_id":7}',
        '{"user_id":[1]}',
        '{"user_id":null,"more":"y"}',
        '{"user_id":true,"more":"y"}',
        '{"user_id":"a","user_id":"b"}',
        "\ufeff",
        ' {"more": 1.5} ',
    ],
)
def test_a_subject_among_the_members_is_found_as_along_a_path(body: str) -> None:
    at_once = subject_reader(str.upper, "user_id", "more")
    along_paths = subject_reader(str.upper, "user_id", "more", "nowhere[0]")
    assert at_once(body) == along_paths(body)

"""Arrays of every scalar type, from JSON to the text of PostgreSQL's arrays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.columns import Column, column_for, match
from sqs2pg.mapping.compile import compile_mapping
from sqs2pg.mapping.copy_text import values
from sqs2pg.mapping.field_types import FIELD_TYPES
from sqs2pg.message import Message, Row, SystemAttributes
from sqs2pg.settings import Field, Settings, SinkSettings, cross_check
from tests.native import masks_of

QUOTING = [
    ("[]", "{}"),
    ('["a"]', "{a}"),
    ('["a", "b c"]', '{a,"b c"}'),
    ("[null]", "{NULL}"),
    ('["NULL", "null", "Null", "nullable"]', '{"NULL","null","Null",nullable}'),
    ('["", " "]', '{""," "}'),
    ('["a,b", "{}", "a\\"b", "a\\\\b"]', '{"a,b","{}","a\\"b","a\\\\b"}'),
    ('["\\t\\n\\r\\u000b\\f"]', '{"\t\n\r\v\f"}'),
    ('["é", "\\ud83d\\ude00", "\\u00a0"]', "{é,\U0001f600,\u00a0}"),
    (' [ "a" , null ] ', "{a,NULL}"),
]


@pytest.mark.parametrize(("given", "expected"), QUOTING)
def test_elements_are_quoted_as_postgresql_does(given: str, expected: str) -> None:
    assert FIELD_TYPES["text[]"].convert(given.strip()) == expected


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("integer[]", "[1, -7, 7.0, 7e2, null]", "{1,-7,7,700,NULL}"),
        ("bigint[]", "[9007199254740993]", "{9007199254740993}"),
        ("numeric[]", "[0.1234567890123456789, 1.50]", "{0.1234567890123456789,1.50}"),
        ("double[]", "[0.1, 1e22]", "{0.1,1e+22}"),
        ("boolean[]", "[true, null, false]", "{true,NULL,false}"),
        ("date[]", '["2024-02-29"]', "{2024-02-29}"),
        ("timestamptz[]", '["2024-02-29T01:02:03Z"]', '{"2024-02-29 01:02:03+00"}'),
        (
            "uuid[]",
            '["424CDD21-063A-43A7-B91B-7CA1A833AFAE"]',
            "{424cdd21-063a-43a7-b91b-7ca1a833afae}",
        ),
        ("inet[]", '["10.0.0.1", "::1/128"]', "{10.0.0.1,::1/128}"),
        ("bytea[]", '["AP8=", ""]', '{"\\\\x00ff","\\\\x"}'),
        ("interval[]", '["P1D", "01:00:00"]', "{P1D,PT1H}"),
    ],
)
def test_each_element_is_converted_as_its_type(name: str, given: str, expected: str) -> None:
    assert FIELD_TYPES[name].convert(given) == expected


@pytest.mark.parametrize(
    ("name", "given", "code"),
    [
        ("text[]", '[["a"]]', "nested_array"),
        ("integer[]", "[[]]", "nested_array"),
        ("text[]", '[{"a": 1}]', "wrong_type"),
        ("text[]", "[1]", "wrong_type"),
        ("integer[]", '["1"]', "wrong_type"),
        ("boolean[]", "[1]", "wrong_type"),
        ("integer[]", "[1.5]", "bad_integer"),
        ("integer[]", "[2147483648]", "out_of_range"),
        ("uuid[]", '["x"]', "bad_uuid"),
        ("date[]", '["x"]', "bad_date"),
        ("inet[]", '["x"]', "bad_ip"),
        ("bytea[]", '["x"]', "bad_base64"),
        ("text[]", "a,b", "wrong_type"),  # as an attribute could be
        ("text[]", "{}", "wrong_type"),
        ("text[]", "", "wrong_type"),
    ],
)
def test_an_element_that_does_not_fit_is_a_fault(name: str, given: str, code: str) -> None:
    with pytest.raises(PermanentFault) as raised:
        FIELD_TYPES[name].convert(given)
    assert raised.value.code == code
    assert raised.value.__context__ is None


def cell(value: Any, column: Column | None = None, **keys: Any) -> str | None:
    """Return the text in the cell of one array field; "fault field" where there is none."""
    field = Field(source="a.tags", column="tags", **keys)
    settings = Settings(field=(field,), sink=SinkSettings(table="t"))
    cross_check(settings)
    columns = [[column or column_for(field)]]
    mapping = compile_mapping(settings, columns, masks_of(settings))
    message = Message("m", "h", json.dumps({"a": {"tags": value}}), SystemAttributes(0))
    try:
        decoded = mapping.decode(message)
    except PermanentFault as fault:
        return f"{fault.code} {fault.detail}"
    [row] = mapping.rows(["k"], [message], [decoded])
    if not isinstance(row, Row):
        return f"{row.code} {row.detail}"
    [text] = values(row.text.removesuffix("\n"))
    return text


def test_an_array_has_its_defaults_and_faults_name_the_field() -> None:
    assert cell(None, type="text[]") is None
    assert cell(None, type="text[]", default="[]") == "{}"
    assert cell([], type="text[]", required=True) == "{}"
    assert cell(None, type="text[]", required=True) == "missing_field a.tags"
    assert cell("a", type="text[]") == "wrong_type a.tags"
    assert cell(["a", ["b"]], type="text[]") == "nested_array a.tags"
    assert cell([1, "x"], type="integer[]") == "wrong_type a.tags"
    assert cell(["a\0"], type="text[]") == "nul_character a.tags"
    assert cell(['t\tab \\ "q"'], type="text[]") == '{"t\tab \\\\ \\"q\\""}'


def test_a_length_is_that_of_each_element() -> None:
    assert cell(["abc", "ab", None], type="text[]", length_max=3) == "{abc,ab,NULL}"
    assert cell(["abc", "abcd"], type="text[]", length_max=3) == "too_long a.tags"
    assert cell(["abcd", "a"], type="text[]", length_max=3, over_length="truncate") == "{abc,a}"
    assert cell(["abcd"], Column("tags", "_varchar", 3), type="text[]") == "too_long a.tags"
    assert cell(["AP8="], type="bytea[]", length_max=2) == '{"\\\\x00ff"}'
    assert cell(["AP8A"], type="bytea[]", length_max=2) == "too_long a.tags"


def test_elements_fit_the_columns_own_type() -> None:
    assert cell([32767], Column("tags", "_int2"), type="integer[]") == "{32767}"
    assert cell([32768], Column("tags", "_int2"), type="integer[]") == "out_of_range a.tags"
    moods = Column("tags", "_mood", labels=("sad", "ok"))
    assert cell(["ok", None, "sad"], moods, type="text[]") == "{ok,NULL,sad}"
    assert cell(["ok", "glad"], moods, type="text[]") == "not_in_enum a.tags"


def test_a_mask_is_put_on_each_element() -> None:
    single = cell(["a"], type="text[]", mask="pseudonymize")
    assert single is not None
    token = single.strip("{}")
    assert token.startswith("v1_")
    assert cell(["a", None, "a"], type="text[]", mask="pseudonymize") == f"{{{token},NULL,{token}}}"
    assert cell([7, 7.0], type="integer[]", mask="pseudonymize").count(",") == 1  # type: ignore[union-attr]
    assert cell(["a", "b"], type="text[]", mask="redact") == "{[redacted],[redacted]}"
    assert cell(["a"], type="text[]", mask="nullify") is None
    assert cell(["198.51.100.7"], type="text[]", mask="truncate_ip", kind="ip") == "{198.51.100.0}"
    assert cell(["x"], type="text[]", mask="pseudonymize", kind="ip") == "bad_ip a.tags"
    assert cell([], type="uuid[]", mask="pseudonymize") == "{}"


def test_a_scalar_and_an_element_of_one_domain_have_one_token() -> None:
    fields = (
        Field(source="one", column="one", mask="pseudonymize", domain="d"),
        Field(source="all", column="all", type="text[]", mask="pseudonymize", domain="d"),
    )
    settings = Settings(field=fields, sink=SinkSettings(table="t"))
    mapping = compile_mapping(settings, [list(map(column_for, fields))], masks_of(settings))
    message = Message("m", "h", '{"one": "x", "all": ["x"]}', SystemAttributes(0))
    [row] = mapping.rows(["k"], [message], [mapping.decode(message)])
    assert isinstance(row, Row)
    one, all_ = values(row.text.removesuffix("\n"))
    assert all_ == f"{{{one}}}"


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"type": "numeric[]", "mask": "pseudonymize"}, "mask_type"),
        ({"type": "text[]", "mask": "pseudonymize", "recover": True}, "mask_not_recoverable"),
    ],
)
def test_what_no_mask_can_do_is_refused(keys: dict[str, Any], code: str) -> None:
    settings = Settings(field=(Field(source="a", column="a", **keys),))
    with pytest.raises(SettingsError) as raised:
        cross_check(settings)
    assert raised.value.code == code


@pytest.mark.parametrize("default", ["x", '{"a": 1}', "[1]", '["a"'])
def test_a_default_that_is_no_array_is_refused(default: str) -> None:
    field = Field(source="a", column="a", type="text[]", default=default)

    def compile_it() -> None:
        settings = Settings(field=(field,))
        cross_check(settings)
        compile_mapping(settings, [[column_for(field)]], [[None]])

    with pytest.raises(SettingsError, match="default"):
        compile_it()


@pytest.mark.parametrize(
    ("type_", "mask", "column", "fits"),
    [
        ("text[]", "keep", "_text", True),
        ("text[]", "keep", "_mood", True),
        ("text[]", "keep", "text", False),
        ("text[]", "keep", "jsonb", False),
        ("integer[]", "keep", "_int4", True),
        ("integer[]", "keep", "_int8", True),
        ("integer[]", "keep", "_text", True),
        ("integer[]", "keep", "int4", False),
        ("integer[]", "keep", "_uuid", False),
        ("text[]", "pseudonymize", "_text", True),
        ("text[]", "pseudonymize", "text", False),
        ("text[]", "pseudonymize", "_int4", False),
        ("text", "pseudonymize", "_text", False),
        ("text[]", "nullify", "int4", True),
    ],
)
def test_columns_that_take_an_array(type_: Any, mask: str, column: str, fits: bool) -> None:
    field = Field(source="a", column="a", type=type_, mask=mask)
    columns = {"a": Column("a", column)}
    if fits:
        assert match([field], columns, "t") == [columns["a"]]
        return
    with pytest.raises(SettingsError) as raised:
        match([field], columns, "t")
    assert raised.value.code == "target_column"

"""Decode: which bodies are records and which are faults; no fault quotes the body."""

from __future__ import annotations

import json
import sys

import pytest

from sqs2pg.errors import PermanentFault, Stage
from sqs2pg.mapping.json_slices import DEPTH_MAX
from sqs2pg.settings import USER_LOGINS, Field
from tests.logins import WHOLE, whole_login
from tests.records import Reader

CANARY = "canary-4711"

OPTIONAL = [field.source for field in USER_LOGINS if not field.required]
WRONG = {
    "integer": "1",
    "float": "1.5",
    "big integer": "9" * 100,
    "number out of range": "1e999",
    "true": "true",
    "false": "false",
    "array": f'["{CANARY}"]',
    "object": f'{{"a": "{CANARY}"}}',
}


@pytest.fixture(scope="module")
def drop() -> Reader:
    return Reader(USER_LOGINS, "drop")


@pytest.fixture(scope="module")
def strict() -> Reader:
    return Reader(USER_LOGINS, "quarantine")


def refused(decoder: Reader, body: str) -> PermanentFault:
    with pytest.raises(PermanentFault) as caught:
        decoder.decode(body)
    fault = caught.value
    assert fault.stage is Stage.DECODE
    assert CANARY not in f"{fault!r} {fault} {fault.args} {vars(fault)}"
    assert fault.__context__ is None  # the JSON library's exceptions hold the body
    assert fault.__cause__ is None
    return fault


def test_a_login_as_its_users_send_it(drop: Reader, strict: Reader) -> None:
    for decoder in (drop, strict):
        assert decoder.values(whole_login()) == {**WHOLE, "create_date": None}


@pytest.mark.parametrize("source", OPTIONAL)
def test_a_missing_or_null_field_is_none(drop: Reader, source: str) -> None:
    for body in ('{"user_id": "u"}', f'{{"user_id": "u", "{source}": null}}'):
        assert drop.values(body)[source] is None


@pytest.mark.parametrize("source", OPTIONAL)
def test_an_empty_text_is_not_null(drop: Reader, source: str) -> None:
    assert drop.values(f'{{"user_id": "u", "{source}": ""}}')[source] == ""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{}", "missing_field"),
        (f'{{"ip": "{CANARY}"}}', "missing_field"),
        ('{"user_id": null}', "missing_field"),
        ('{"user_id": "u", "user_id": null}', "missing_field"),
        ('{"User_Id": "u"}', "missing_field"),
        ('{"user_id ": "u"}', "missing_field"),
        ('{"user_id": ""}', "empty_field"),
        *((f'{{"user_id": {wrong}}}', "wrong_type") for wrong in WRONG.values()),
    ],
)
def test_user_id_is_required_and_a_text_that_is_not_empty(
    drop: Reader, body: str, code: str
) -> None:
    fault = refused(drop, body)
    assert (fault.code, fault.detail) == (code, "user_id")


@pytest.mark.parametrize("user_id", [" ", "0", "null", "\u0000", "é", "x" * 100_000])
def test_any_text_that_is_not_empty_is_a_user_id(drop: Reader, user_id: str) -> None:
    body = json.dumps({"user_id": user_id})
    assert drop.values(body)["user_id"] == user_id


@pytest.mark.parametrize("source", OPTIONAL)
def test_every_field_is_a_text_or_null(drop: Reader, source: str) -> None:
    for wrong in WRONG.values():
        fault = refused(drop, f'{{"user_id": "{CANARY}", "{source}": {wrong}}}')
        assert (fault.code, fault.detail) == ("wrong_type", source), wrong


@pytest.mark.parametrize(
    "body",
    [
        "null",
        "true",
        "false",
        "1",
        "-1.5e3",
        '""',
        f'"{CANARY}"',
        "[]",
        f'[{{"user_id": "{CANARY}"}}]',
        '"{}"',
        " [1] ",
    ],
)
def test_a_body_that_is_not_an_object_is_refused(drop: Reader, body: str) -> None:
    fault = refused(drop, body)
    assert (fault.code, fault.detail) == ("not_an_object", "")


GOOD = f'{{"user_id": "{CANARY}"}}'
NOT_JSON = {
    "empty": "",
    "blank": " \t\r\n ",
    "word": CANARY,
    "nothing but a NUL": "\x00",
    "cut short": GOOD[:-1],
    "cut inside a text": GOOD[:-5],
    "cut inside a name": '{"user_i',
    "cut after a colon": '{"user_id":',
    "cut inside an escape": '{"user_id": "\\u00',
    "single quotes": GOOD.replace('"', "'"),
    "name without quotes": f'{{user_id: "{CANARY}"}}',
    "trailing comma": GOOD[:-1] + ",}",
    "two commas": f'{{"user_id": "{CANARY}",, "ip": null}}',
    "no comma": f'{{"user_id": "{CANARY}" "ip": null}}',
    "comment": GOOD + f" // {CANARY}",
    "trailing word": GOOD + CANARY,
    "trailing object": GOOD + GOOD,
    "JSON lines": GOOD + "\n" + GOOD,
    "trailing brace": GOOD + "}",
    "trailing NUL": GOOD + "\x00",
    "no-break space": "\u00a0" + GOOD,
    "NaN": '{"user_id": "u", "x": NaN}',
    "NaN in a field": '{"user_id": "u", "locale": NaN}',
    "Infinity": '{"user_id": "u", "x": Infinity}',
    "-Infinity": '{"user_id": "u", "x": -Infinity}',
    "leading zero": '{"user_id": "u", "x": 01}',
    "plus sign": '{"user_id": "u", "x": +1}',
    "hexadecimal": '{"user_id": "u", "x": 0x1F}',
    "Python": "{'user_id': None}",
    "True": '{"user_id": "u", "x": True}',
    "raw newline in a text": '{"user_id": "a\nb"}',
    "raw tab in a text": '{"user_id": "a\tb"}',
    "raw NUL in a text": '{"user_id": "a\x00b"}',
    "unknown escape": '{"user_id": "\\x41"}',
    "short escape": '{"user_id": "\\u41"}',
    "lone high surrogate": '{"user_id": "\\ud800"}',
    "lone low surrogate": '{"user_id": "\\udc00"}',
    "surrogates the wrong way round": '{"user_id": "\\ude00\\ud83d"}',
    "base64": "eyJ1c2VyX2lkIjogInUifQ==",
    "XML": f"<user_id>{CANARY}</user_id>",
    "form": f"user_id={CANARY}",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_a_body_that_is_not_json_is_refused(drop: Reader, strict: Reader, body: str) -> None:
    fault = refused(drop, body)
    assert (fault.code, fault.detail) == ("not_json", "")
    assert refused(strict, body).code == "not_json"


def test_a_byte_order_mark_before_a_body_is_no_part_of_it(drop: Reader) -> None:
    assert drop.values("\ufeff" + GOOD) == drop.values(GOOD)
    for body in ("\ufeff", "\ufeff" * 2 + GOOD, " \ufeff" + GOOD, "\ufeff" * 100_000):
        assert refused(drop, body).code == "not_json"


def test_a_lone_surrogate_in_the_body_itself(drop: Reader) -> None:
    assert refused(drop, f'{{"user_id": "{CANARY}\ud800"}}').code == "bad_unicode"


@pytest.mark.parametrize("opening", ['{"user_id": "u", "x": %s}', '{"x": %s, "user_id": "u"}'])
@pytest.mark.parametrize(
    "nest", ["[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000]
)
def test_nesting_without_end_is_too_deep(drop: Reader, opening: str, nest: str) -> None:
    assert refused(drop, opening % nest).code == "too_deep"


def test_nesting_that_never_closes_is_a_fault(drop: Reader, strict: Reader) -> None:
    for body in ("[" * 200_000, '{"a":' * 200_000, '{"user_id":' + "[" * 200_000):
        assert refused(drop, body).code == refused(strict, body).code == "too_deep"


@pytest.mark.parametrize(
    "more", ["", ' "s": "[[[{{{", "t": "\\\\", "u": "\\"[",', ' "y": [[], {}], ' * 200]
)
def test_json_may_be_nested_to_the_same_depth_everywhere(drop: Reader, more: str) -> None:
    for opening, closing, inside in (
        ("[", "]", ""),
        ("[", "]", "1"),
        ('{"a":', "}", "{}"),
        ("[", "]", '"]"'),
    ):
        for below in (DEPTH_MAX - 1, DEPTH_MAX):  # the document itself is one more
            count = below - inside.count("{")
            body = f'{{{more} "x": {opening * count}{inside}{closing * count}, "user_id": "u"}}'
            if below < DEPTH_MAX:
                assert drop.values(body)["user_id"] == "u"
            else:
                assert refused(drop, body).code == "too_deep"


def test_faults_do_not_use_up_the_stack(drop: Reader) -> None:
    body = '{"user_id": "u", "x": ' + "[" * 50_000 + "]" * 50_000 + "}"
    for _ in range(50):
        assert refused(drop, body).code == "too_deep"
    assert drop.values(GOOD)["user_id"] == CANARY
    assert sys.getrecursionlimit() < 50_000


@pytest.mark.parametrize(
    ("body", "user_id"),
    [
        ('{"user_id": "a", "user_id": "b"}', "b"),
        ('{"user_id": "", "user_id": "b"}', "b"),
        ('{"user_id": 1, "user_id": "b"}', "b"),
        ('{"user_id": "b", "user_id": ""}', None),
        ('{"user_id": "b", "user_id": 1}', None),
        ('{"\\u0075ser_id": "b"}', "b"),
        ('{"\\u0075ser_id": "a", "user_id": "b"}', "b"),
    ],
)
def test_of_a_repeated_name_the_last_value_counts(
    drop: Reader, body: str, user_id: str | None
) -> None:
    if user_id is None:
        refused(drop, body)
    else:
        assert drop.values(body)["user_id"] == user_id


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\u0000", "\x00"),
        (r"\n\t\r\b\f\\\/\"", '\n\t\r\b\f\\/"'),
        (r"\ud83d\ude00", "😀"),
        ("😀", "😀"),
        ("e\u0301", "e\u0301"),  # kept as it came: only masking normalizes
        (r"\uffff", "\uffff"),
        ("\u2028\x7f", "\u2028\x7f"),
        (r"\\u0041", r"\u0041"),
    ],
)
def test_texts_arrive_as_they_were_sent(drop: Reader, text: str, value: str) -> None:
    assert drop.values(f'{{"user_id": "{text}"}}')["user_id"] == value


@pytest.mark.parametrize("space", ["\n", "\t", "\r\n", "  "])
def test_white_space_around_is_fine(drop: Reader, space: str) -> None:
    assert drop.values(space + GOOD + space)["user_id"] == CANARY


UNKNOWN = {
    "plain": CANARY,
    "empty": "",
    "like a path": f"at `$.{CANARY}`",
    "like a path of ours": "x` - at `$.ip",
    "like another message": f"missing required field `{CANARY}`",
    "like a length": f"of length {CANARY}",
    "like a type": f"Expected `object` {CANARY}",
    "escaped": f"\\u0041{CANARY}\\n`",
    "emoji": f"🔑{CANARY}",
    "dunder": "__class__",
    "an attribute of ours": "f0",
    "long": CANARY * 1_000,
}


@pytest.mark.parametrize("name", UNKNOWN.values(), ids=UNKNOWN)
def test_fields_not_named_are_dropped_or_quarantined_without_their_names(
    drop: Reader, strict: Reader, name: str
) -> None:
    for value in ('"x"', "1", "null", '{"a": [1, {"b": null}]}', "1e999"):
        found = drop.values(f'{{"{name}": {value}, "user_id": "u", "ip": "i"}}')
        assert found == {**dict.fromkeys(OPTIONAL), "user_id": "u", "ip": "i"}
    fault = refused(strict, f'{{"user_id": "u", "{name}": "{CANARY}"}}')
    assert (fault.code, fault.detail, str(fault)) == ("unknown_field", "", "unknown_field")


NAMES = ["a.b", "a b", "a`b", "`", "$", "__class__", "__init__", "f1", "é", "🔑", "{}", "x" * 256]


@pytest.mark.parametrize("name", NAMES)
def test_a_source_may_be_any_name(name: str) -> None:
    source = f"['{name}']"
    decoder = Reader([Field(source=source, column="c", required=True)], "quarantine")
    assert decoder.values(json.dumps({name: "v"})) == {source: "v"}
    for body, code in (("{}", "missing_field"), ("1", "wrong_type"), ('""', "empty_field")):
        fault = refused(decoder, body if body == "{}" else f"{{{json.dumps(name)}: {body}}}")
        assert (fault.code, fault.detail) == (code, source)


def test_one_source_may_go_to_two_columns_and_is_required_if_one_says_so() -> None:
    fields = [
        Field(source="id", column="a"),
        Field(source="other", column="b"),
        Field(source="id", column="c", required=True),
    ]
    decoder = Reader(fields, "drop")
    assert set(decoder.sources) == {"id", "other"}
    assert refused(decoder, '{"other": "x"}').detail == "id"
    assert decoder.values('{"id": "x"}') == {"id": "x", "other": None}


@pytest.mark.parametrize("source", ["event_id", "user_id", "ip"])  # its own, or also a field's
def test_the_dedupe_key_is_read_beside_the_mapping(source: str) -> None:
    decoder = Reader(USER_LOGINS, "quarantine", source)
    body = {"user_id": "u", "ip": "i", source: "e"}
    assert decoder.decode(json.dumps(body)).event == "e"
    assert decoder.values(json.dumps(body))["user_id"] == body["user_id"]


@pytest.mark.parametrize("value", ["", ', "event_id": null'])
def test_a_message_may_lack_the_dedupe_key(value: str) -> None:
    decoder = Reader(USER_LOGINS, "drop", "event_id")
    assert decoder.decode(f'{{"user_id": "u"{value}}}').event is None


def test_a_name_of_another_type_is_a_fault_and_a_required_field_stays_required() -> None:
    decoder = Reader(USER_LOGINS, "drop", "event_id")
    found = refused(decoder, f'{{"user_id": "u", "event_id": ["{CANARY}"]}}')
    assert (found.code, found.detail) == ("wrong_type", "event_id")
    assert refused(Reader(USER_LOGINS, "drop", "user_id"), "{}").code == "missing_field"


def test_without_a_dedupe_key_setting_there_is_no_dedupe_value(drop: Reader) -> None:
    assert drop.decode(GOOD).event is None


def test_a_record_shows_nothing(drop: Reader) -> None:
    record = drop.decode(GOOD)
    for shown in (record, record.batch):
        assert CANARY not in f"{shown} {shown!r} {[shown]} {{'r': {shown}}}"


@pytest.mark.parametrize("value", ["1", '"x"', "null", '{"deep": [1, {"er": "canary"}]}', "[]"])
def test_a_dropped_field_may_hold_anything_and_is_counted(value: str) -> None:
    decoder = Reader(USER_LOGINS, "quarantine", dropped=["extra", "other", "event"])
    bodies = [f'{{"user_id": "u", "extra": {value}}}', '{"user_id": "u"}']
    records = [decoder.decode(body) for body in bodies]
    assert decoder.mapping.count_dropped(records) == {"extra": 1}
    assert "canary" not in repr(records)
    assert refused(decoder, '{"user_id": "u", "unknown": 1}').code == "unknown_field"
    assert refused(decoder, '{"user_id": "u", "extra": }').code == "not_json"


def test_the_dedupe_key_may_be_a_dropped_field() -> None:
    decoder = Reader(USER_LOGINS, "quarantine", "event", dropped=["event"])
    assert decoder.decode('{"user_id": "u", "event": "e1"}').event == "e1"

"""Decode, against Python's own JSON reader: every body is a record of its fields, or a fault."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.errors import PermanentFault
from sqs2pg.settings import USER_LOGINS, Field
from tests.records import Reader

SOURCES = [field.source for field in USER_LOGINS]
CODES = {
    *("not_json", "bad_unicode", "too_deep", "not_an_object"),
    *("missing_field", "empty_field", "wrong_type", "unknown_field"),
}
CANARY = "canary-4711"

unhurried = settings(deadline=None)  # the machine may be busy

DROP = Reader(USER_LOGINS, "drop")
STRICT = Reader(USER_LOGINS, "quarantine")

texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(SOURCES) | texts
objects = st.dictionaries(names, st.none() | texts | anything, max_size=10)
good = st.fixed_dictionaries(
    {"user_id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1)},
    optional={source: st.none() | texts for source in SOURCES if source != "user_id"},
)


def outcome(decoder: Reader, body: str) -> dict[str, Any] | PermanentFault:
    try:
        return decoder.values(body)
    except PermanentFault as caught:
        fault = caught
    assert fault.code in CODES
    assert fault.detail in ("", *decoder.sources)
    assert str(fault) == f"{fault.code} {fault.detail}".rstrip()
    assert fault.__context__ is None
    return fault


def expected(value: Any, *, strict: bool) -> dict[str, Any] | None:
    """The record that a JSON value stands for by the rules of the built-in mapping, or None."""
    if not isinstance(value, dict) or (strict and not set(value) <= set(SOURCES)):
        return None
    record = {source: value.get(source) for source in SOURCES}
    if not all(field is None or isinstance(field, str) for field in record.values()):
        return None
    return record if record["user_id"] else None


@unhurried
@given(good, st.booleans(), st.sampled_from([None, 2]))
def test_a_good_record_comes_back_however_it_is_written(
    value: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert outcome(DROP, body) == outcome(STRICT, body) == {**dict.fromkeys(SOURCES), **value}


@unhurried
@given(objects | anything, st.booleans())
def test_decoding_follows_the_rules_for_any_json_value(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only)
    for decoder, strict in ((DROP, False), (STRICT, True)):
        found = outcome(decoder, body)
        record = expected(value, strict=strict)
        assert found == record if record is not None else isinstance(found, PermanentFault)


@unhurried
@given(texts)
def test_any_text_is_a_record_or_a_fault(body: str) -> None:
    try:
        value = json.loads(body, parse_constant=lambda _: math.nan)
    except ValueError:
        value = None
    for decoder, strict in ((DROP, False), (STRICT, True)):
        found = outcome(decoder, body)
        if expected(value, strict=strict) is None:
            assert isinstance(found, PermanentFault)


@unhurried
@given(good, st.data())
def test_a_body_cut_or_changed_anywhere_is_a_record_or_a_fault(
    value: dict[str, Any], data: st.DataObject
) -> None:
    body = json.dumps(value)
    at = data.draw(st.integers(0, len(body) - 1))
    assert isinstance(outcome(DROP, body[:at]), PermanentFault)
    character = data.draw(st.characters())
    changed = body[:at] + character + body[at + 1 :]
    for decoder in (DROP, STRICT):
        outcome(decoder, changed)


@unhurried
@given(
    st.dictionaries(names, st.none() | texts | anything, max_size=4),
    st.text(max_size=20),
    st.sampled_from(
        ["`", "at `$.", "field `", "Expected `str`", "Object missing required field `", ""]
    ),
)
def test_a_fault_never_quotes_an_unknown_field_name(
    value: dict[str, Any], name: str, disguise: str
) -> None:
    value = {f"{disguise}{CANARY}{name}": CANARY, **value}
    for decoder in (DROP, STRICT):
        found = outcome(decoder, json.dumps(value))
        if isinstance(found, PermanentFault):
            assert CANARY not in f"{found!r} {found} {vars(found)}"
        assert decoder is DROP or isinstance(found, PermanentFault)


@unhurried
@given(
    st.lists(
        st.text(
            st.characters(exclude_characters="\"\\'", exclude_categories=["Cs", "Cc"]), min_size=1
        ),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.data(),
)
def test_a_field_may_have_any_name(names: list[str], data: st.DataObject) -> None:
    required = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    pairs = [(f"['{name}']", must) for name, must in zip(names, required, strict=True)]
    fields = [Field(source=s, column=f"c{i}", required=r) for i, (s, r) in enumerate(pairs)]
    decoder = Reader(fields, "quarantine")
    value = {name: f"value of {name}" for name in names}
    read = {source: value[name] for (source, _), name in zip(pairs, names, strict=True)}
    assert outcome(decoder, json.dumps(value)) == read
    for (source, must), name in zip(pairs, names, strict=True):
        found = outcome(decoder, json.dumps({**value, name: None}))
        if must:
            assert isinstance(found, PermanentFault)
            assert (found.code, found.detail) == ("missing_field", source)
        else:
            assert found == {**read, source: None}

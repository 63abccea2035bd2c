"""Originals: what is kept of a batch for the vault, and the subject of a body."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.mapping.copy_text import escaped, unescaped
from sqs2pg.mapping.originals import Originals, fields_id
from sqs2pg.mapping.subject import stored_form, subject_reader
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import Field
from sqs2pg.settings.fields import TypeName

ID = "018bcfe5-6c3a-7d2b-8e4f-0123456789ab"


def message(number: int) -> Message:
    return Message(f"m{number}", "", "", SystemAttributes(0))


@settings(deadline=None)
@given(st.text(alphabet="ab\\ntr\n\r\t", max_size=12))
def test_a_cell_is_read_back_as_it_was(text: str) -> None:
    assert unescaped(escaped(text)) == text


def batch() -> Originals:
    originals = Originals()
    part = originals.part([message(n) for n in range(4)], ["ann", "bob", "ann", None])
    part.add("ip", ["1", None, "1", "4"], ["t1", r"\N", "t1", "t4"])
    part.add("device", ["x", "y", "x", "z"], [r"a\\b", "dy", r"a\\b", "dz"])
    return originals


def test_equal_originals_are_kept_once_and_missing_values_not_at_all() -> None:
    [part] = batch().parts
    found = part.hashes(b"1", None)
    assert len(found) == 3
    assert sorted(part.originals(sorted(found.values()))) == [
        ("ann", "device", "a\\b", "x"),
        ("ann", "ip", "t1", "1"),
        ("bob", "device", "dy", "y"),
    ]


def test_only_chosen_messages_count_and_the_salt_changes_every_hash() -> None:
    [part] = batch().parts
    assert set(part.hashes(b"1", {"m1"}).values()) == {1}
    assert part.hashes(b"1", {"m0", "m1", "m2", "m3"}).keys() == part.hashes(b"1", None).keys()
    assert part.hashes(b"1", None).keys().isdisjoint(part.hashes(b"2", None))


def test_two_fields_share_an_original_only_if_they_mask_alike() -> None:
    field = Field(column="c", source="ip", mask="pseudonymize", kind="ip", recover=True)
    others = [
        {"source": "client_ip"},
        {"domain": "d"},
        {"mask": "sha256"},
        {"kind": "text"},
        {"type": "bigint"},
    ]
    fields = [field, *(msgspec.structs.replace(field, **other) for other in others)]
    found = []
    for one in [*fields, msgspec.structs.replace(field, column="another", domain="ip")]:
        part = Originals().part([message(0)], ["ann"], fields_id([one, Field(column="x")]))
        part.add(one.source, ["192.0.2.1"], ["t"])
        [mark] = part.hashes(b"1", None)
        found.append(mark)
    assert len(set(found)) == len(fields)
    assert found[-1] == found[0], "the vault ignores a token's column"


def test_originals_hide_their_values_in_repr() -> None:
    assert "ann" not in repr(batch()) + repr(batch().parts[0])


@pytest.mark.parametrize(
    ("body", "source", "name"),
    [
        ('{"user_id": "ann", "ip": 5}', "user_id", "ann"),
        ('{"user_id": 17}', "user_id", "17"),
        ('{"user": {"id": "ann"}}', "user.id", "ann"),
        ('{"user.id": "bob", "user": {"id": "ann"}}', "user.id", "bob"),
        ('{"user_id": ""}', "user_id", None),
        ('{"user_id": true}', "user_id", None),
        ('{"user_id": ["ann"]}', "user_id", None),
        ('{"user": "ann"}', "user.id", None),
        ('{"users": [{"id": "ann"}]}', "users[0].id", "ann"),
        ('{"users": [{"id": "ann"}]}', "users[-1].id", "ann"),
        ('{"users": []}', "users[0].id", None),
        ('{"users": [{"id": "ann"}]}', "users[].id", None),
        ('{"a.b": {"id": "ann"}}', "['a.b'].id", "ann"),
        ('["ann"]', "user_id", None),
        ('{"user_id": "ann"', "user_id", None),
        ("not json", "user_id", None),
        ("[" * 100_000, "user_id", None),
        (json.dumps({"user_id": "\ud800"}), "user_id", None),
    ],
)
def test_the_subject_of_a_body_is_read(body: str, source: str, name: str | None) -> None:
    assert subject_reader(lambda text: text.encode().decode(), source)(body) == name


@pytest.mark.parametrize(
    ("kind", "body", "name"),
    [
        ("uuid", f'{{"id": "{ID.upper()}"}}', ID),
        ("integer", '{"id": 7.0}', "7"),
        ("bigint", '{"id": 9007199254740993.0}', "9007199254740993"),
        ("bigint", '{"id": "7"}', "7"),
        ("uuid", '{"id": "ann"}', None),
        ("text", '{"id": "ANN"}', "ANN"),
    ],
)
def test_a_name_is_the_one_in_the_column(kind: TypeName, body: str, name: str | None) -> None:
    named = stored_form(
        [Field(column="x", source="x"), Field(column="id", source="id", type=kind)], "id"
    )
    assert subject_reader(named, "id")(body) == name

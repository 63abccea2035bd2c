"""What `init` proposes for a sample, shape by shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.cli.doctor.sample_documents import sample_of
from tests.properties.test_proposals import messages_of, proposed


def fields_of(*documents: Any, table: int = 0) -> dict[str, dict[str, Any]]:
    """Return the proposed fields of a table by source, those that are left out apart."""
    proposal, _ = proposed(messages_of([*map(json.dumps, documents)]))
    return {
        one.field.get("source", one.field.get("column")): one.field
        for one in proposal.tables[table].fields
        if not one.left_out
    }


def five(**values: Any) -> list[dict[str, Any]]:
    """Return five documents with the same values."""
    return [values] * 5


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("n", [1, 2], {"type": "integer"}),
        ("n", [1, 2**40], {"type": "bigint"}),
        ("n", [1, 2.5], {"type": "numeric"}),
        ("n", ["1", "2"], {"type": "integer", "from": "text"}),
        ("n", ["1", 2], {"type": "integer", "from": "text"}),
        ("n", ["1.5", ""], {"type": "numeric", "from": "text", "empty": "null"}),
        ("sku", ["001", "2"], {}),
        ("order_id", ["1", "2"], {}),
        ("ok", ["true", "false"], {"type": "boolean", "from": "text"}),
        ("ok", [True, "false"], {"type": "boolean", "from": "text"}),
        ("ts", [1_760_000_000, 1_760_000_001], {"type": "timestamptz", "format": "epoch_s"}),
        ("createdAt", ["1760000000123"], {"type": "timestamptz", "format": "epoch_ms"}),
        ("updated_at", [1_760_000_000_123_456], {"type": "timestamptz", "format": "epoch_us"}),
        ("ts", [1_760_000_000, 5], {"type": "integer"}),
        ("total", [1_760_000_000], {"type": "integer"}),
        ("at", ["2026-03-01T12:00:00Z"], {"type": "timestamptz"}),
        ("at", ["2026-03-01 12:00"],
         {"type": "timestamptz", "format": "iso8601", "timezone": "UTC"}),
        ("day", ["31.12.2026"], {"type": "date", "format": "%d.%m.%Y"}),
        ("day", ["03/04/2026"], {}),
        ("v", ["a", 1], {"type": "jsonb"}),
        ("v", [{"a": 1}, "x"], {"type": "jsonb"}),
        ("tags", [["a"], ["b", None]], {"type": "text[]"}),
        ("tags", [[1, 2], []], {"type": "integer[]"}),
        ("tags", [[1, "a"]], {"type": "jsonb"}),
        ("mail_sent", [True, False], {"type": "boolean"}),
    ],
)  # fmt: skip
def test_types_and_conversions(name: str, values: list[Any], expected: dict[str, Any]) -> None:
    field = fields_of(*({"key": 1, name: value} for value in values))[name]
    kept = {k: v for k, v in field.items() if k not in ("source", "column", "required")}
    assert kept == expected


@pytest.mark.parametrize(
    ("name", "value", "mask"),
    [
        ("contacts", ["ann@example.org"], "drop"),
        ("note", "please call Ann on 0171 2345678 before noon", "drop"),
        ("payload", '{"first_name": "Ann"}', "pseudonymize"),
        ("mac", "00:1b:44:11:3a:b7", "pseudonymize"),
        ("password", "x", "drop"),
        ("cookie", "x", "drop"),
        ("user_agent", "x", "pseudonymize"),
        ("geo", [48.4, 9.9], "drop"),
        ("lat", 48.4, "drop"),
        ("x", "48.4011, 9.9876", "pseudonymize"),
        ("x", "4111 1111 1111 1111", "pseudonymize"),
        ("x", 4111111111111111, "pseudonymize"),
        ("x", [["198.51.100.7"]], "drop"),
        ("x", {"alice@example.org": 1}, "drop"),
        ("birthday", "1990-01-01", "pseudonymize"),
        ("phone", 4915112345678, "pseudonymize"),
        ("total_tokens", 7, "keep"),
        ("email_verified", True, "keep"),
    ],
)
def test_what_looks_personal_is_masked_or_dropped(name: str, value: Any, mask: str) -> None:
    field = fields_of(*five(key=1, **{name: value}))[name]
    assert field.get("mask", "keep") == mask


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("ann@mail.example", "email"),
        ("mailto:ann@mail.example", None),
        ("https://mail.example/?to=ann@mail.example", None),
        ("ann@mail.example,bob@mail.example", None),
        ("Ann <ann@mail.example>", None),
        ("198.51.100.7", "ip"),
        ("198.51.100.7:443", None),
        ("198.51.100.7, 198.51.100.8", None),
    ],
)
def test_only_an_address_alone_has_its_kind(value: str, kind: str | None) -> None:
    assert fields_of(*five(origin=value))["origin"].get("kind") == kind


@pytest.mark.parametrize("other", [True, False, None, "bob@example.org"])
def test_a_personal_field_is_masked_whatever_else_it_holds(other: Any) -> None:
    documents = [{"key": 1, "email": "ann@example.org"}, {"key": 1, "email": other}]
    assert fields_of(*documents)["email"].get("mask", "keep") != "keep"


def test_an_object_beside_null_keeps_its_columns() -> None:
    found = fields_of({"id": 1, "shipping": {"street": "Elm"}}, {"id": 2, "shipping": None})
    assert found["shipping.street"] == {
        "source": "shipping.street", "column": "shipping_street", "mask": "pseudonymize",
    }  # fmt: skip


def test_what_every_sample_has_is_required() -> None:
    found = fields_of(*[{"a": 1, "b": None if i else 2, "c": "x", "d": ""} for i in range(6)])
    assert [name for name, field in found.items() if field.get("required")] == ["a", "c"]
    found = fields_of({"a": 1, "id": 2}, {"a": 1, "id": 3})
    assert [name for name, field in found.items() if field.get("required")] == ["id"]


def test_an_array_of_objects_becomes_a_table_with_the_id_of_its_document() -> None:
    documents = [
        {"id": i, "at": "x", "by": "y", "more": 1, "items": [{"sku": "a"}]} for i in range(5)
    ]
    assert "items" not in fields_of(*documents)
    assert [*fields_of(*documents, table=1)] == ["id", "items_index", "items[].sku"]
    proposal, _ = proposed(messages_of([*map(json.dumps, documents)]))
    assert [(one.table, one.when, one.explode) for one in proposal.tables] == [
        ("events", "id", ""),
        ("events_items", "items", "items"),
    ]


def test_a_wrapper_of_one_array_is_exploded_into_one_table() -> None:
    proposal, _ = proposed(messages_of([json.dumps({"Records": [{"a": 1}, {"a": 2}]})] * 5))
    [table] = proposal.tables
    assert (table.explode, proposal.routed) == ("Records", False)


def test_kinds_without_a_common_name_get_a_route_each() -> None:
    documents = [{"login": {"n": 1}}, {"logout": {"m": 1}}] * 3
    proposal, _ = proposed(messages_of([*map(json.dumps, documents)]))
    assert sorted(one.when for one in proposal.tables) == ["login", "logout"]


def test_objects_that_are_maps_are_kept_whole() -> None:
    documents = [{"id": i, "scores": {f"player{i}x{j}": j for j in range(20)}} for i in range(10)]
    assert fields_of(*documents)["scores"]["type"] == "jsonb"


@pytest.mark.parametrize(
    ("body", "layers"),
    [
        ({"Type": "Notification", "MessageId": "1", "TopicArn": "t", "Timestamp": "x",
          "Message": '{"a": 1}'}, ["sns"]),
        ({"version": "0", "id": "1", "detail-type": "t", "source": "s", "account": "1",
          "time": "x", "region": "r", "detail": {"a": 1}}, ["eventbridge"]),
        ("H4sIAAAAAAACA6tWSlSyUjCsBQCXjqH7CAAAAA==", ["base64", "gzip"]),
        ({"a": 1}, None),
    ],
)  # fmt: skip
def test_envelopes_are_recognised(body: Any, layers: list[str] | None) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    found = sample_of(messages_of([text]), "a test")
    assert found.envelope.get("layers") == layers
    assert found.documents == [{"a": 1}]


def test_messages_that_differ_are_opened_by_auto() -> None:
    sns = {"Type": "Notification", "MessageId": "1", "TopicArn": "t", "Timestamp": "x",
           "Message": '{"a": 1}'}  # fmt: skip
    found = sample_of(messages_of([json.dumps(sns), '{"a": 2}']), "a test")
    assert found.envelope == {"layers": ["auto"]}
    found = sample_of(messages_of(['[{"a": 1}]', "no json"]), "a test")
    assert found.envelope == {"records": "auto"}
    assert found.unread == {"not_json": 1}


def s3_record(key: str, event: str = "ObjectCreated:Put") -> dict[str, Any]:
    place = {"bucket": {"name": "logs"}, "object": {"key": key}}
    return {"eventSource": "aws:s3", "eventName": event, "s3": place}


S3_NEWS = {"Records": [s3_record("a+b%2Fc.jsonl"), s3_record("x", "ObjectRemoved:Delete")]}


@pytest.mark.parametrize(
    ("body", "layers"),
    [
        (S3_NEWS, ["s3_event"]),
        ({"Type": "Notification", "MessageId": "1", "TopicArn": "t", "Timestamp": "x",
          "Message": json.dumps(S3_NEWS)}, ["sns", "s3_event"]),
        ({"version": "0", "id": "1", "detail-type": "Object Created", "source": "aws.s3",
          "account": "1", "time": "x", "region": "r",
          "detail": {"bucket": {"name": "logs"}, "object": {"key": "a b/c.jsonl"}}},
         ["eventbridge", "s3_event"]),
    ],
)  # fmt: skip
def test_notifications_of_s3_are_recognised(body: Any, layers: list[str]) -> None:
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "logs"}
    found = sample_of(messages_of([*map(json.dumps, (body, test_event))]), "a test")
    assert found.envelope == {"layers": layers, "s3_buckets": ["logs"]}
    assert [(one.bucket, one.key) for one in found.objects] == [("logs", "a b/c.jsonl")]
    assert found.documents == []


def test_notifications_among_other_messages_are_left_out() -> None:
    found = sample_of(messages_of([json.dumps(S3_NEWS), '{"a": 1}']), "a test")
    assert (found.documents, found.envelope, found.objects) == ([{"a": 1}], {}, [])
    assert found.unread == {"s3_notification": 1}

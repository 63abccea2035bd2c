"""Notifications of S3: what is read of them, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.envelope.s3_event import OTHERS, NamedObject, decoded_key, read_notification
from tests.s3_events import notification

CREATED = {"eventbridge.detail-type": "Object Created"}


def records(*bodies: str) -> str:
    return json.dumps({"Records": [one for body in bodies for one in json.loads(body)["Records"]]})


def detail(**stored: Any) -> str:
    return json.dumps({"bucket": {"name": "b"}, "object": {"key": "k"} | stored})


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("plain/key.json", "plain/key.json"),
        ("a+b", "a b"),
        ("a%2Bb%20c", "a+b c"),
        ("%E2%82%AC%25", "€%"),
        ("%e2%82%ac", "€"),
        ("a%", ""),
        ("a%2", ""),
        ("a%zz", ""),
        ("%ff", ""),
        ("% 1", ""),
    ],
)
def test_keys_are_decoded_as_s3_encodes_them(encoded: str, key: str) -> None:
    assert decoded_key(encoded) == key


def test_a_notification_names_each_object_once() -> None:
    one = notification("b", "a b", etag='"e"', version="v", size=7)
    other = notification("b", "c", event="s3:ObjectCreated:CompleteMultipartUpload", version="null")
    found = read_notification(records(one, other, one), {})
    assert found.objects == (NamedObject("b", "a b", "v", "e", 7), NamedObject("b", "c"))
    assert (found.ignored, found.test) == (0, False)


def test_eventbridge_does_not_encode_keys() -> None:
    body = detail(**{"key": "a+b%20", "etag": "e", "version-id": "v", "size": 1})
    assert read_notification(body, CREATED).objects == (NamedObject("b", "a+b%20", "v", "e", 1),)
    restored = {"eventbridge.detail-type": "Object Restore Completed"}
    assert read_notification(detail(), restored).objects == (NamedObject("b", "k"),)
    deleted = {"eventbridge.detail-type": "Object Deleted"}
    assert read_notification(detail(), deleted).ignored == 1


def test_the_url_of_an_object_is_one_line_of_text() -> None:
    assert NamedObject("b", "a b/é%").place == "s3://b/a b/é%"
    assert NamedObject("b", "a\n\x1b[2J\u2028").place == "s3://b/a%0A%1B[2J%E2%80%A8"


def test_a_test_event_is_one_from_any_bucket() -> None:
    body = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "elsewhere"}
    assert read_notification(json.dumps(body), {}).test


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_new_content_is_ignored_or_refused(kind: str) -> None:
    body = records(notification("b", "k"), notification("b", "k", event=f"{kind}:Any"))
    found = read_notification(body, {})
    assert (len(found.objects), found.ignored) == (1, 1)
    with pytest.raises(PermanentFault, match="s3_no_content eventName"):
        read_notification(body, {}, removed="quarantine")


@pytest.mark.parametrize(
    ("body", "attributes", "fault"),
    [
        ("", {}, "not_s3_event"),
        ("[]", {}, "not_s3_event"),
        ("{}", {}, "not_s3_event Records"),
        ('{"Records": []}', {}, "not_s3_event Records"),
        ('{"Records": [{}]}', {}, "not_s3_event"),
        ('{"Records": [{"eventName": "ObjectCreated:Put"}]}', {}, "not_s3_event s3"),
        ('{"Event": "s3:Other"}', {}, "not_s3_event Records"),
        (notification("b", "k", event="Brew:Coffee"), {}, "not_s3_event eventName"),
        (notification("b", "k", event="ObjectCreatedX"), {}, "not_s3_event eventName"),
        (notification("", "k"), {}, "not_s3_event bucket"),
        (notification("b", ""), {}, "not_s3_event key"),
        (notification("b", "\0"), {}, "not_s3_event key"),
        ("[" * 300 + "]" * 300, {}, "too_deep"),
        (detail(), {"eventbridge.detail-type": "AWS API Call"}, "not_s3_event detail-type"),
        (detail(key=7), CREATED, "not_s3_event detail"),
        (detail(key=""), CREATED, "not_s3_event detail"),
        (detail(), {}, "not_s3_event Records"),
    ],
)
def test_what_is_no_notification_is_refused(
    body: str, attributes: dict[str, str], fault: str
) -> None:
    with pytest.raises(PermanentFault) as caught:
        read_notification(body, attributes)
    assert str(caught.value) == fault


def test_no_repr_shows_a_key() -> None:
    assert "anna" not in repr(read_notification(notification("b", "anna.json"), {}))

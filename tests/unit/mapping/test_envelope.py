"""Envelopes as AWS documents them, combinations of them, and what `auto` opens.

SNS: developer guide, "Parsing Amazon SNS message formats", HTTP/HTTPS notification JSON format.
EventBridge: user guide, "Event structure reference". S3 pointer: as the extended client libraries
of Java and Python write it.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.mapping.envelope.formats import Pointer
from sqs2pg.mapping.json_slices import parse
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.settings import EnvelopeSettings, load

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CANARY = "canary-4711"

SNS = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
    "Subject": "My First Message",
    "Message": "Hello world!",
    "Timestamp": "2012-05-02T00:54:06.655Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLEw6JRN...",
    "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-f3ec.pem",
    "UnsubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe&x=1",
}
CONFIRMATION = {
    "Type": "SubscriptionConfirmation",
    "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
    "Token": "2336412f37...",
    "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
    "Message": "You have chosen to subscribe to the topic …",
    "SubscribeURL": "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&x=1",
    "Timestamp": "2012-04-26T20:45:04.751Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLEpH+...",
    "SigningCertURL": "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-f3ec.pem",
}
EVENT = """{
  "version": "0",
  "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
  "detail-type": "EC2 Instance State-change Notification",
  "source": "aws.ec2",
  "account": "111122223333",
  "time": "2017-12-22T18:43:48Z",
  "region": "us-west-1",
  "resources": ["arn:aws:ec2:us-west-1:123456789012:instance/i-1234567890abcdef0"],
  "detail": {"instance-id": "i-1234567890abcdef0", "price": 1.10}
}"""
JAVA = [
    "software.amazon.payloadoffloading.PayloadS3Pointer",
    {"s3BucketName": "extended-client-bucket", "s3Key": "cc5b2a2f-7d5a-4a6f-8a8d-b3f4dc1f0d2c"},
]
OLDER = ["com.amazon.sqs.javamessaging.MessageS3Pointer", {"s3BucketName": "b", "s3Key": "k"}]


class Found(NamedTuple):
    """What an envelope holds."""

    documents: list[Any]
    several: bool
    attributes: dict[str, str]


decode = msgspec.json.Decoder(float_hook=Decimal).decode


def message(
    body: Any, attributes: dict[str, str] | None = None, payload: bytes | None = None
) -> Message:
    text = body if isinstance(body, str) else json.dumps(body)
    given = {name: MessageAttribute("String", value) for name, value in (attributes or {}).items()}
    return Message("m", "h", text, SystemAttributes(0), given or None, payload=payload)


def opened(body: Any, *layers: str, records: str = "one", **more: Any) -> Found:
    names = ("decompressed_bytes_max", "s3_buckets")
    settings = {name: more.pop(name) for name in names if name in more}
    chosen = EnvelopeSettings(layers=layers, records=records, **settings)  # type: ignore[arg-type]
    found = Envelope(chosen).open(message(body, **more))
    slices = [parse(text) for text in found.records.texts]
    return Found([decode(one.text) for one in slices], found.records.several, found.attributes)


def refused(body: Any, *layers: str, **more: Any) -> tuple[str, str]:
    with pytest.raises(PermanentFault) as caught:
        opened(body, *layers, **more)
    assert CANARY not in f"{caught.value!r} {vars(caught.value)}"
    return caught.value.code, caught.value.detail


def sns(message: Any, **more: Any) -> dict[str, Any]:
    return {**SNS, "Message": message if isinstance(message, str) else json.dumps(message), **more}


def event(detail: Any) -> dict[str, Any]:
    return {**json.loads(EVENT), "detail": detail}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("layer", ["sns", "auto"])
def test_an_sns_notification(layer: str) -> None:
    inner = {"order": 1}
    attributes = {
        "tenant": {"Type": "String", "Value": "blue"},
        "raw": {"Type": "Binary", "Value": "AAEC"},
    }
    found = opened(sns(inner, MessageAttributes=attributes), layer)
    assert found.documents == [inner]
    assert found.attributes == {
        "sns.MessageId": SNS["MessageId"],
        "sns.TopicArn": SNS["TopicArn"],
        "sns.Timestamp": SNS["Timestamp"],
        "sns.Subject": SNS["Subject"],
        "tenant": "blue",
        "raw": "AAEC",
    }
    assert refused(CONFIRMATION, layer) == ("sns_confirmation", "")
    assert refused({**CONFIRMATION, "Type": "UnsubscribeConfirmation"}, layer)[0] == (
        "sns_confirmation"
    )
    assert refused(SNS, layer) == ("not_json", "")  # "Hello world!"


@pytest.mark.parametrize("layer", ["eventbridge", "auto"])
def test_an_eventbridge_event(layer: str) -> None:
    found = opened(EVENT, layer)
    assert [str(found.documents[0]["price"]), *found.documents[0]] == [
        "1.10",
        "instance-id",
        "price",
    ]
    assert found.attributes["eventbridge.detail-type"] == "EC2 Instance State-change Notification"
    assert found.attributes["eventbridge.time"] == "2017-12-22T18:43:48Z"
    assert found.attributes["eventbridge.source"] == "aws.ec2"


BUCKETS = ("extended-client-bucket", "b")


@pytest.mark.parametrize("layer", ["s3", "auto"])
@pytest.mark.parametrize("body", [JAVA, OLDER], ids=["Java", "older"])
def test_an_s3_pointer(layer: str, body: Any) -> None:
    envelope = Envelope(EnvelopeSettings(layers=(layer,), s3_buckets=BUCKETS))  # type: ignore[arg-type]
    place = body[1]
    assert envelope.pointer(message(body)) == Pointer(place["s3BucketName"], place["s3Key"])
    assert refused(body, layer, s3_buckets=BUCKETS) == ("payload_missing", "")
    found = opened(body, layer, payload=b'{"a": 1}', s3_buckets=BUCKETS)
    assert found.documents == [{"a": 1}]
    assert found.attributes == {"s3.bucket": place["s3BucketName"], "s3.key": place["s3Key"]}
    assert envelope.pointer(message({"a": 1})) is None
    assert opened({"a": 1}, layer).documents == [{"a": 1}]  # small ones come as they are


def test_a_pointer_inside_of_sns_is_found() -> None:
    body = sns(json.dumps(JAVA))
    for layers in (("sns", "s3"), ("auto",)):
        envelope = Envelope(EnvelopeSettings(layers=layers, s3_buckets=BUCKETS))  # type: ignore[arg-type]
        assert envelope.pointer(message(body)) == Pointer(*JAVA[1].values())  # type: ignore[attr-defined]
        found = opened(body, *layers, payload=b'{"a": 1}', s3_buckets=BUCKETS)
        assert found.documents == [{"a": 1}]


@pytest.mark.parametrize(
    ("layers", "buckets", "bucket"),
    [
        *[(layers, BUCKETS, "other") for layers in (("s3",), ("auto",), ("sns", "s3"))],
        *[(("s3",), BUCKETS, name) for name in ("B", "b ", "extended-client-bucket/b")],
        (("auto",), (), "b"),
        # Without a list the layer s3 follows any bucket's name, and nothing else.
        *[(("s3",), (), name) for name in ("arn:aws:s3:::b", "b/c", "b?x", "b" * 256)],
    ],
)
def test_a_pointer_to_another_bucket_is_never_followed(
    layers: Any, buckets: tuple[str, ...], bucket: str
) -> None:
    body: Any = [JAVA[0], {"s3BucketName": bucket, "s3Key": CANARY}]
    body = sns(json.dumps(body)) if layers[0] == "sns" else body
    envelope = Envelope(EnvelopeSettings(layers=layers, s3_buckets=buckets))
    assert envelope.pointer(message(body)) is None
    for payload in (None, b'{"a": 1}'):
        told = refused(body, *layers, s3_buckets=buckets, payload=payload)
        assert told == ("payload_bucket", "")


def test_a_byte_order_mark_changes_nothing() -> None:
    mark = "\ufeff"
    pointed = ("s3",), {"s3_buckets": BUCKETS, "payload": (mark + '{"a": 1}').encode()}
    given: list[tuple[Any, tuple[str, ...], dict[str, Any]]] = [
        ('{"a": 1}', (), {}),
        (json.dumps(sns({"a": 1})), ("sns",), {}),
        (json.dumps(sns({"a": 1})), ("auto",), {}),
        (json.dumps(event({"a": 1})), ("eventbridge",), {}),
        (json.dumps(event({"a": 1})), ("auto",), {}),
        (json.dumps(OLDER), *pointed),
    ]
    for body, layers, more in given:
        assert opened(mark + body, *layers, **more).documents == [{"a": 1}]
    packed = (mark + '{"a": 1}').encode()
    for layers in (("gzip",), ("auto",)):
        assert opened(b64(gzip.compress(packed)), *layers).documents == [{"a": 1}]
    for layers in (("base64",), ("auto",)):
        assert opened(b64(packed), *layers).documents == [{"a": 1}]


SKIPPED = b"\x5f\x2a\x4d\x18\x03\x00\x00\x00xyz"
"""A skippable frame (RFC 8878, section 3.1.2)."""


@pytest.mark.parametrize("layers", [("zstd",), ("auto",)])
def test_skippable_frames_of_zstd_are_skipped(layers: tuple[str, ...]) -> None:
    parts = [zstd.compress(one) for one in (b'{"a": ', b"1}")]
    body = b64(SKIPPED + parts[0] + SKIPPED * 2 + parts[1] + SKIPPED)
    assert opened(body, *layers).documents == [{"a": 1}]


def test_auto_names_the_format_that_nobody_decodes() -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(CANARY))
    for kind, packed in (
        ("bzip2", bz2.compress(b"{}")),
        ("xz", lzma.compress(b"{}")),
        ("zip", b"PK\x03\x04" + bytes(60)),
        ("Avro", b"Obj\x01" + bytes(60)),
        ("tar", gzip.compress(tar.getvalue())),
    ):
        assert refused(b64(packed), "auto") == ("unknown_encoding", kind)


def test_without_a_list_the_layer_s3_follows_any_bucket_and_auto_fetches_nothing() -> None:
    assert EnvelopeSettings(layers=("s3",)).has_pointers
    assert not EnvelopeSettings(layers=("auto",)).has_pointers
    assert EnvelopeSettings(layers=("auto",), s3_buckets=("b",)).has_pointers
    pointer = Envelope(EnvelopeSettings(layers=("s3",))).pointer(message(OLDER))
    assert pointer == Pointer("b", "k")


PACKED = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("name", PACKED)
def test_compressed_bodies(name: str) -> None:
    raw = b'{"a": "' + b"x" * 1000 + b'"}'
    body = b64(PACKED[name](raw))
    expected = [json.loads(raw)]
    for layers in ((name,), ("base64", name), ("auto",)):
        assert opened(body, *layers).documents == expected
    for named in (name, f"{name}, base64", name.upper()):
        for layers in (("content_encoding",), ("auto",)):
            found = opened(body, *layers, attributes={"Content-Encoding": named})
            assert found.documents == expected
    assert opened(raw.decode(), "content_encoding").documents == expected  # none named
    two = b64(PACKED[name](raw[:50]) + PACKED[name](raw[50:]))  # members and frames one by one
    assert opened(two, name).documents == expected


@pytest.mark.parametrize("name", PACKED)
def test_a_bomb_is_stopped_at_its_limit(name: str) -> None:
    bomb = b64(PACKED[name](b"[" + b" " * 5_000_000 + b"]"))
    assert len(bomb) < 100_000
    for layers in ((name,), ("auto",)):
        found = refused(bomb, *layers, decompressed_bytes_max=100_000)
        assert found == ("decompressed_too_large", "")
    nested = b64(PACKED[name](PACKED[name](b" " * 5_000_000)))
    assert refused(nested, "auto", decompressed_bytes_max=100_000)[0] == "decompressed_too_large"


@pytest.mark.parametrize("name", PACKED)
def test_concatenated_members_are_one_body_up_to_a_limit(name: str) -> None:
    pack = PACKED[name]
    many = b64(pack(b"[0") + pack(b",1") * 5000 + pack(b"]") + pack(b""))
    assert opened(many, name).documents == [[0] + [1] * 5000]
    whole = b64(pack(b'{"v": ' + b" " * 40_000) + pack(b'"x"') + pack(b"}"))
    assert opened(whole, name).documents == [{"v": "x"}]
    assert refused(b64(pack(b"") * 10_001), name) == ("decompressed_too_large", "")


@pytest.mark.parametrize("name", PACKED)
def test_damaged_bodies_are_reported(name: str) -> None:
    packed = PACKED[name](b'{"a": 1}' * 100)
    for damaged in (packed[:-5], packed[:10], packed + b"x", b"x" + packed, b"", b"\xff" * 20):
        assert refused(b64(damaged), name)[0] in (f"not_{name}", "not_json")
    assert refused("no base64 at all!", name) == ("not_base64", "")
    assert refused("{}", name)[0] == "not_base64"


def test_base64_of_json() -> None:
    body = b64(b'{"a": 1}')
    for layers in (("base64",), ("auto",)):
        assert opened(body, *layers).documents == [{"a": 1}]
        assert opened(body.rstrip("="), *layers).documents == [{"a": 1}]
    assert refused("{}", "base64") == ("not_base64", "")
    assert refused("YWJj", "auto") == ("not_json", "")  # "abc": no guess


def test_nested_envelopes_are_opened() -> None:
    detail = {"order": 7}
    body = sns(event(detail))
    for layers in (("sns", "eventbridge"), ("auto",)):
        found = opened(body, *layers)
        assert found.documents == [detail]
        assert {"sns.TopicArn", "eventbridge.id"} <= found.attributes.keys()
    packed = sns(b64(gzip.compress(json.dumps(event(detail)).encode())))
    for layers in (("sns", "gzip", "eventbridge"), ("auto",)):
        assert opened(packed, *layers).documents == [detail]
    attribute = {"Content-Encoding": {"Type": "String", "Value": "gzip"}}
    named = sns(b64(gzip.compress(b"{}")), MessageAttributes=attribute)
    for layers in (("sns", "content_encoding"), ("auto",)):
        assert opened(named, *layers).documents == [{}]
    deep: Any = detail
    for _ in range(9):
        deep = sns(deep)
    assert refused(deep, "auto") == ("too_many_layers", "")


def test_auto_opens_nothing_that_may_not_be_an_envelope() -> None:
    for plain in (
        {"Type": "Notification", "Message": "x"},
        {"detail": {"a": 1}, "source": "web"},
        {"s3BucketName": "b", "s3Key": "k"},
        {"Message": json.dumps({"a": 1}), "MessageId": "1"},
        {"a": b64(gzip.compress(b"{}"))},
    ):
        assert opened(plain, "auto").documents == [plain]
    other = ["some.other.Pointer", {"s3BucketName": "b", "s3Key": "k"}]
    assert opened(other, "auto").documents == [other]


def test_auto_refuses_what_is_half_an_envelope() -> None:
    for name in ("Type", "MessageId", "TopicArn", "Message", "Timestamp"):
        lacking = {k: v for k, v in {**SNS, "Message": "{}"}.items() if k != name}
        assert refused(lacking, "auto") == ("ambiguous_envelope", "sns")
    for name in event({}):
        if name != "resources":
            lacking = {k: v for k, v in event({}).items() if k != name}
            assert refused(lacking, "auto") == ("ambiguous_envelope", "eventbridge")
    assert refused({**SNS, "Message": "{}", CANARY: 1}, "auto") == ("ambiguous_envelope", "sns")
    assert refused({**event({}), CANARY: 1}, "auto") == ("ambiguous_envelope", "eventbridge")


def test_a_declared_layer_that_is_missing_is_a_fault() -> None:
    assert refused({"a": 1}, "sns") == ("not_sns", "")
    assert refused(sns(5, Message=5), "sns") == ("not_sns", "")
    assert refused({"a": 1}, "eventbridge") == ("not_eventbridge", "")
    assert refused("{}", "content_encoding", attributes={"Content-Encoding": "br"}) == (
        "unknown_encoding",
        "",
    )


LINES = '{"a": 1}\n\n{"a": "\u2028"}\r\n'


def test_lines_and_arrays_are_several_records() -> None:
    lines = opened(LINES, records="lines")
    assert (lines.documents, lines.several) == ([{"a": 1}, {"a": "\u2028"}], True)
    array = opened([{"a": 1}, {"a": 2}], records="array")
    assert (array.documents, array.several) == ([{"a": 1}, {"a": 2}], True)
    assert refused({"a": 1}, records="array") == ("not_an_array", "")
    assert opened([], records="array").documents == []


def test_records_are_found_where_there_is_no_doubt() -> None:
    assert opened(LINES, records="auto").documents == [{"a": 1}, {"a": "\u2028"}]
    assert opened([{"a": 1}], records="auto").documents == [{"a": 1}]
    assert opened('{\n"a":\n1}', records="auto").documents == [{"a": 1}]
    for bad in ("not json", "not json" * 10_000, "not json\n", "not\u2028json"):
        assert refused(bad, records="auto") == ("not_json", ""), "one document, not one line"
    packed = b64(gzip.compress(LINES.encode()))
    assert len(opened(packed, "auto", records="auto").documents) == 2


@pytest.mark.parametrize("records", ["array", "lines"])
def test_too_many_records(records: str) -> None:
    body = f"[{'1,' * 100_000}1]" if records == "array" else "1\n" * 100_001
    assert refused(body, records=records) == ("too_many_records", "")


def test_settings_that_leave_a_doubt_are_refused() -> None:
    for tree, code in (
        ({"envelope": {"layers": ["auto", "sns"]}}, "settings"),
        (
            {
                "envelope": {"layers": "auto"},
                "field": [{"source": "detail.user", "column": "u"}],
            },
            "ambiguous_envelope",
        ),
    ):
        with pytest.raises(SettingsError) as caught:
            load(environ={}, overrides=tree, discover=False)  # type: ignore[arg-type]
        assert caught.value.code == code
        assert caught.value.hint


def test_attributes_are_only_asked_for_where_they_are_needed() -> None:
    def asked(**envelope: Any) -> tuple[str, ...]:
        tree = {
            "envelope": envelope,
            "field": [{"column": "t", "default": "attribute:sns.TopicArn"}],
        }
        return load(environ={}, overrides=tree, discover=False).message_attributes

    sizes = ("ExtendedPayloadSize", "SQSLargePayloadSize")
    assert asked() == asked(layers=["sns", "gzip"]) == ()
    assert asked(layers=["s3"]) == sizes
    assert asked(layers=["content_encoding"]) == ("Content-Encoding",)
    assert asked(layers=["auto"]) == ("Content-Encoding",)
    assert asked(layers=["auto"], s3_buckets=["b"]) == (*sizes, "Content-Encoding")

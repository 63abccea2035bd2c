"""Signatures against AWS's published examples and, for any request, against botocore."""

from __future__ import annotations

import calendar
import datetime
import re
from unittest import mock

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.keys.hmac_state import KeyedHash
from sqs2pg.sqs.signer import (
    AwsKeys,
    RepeatedRequest,
    RequestTemplate,
    Signer,
    derive_signing_key,
)

EXAMPLE = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
EXAMPLE_EPOCH = calendar.timegm((2015, 8, 30, 12, 36, 0))


def signature_in(request: bytes) -> str:
    found = re.search(rb"authorization: (.*)\r\n", request)
    assert found
    return found[1].decode()


def example(method: str, signed: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> str:
    signer = Signer(EXAMPLE, region="us-east-1", host="example.amazonaws.com", service="service")
    return signature_in(
        RequestTemplate(signer, method=method, signed=signed).sign(body, EXAMPLE_EPOCH)
    )


SCOPE = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"


@pytest.mark.parametrize(
    ("method", "signed", "body", "names", "signature"),
    [
        # aws-sig-v4-test-suite: get-vanilla, post-vanilla, post-header-key-sort,
        # post-x-www-form-urlencoded, post-header-value-case
        (
            "GET",
            (),
            b"",
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "POST",
            (),
            b"",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "POST",
            (("My-Header1", "value1"),),
            b"",
            "host;my-header1;x-amz-date",
            "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        ),
        (
            "POST",
            (("Content-Type", "application/x-www-form-urlencoded"),),
            b"Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
        (
            "POST",
            (("My-Header1", "VALUE1"),),
            b"",
            "host;my-header1;x-amz-date",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
    ],
)
def test_signatures_equal_the_published_vectors(
    method: str, signed: tuple[tuple[str, str], ...], body: bytes, names: str, signature: str
) -> None:
    assert example(method, signed, body) == (
        f"AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders={names}, Signature={signature}"
    )


def test_published_signing_key() -> None:
    # "Create a signed AWS API request" in the IAM User Guide, and the string to sign before it.
    key = derive_signing_key(EXAMPLE.secret_key, "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    string_to_sign = (
        b"AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n"
        b"f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
    )
    assert KeyedHash(key).hexdigest(string_to_sign) == (
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


header_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
keys = st.builds(
    AwsKeys,
    access_key=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=16, max_size=32),
    secret_key=header_text,
    token=st.none() | header_text,
)


@settings(deadline=None)  # the machine may be busy
@given(
    keys=keys,
    region=st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"]),
    host=st.sampled_from(["sqs.us-east-1.amazonaws.com", "127.0.0.1:4566", "[::1]:9324"]),
    target=st.sampled_from(["ReceiveMessage", "DeleteMessageBatch"]),
    path=st.sampled_from(["/", "/a/b-c_d.e~f", "/queue/"]),
    body=st.binary(min_size=1),
    epoch_s=st.integers(0, 2**32),
)
def test_a_signature_equals_botocore_s(
    keys: AwsKeys, region: str, host: str, target: str, path: str, body: bytes, epoch_s: int
) -> None:
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AmazonSQS.{target}",
    }
    theirs = AWSRequest("POST", f"http://{host}{path}", headers=dict(headers), data=body)
    now = datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        credentials = Credentials(keys.access_key, keys.secret_key, keys.token)
        botocore.auth.SigV4Auth(credentials, "sqs", region).add_auth(theirs)
    template = RequestTemplate(
        Signer(keys, region=region, host=host), path=path, signed=tuple(headers.items())
    )
    ours = template.sign(body, epoch_s + 0.5)
    assert signature_in(ours) == theirs.headers["Authorization"]
    head, _, sent = ours.partition(b"\r\n\r\n")
    assert sent == body
    assert f"x-amz-date: {theirs.headers['X-Amz-Date']}".encode() in head
    if keys.token:
        assert f"x-amz-security-token: {keys.token}".encode() in head


def test_request_on_the_wire() -> None:
    signer = Signer(AwsKeys("AK", "sk", "tok"), region="us-east-1", host="sqs.example")
    template = RequestTemplate(
        signer,
        target="http://sqs.example/",
        signed=(("Content-Type", "a/b"),),
        unsigned=(("user-agent", "us"),),
    )
    head, _, body = template.sign(b"body", 0).partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    assert line == "POST http://sqs.example/ HTTP/1.1"
    assert body == b"body"
    names = [field.split(":")[0] for field in fields]
    assert sorted(names) == [
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-amz-date",
        "x-amz-security-token",
    ]
    assert "content-length: 4" in fields
    assert "x-amz-date: 19700101T000000Z" in fields


def test_the_signing_key_changes_at_midnight_utc() -> None:
    midnight = calendar.timegm((2026, 3, 1, 0, 0, 0))
    signer = Signer(EXAMPLE, region="us-east-1", host="h")
    template = RequestTemplate(signer)
    before, after, back = (
        signature_in(template.sign(b"", epoch_s))
        for epoch_s in (midnight - 1, midnight, midnight - 1)
    )
    assert "/20260228/" in before
    assert "/20260301/" in after
    assert before == back


def test_the_requests_of_one_second_are_signed_each_on_its_own() -> None:
    def template() -> RequestTemplate:
        return RequestTemplate(Signer(EXAMPLE, region="us-east-1", host="h"))

    one = template()
    for epoch_s in (EXAMPLE_EPOCH, EXAMPLE_EPOCH + 0.9, EXAMPLE_EPOCH + 1, EXAMPLE_EPOCH):
        for body in (b"first", b"", b"second" * 900, b"first"):
            assert one.sign(body, epoch_s) == template().sign(body, epoch_s)


def test_repeated_request_is_signed_once_a_second() -> None:
    template = RequestTemplate(Signer(EXAMPLE, region="us-east-1", host="h"))
    repeated = RepeatedRequest(template, b"poll")
    first = repeated.sign(1_000_000.0)
    assert repeated.sign(1_000_000.9) is first
    second = repeated.sign(1_000_001.0)
    assert second == template.sign(b"poll", 1_000_001)
    assert second != first


def test_keys_are_not_shown() -> None:
    assert repr(AwsKeys("AKIDSECRET", "hush", "hush-token")) == "AwsKeys(…)"
    assert list(AwsKeys("AKIDSECRET", "hush").__rich_repr__()) == ["…"]

"""Error answers become faults of our tree, with names and numbers only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.errors import FatalFault, Stage, TransientFault
from sqs2pg.sqs.connection import Reply
from sqs2pg.sqs.errors import plain_name, read_code, read_date, read_fault

SECRET = "424cdd21-secret"


def reply(name: str = "", status: int = 400, headers: str = "x-amzn-RequestId: r-1\r\n") -> Reply:
    body = f'{{"__type":"{name}","message":"{SECRET}"}}' if name else SECRET
    return Reply(status, f"HTTP/1.1 {status} X\r\n{headers}\r\n".encode(), body.encode())


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("com.amazonaws.sqs#RequestThrottled", 400, "aws_throttled"),
        ("ThrottlingException", 400, "aws_throttled"),
        ("com.amazonaws.sqs#KmsThrottled", 400, "aws_throttled"),
        ("com.amazonaws.sqs#OverLimit", 403, "aws_over_limit"),
        ("com.amazon.coral.service#ExpiredTokenException", 403, "aws_expired_credentials"),
        ("RequestTimeTooSkewed", 403, "aws_clock_skew"),
        ("RequestTimeout", 408, "aws_timeout"),
        ("InternalFailure", 500, "aws_5xx"),
        ("com.amazonaws.sqs#ServiceUnavailable", 503, "aws_5xx"),
        ("", 502, "aws_5xx"),
        ("", 429, "aws_throttled"),
        ("", 509, "aws_throttled"),
    ],
)
def test_passing_errors_are_transient(name: str, status: int, code: str) -> None:
    fault = read_fault(reply(name, status), "DeleteMessageBatch", Stage.ACKNOWLEDGE)
    assert isinstance(fault, TransientFault)
    assert (fault.code, fault.stage) == (code, Stage.ACKNOWLEDGE)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("com.amazonaws.sqs#QueueDoesNotExist", "aws_queue_missing"),
        ("AWS.SimpleQueueService.NonExistentQueue", "aws_queue_missing"),
        ("com.amazon.coral.service#AccessDeniedException", "aws_access_denied"),
        ("AccessDenied", "aws_access_denied"),
        ("com.amazon.coral.service#InvalidSignatureException", "aws_bad_credentials"),
        ("InvalidClientTokenId", "aws_bad_credentials"),
        ("com.amazon.coral.service#UnrecognizedClientException", "aws_bad_credentials"),
        ("com.amazonaws.sqs#KmsAccessDenied", "aws_kms_refused"),
        ("com.amazonaws.sqs#BatchRequestTooLong", "aws_request_refused"),
        ("SomethingNew", "aws_request_refused"),
        ("", "aws_request_refused"),
    ],
)
def test_errors_of_configuration_are_fatal(name: str, code: str) -> None:
    fault = read_fault(reply(name), "ReceiveMessage", Stage.RECEIVE)
    assert isinstance(fault, FatalFault)
    assert fault.code == code
    assert fault.hint


def test_a_fault_names_the_call_and_the_error_but_quotes_no_text() -> None:
    fault = read_fault(
        reply("com.amazonaws.sqs#QueueDoesNotExist"), "ReceiveMessage", Stage.RECEIVE
    )
    assert fault.what == ("ReceiveMessage: SQS answered QueueDoesNotExist (HTTP 400, request r-1)")
    assert SECRET not in f"{fault} {fault.hint}"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reply("com.amazonaws.sqs#OverLimit"), "OverLimit"),
        (reply("OverLimit:http://internal/coral/"), "OverLimit"),
        (reply("", headers="X-Amzn-ErrorType: Throttling:http://x\r\n"), "Throttling"),
        (
            reply("", headers="x-amzn-query-error: AWS.SimpleQueueService.X;Sender\r\n"),
            "AWS.SimpleQueueService.X",
        ),
        (reply(""), "Unknown"),
        (reply("has spaces in it"), "Unknown"),
        (reply("a" * 101), "Unknown"),
        (Reply(400, b"", b'{"__type":5}'), "Unknown"),
        (Reply(400, b"", b"\xff\xfe"), "Unknown"),
        (Reply(400, b"", b""), "Unknown"),
    ],
)
def test_the_code_is_read_from_the_answer(answer: Reply, code: str) -> None:
    assert read_code(answer) == code


@given(st.binary(), st.binary(), st.integers(100, 599))
def test_any_answer_gives_a_fault_in_printable_ascii(head: bytes, body: bytes, status: int) -> None:
    fault = read_fault(Reply(status, head, body), "ReceiveMessage", Stage.RECEIVE)
    assert fault.what.isascii()
    assert fault.what.isprintable()


@given(st.text())
def test_an_error_name_is_ascii_without_punctuation(text: str) -> None:
    name = plain_name(text)
    assert name in (text, "Unknown")
    assert name.isascii()
    assert not set(name) & set(" '\"{}<>\r\n")


@pytest.mark.parametrize(
    ("value", "epoch_s"),
    [
        ("Sun, 30 Aug 2015 12:36:00 GMT", 1_440_938_160.0),
        ("yesterday", None),
        ("", None),
        ("Sun, 99 Aug 2015 12:36:00 GMT", None),
    ],
)
def test_the_date_of_an_answer_is_read(value: str, epoch_s: float | None) -> None:
    assert read_date(reply("x", headers=f"Date: {value}\r\n")) == epoch_s


@pytest.mark.parametrize(
    ("request_body", "named"),
    [
        (b'{"QueueName":"login-queue"}', "ReceiveMessage of queue login-queue at h: SQS"),
        (b'{"QueueUrl":"https://h/1/q.fifo","X":1}', "ReceiveMessage of queue q.fifo at h: SQS"),
        (b'{"QueueUrl":"https://h/1/q e"}', "ReceiveMessage at h: SQS"),
        (b"no JSON", "ReceiveMessage at h: SQS"),
        (b"", "ReceiveMessage at h: SQS"),
    ],
)
def test_a_fault_names_queue_and_host(request_body: bytes, named: str) -> None:
    fault = read_fault(reply("X"), "ReceiveMessage", Stage.RECEIVE, request_body, "h")
    assert fault.what.startswith(named)

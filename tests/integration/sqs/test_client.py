"""The client against a scripted server: retries, corrections, cancellation, misbehaviour."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest
import trustme
from structlog.testing import capture_logs

from sqs2pg.errors import FatalFault, SettingsError, Stage, TransientFault
from sqs2pg.sqs.client import SKEW_S_MIN, SqsClient
from sqs2pg.sqs.connection import HttpConnection
from sqs2pg.sqs.credentials import CredentialKeeper, Provided
from sqs2pg.sqs.endpoint import Endpoint, Proxy
from sqs2pg.sqs.environment import AwsEnvironment
from sqs2pg.sqs.signer import AwsKeys
from sqs2pg.sqs.wire import EntryFailure, OutgoingMessage

from .loopback import Listen, answer, read_request
from .scripted import CLOSE, MESSAGE, SECRET, SILENCE, URL, Bench, Queue, error, ok


async def test_receive_sends_its_options_and_reads_the_message(bench: Bench) -> None:
    client = bench.client(ok(Messages=[MESSAGE]))
    [message] = await client.receive(
        URL, max_messages=7, wait_s=3, visibility_timeout_s=60, message_attributes=["All"]
    )
    assert (message.message_id, message.receipt_handle, message.body) == ("m-1", "h-1", "hello")
    assert msgspec.structs.astuple(message.attributes)[:5] == (
        1795384388351,
        2,
        "007",
        "18849496460467696128999",
        "Root=1",
    )
    assert message.message_attributes is not None
    assert message.message_attributes["kind"].string_value == "login"
    line, headers, body = bench.queue.requests[0]
    assert line == "POST / HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{bench.port}"
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["x-amz-target"] == "AmazonSQS.ReceiveMessage"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AK/")
    assert body == {
        "QueueUrl": URL,
        "MaxNumberOfMessages": 7,
        "WaitTimeSeconds": 3,
        "VisibilityTimeout": 60,
        "MessageAttributeNames": ["All"],
        "MessageSystemAttributeNames": [
            "SentTimestamp",
            "ApproximateReceiveCount",
            "MessageGroupId",
            "SequenceNumber",
            "AWSTraceHeader",
        ],
    }


@pytest.mark.parametrize("body", [b"{}", b'{"Messages":[]}', b'{"Messages":null}'])
async def test_an_empty_answer_is_no_message(bench: Bench, body: bytes) -> None:
    assert await bench.client(answer(body)).receive(URL) == []


@pytest.mark.parametrize(("max_messages", "wait_s"), [(0, 0), (11, 0), (1, -1), (1, 21)])
async def test_receive_refuses_options_out_of_range(
    bench: Bench, max_messages: int, wait_s: int
) -> None:
    client = bench.client(ok())
    with pytest.raises(ValueError, match="max_messages"):
        await client.receive(URL, max_messages=max_messages, wait_s=wait_s)
    assert bench.queue.requests == []


async def test_signed_polls_are_remembered_up_to_a_bound(bench: Bench) -> None:
    client = bench.client(ok())
    for timeout_s in range(200):
        await client.receive(URL, visibility_timeout_s=timeout_s)
    asked = [body["VisibilityTimeout"] for _, _, body in bench.queue.requests]
    assert asked == list(range(200))
    # Memory that is not freed has no outward sign short of millions of polls.
    assert len(client._poll_bodies) <= 64  # noqa: SLF001  see above
    assert len(client._requests.polls) <= 64  # noqa: SLF001  see above


@pytest.mark.parametrize("handles", [[], ["h"] * 11])
async def test_calls_refuse_a_batch_of_none_or_more_than_ten(
    bench: Bench, handles: list[str]
) -> None:
    client = bench.client(ok())
    for call in (
        client.delete(URL, handles),
        client.change_visibility(URL, handles, 1),
        client.send(URL, handles),
    ):
        with pytest.raises(ValueError, match="1 to 10"):
            await call


async def test_delete_says_which_failed(bench: Bench) -> None:
    client = bench.client(
        ok(
            Successful=[{"Id": "3"}, {"Id": "0"}],
            Failed=[{"Id": "1", "Code": "ReceiptHandleIsInvalid", "SenderFault": True,
                     "Message": SECRET}],
        )
    )  # fmt: skip
    handles = ["plain", 'quo"te\\', "\u2028\x00é", "d"]
    assert await client.delete(URL, handles) == [
        EntryFailure(1, "ReceiptHandleIsInvalid", True),
        EntryFailure(2, "Unanswered", False),
    ]
    entries = bench.queue.requests[0][2]["Entries"]
    assert entries == [{"Id": str(i), "ReceiptHandle": h} for i, h in enumerate(handles)]


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"Successful":[],"Failed":[]}', b'{"Successful":[{"Id":"7"}]}',
     b'{"Successful":[{"Id":"0"},{"Id":"0"}]}'],
)  # fmt: skip
async def test_an_entry_that_the_answer_leaves_out_has_failed(bench: Bench, body: bytes) -> None:
    failures = await bench.client(answer(body)).delete(URL, ["a", "b"])
    assert EntryFailure(1, "Unanswered", False) in failures


async def test_change_visibility_sends_its_entries_and_returns_the_failures(bench: Bench) -> None:
    client = bench.client(ok(Successful=[{"Id": "0"}], Failed=[{"Id": "1", "Code": "bad code!"}]))
    assert await client.change_visibility(URL, ["a", "b"], 30) == [
        EntryFailure(1, "Unknown", False)
    ]
    entries = bench.queue.requests[0][2]["Entries"]
    assert [entry["VisibilityTimeout"] for entry in entries] == [30, 30]


async def test_send_returns_ids_and_failures_by_entry(bench: Bench) -> None:
    sent = ok(
        Successful=[{"Id": "1", "MessageId": "m-b", "MD5OfMessageBody": "x"}],
        Failed=[{"Id": "0", "Code": "InvalidMessageContents", "SenderFault": True}],
    )
    client = bench.client(sent)
    full = OutgoingMessage(
        "b", group_id="g", deduplication_id="d", delay_s=5, attributes={"k": "v"}
    )
    result = await client.send_for_ids(URL, ["a", full])
    assert result.message_ids == [None, "m-b"]
    assert result.failures == [EntryFailure(0, "InvalidMessageContents", True)]
    assert await client.send(URL, ["a", full]) == result.failures
    assert bench.queue.requests[0][2]["Entries"] == [
        {"Id": "0", "MessageBody": "a"},
        {
            "Id": "1",
            "MessageBody": "b",
            "MessageGroupId": "g",
            "MessageDeduplicationId": "d",
            "DelaySeconds": 5,
            "MessageAttributes": {"k": {"DataType": "String", "StringValue": "v"}},
        },
    ]
    assert repr(full) == "OutgoingMessage(…)"


async def test_send_refuses_more_than_a_mebibyte(bench: Bench) -> None:
    client = bench.client(ok(Successful=[{"Id": "0", "MessageId": "m"}, {"Id": "1"}]))
    half = "é" * 262_144
    assert await client.send(URL, [half, half]) == []
    with pytest.raises(ValueError, match="1,048,576"):
        await client.send(URL, [half, half + "x"])
    with pytest.raises(ValueError, match="1,048,576"):
        await client.send(URL, [OutgoingMessage(half * 2, attributes={"k": "v"})])


async def test_only_a_name_or_an_arn_is_looked_up(bench: Bench) -> None:
    client = bench.client(ok(QueueUrl=URL))
    assert await client.queue_url("q") == URL
    assert await client.queue_url("arn:aws:sqs:us-east-1:123456789012:q") == URL
    assert await client.queue_url("https://sqs.us-east-1.amazonaws.com/1/q") == (
        "https://sqs.us-east-1.amazonaws.com/1/q"
    )
    assert [body for _, _, body in bench.queue.requests] == [
        {"QueueName": "q"},
        {"QueueName": "q", "QueueOwnerAWSAccountId": "123456789012"},
    ]
    for other in ("arn:aws:sqs:eu-west-1:1:q", "https://sqs.eu-west-1.amazonaws.com/1/q"):
        with pytest.raises(SettingsError):
            await client.queue_url(other)


async def test_create_and_describe(bench: Bench) -> None:
    client = bench.client(ok(QueueUrl=URL), ok(Attributes={"A": "1"}), ok())
    assert await client.create_queue("q", {"VisibilityTimeout": "5"}) == URL
    assert await client.attributes(URL) == {"A": "1"}
    assert await client.attributes(URL, ["B"]) == {}
    assert [body for _, _, body in bench.queue.requests] == [
        {"QueueName": "q", "Attributes": {"VisibilityTimeout": "5"}},
        {"QueueUrl": URL, "AttributeNames": ["All"]},
        {"QueueUrl": URL, "AttributeNames": ["B"]},
    ]


async def test_throttling_and_server_errors_are_retried(bench: Bench) -> None:
    client = bench.client(
        error("RequestThrottled"), error("InternalError", 500), ok(Messages=[MESSAGE])
    )
    assert len(await client.receive(URL)) == 1
    assert len(bench.queue.requests) == 3
    assert bench.queue.connections == 1


@pytest.mark.parametrize(
    ("name", "status", "code", "requests"),
    [
        ("RequestThrottled", 400, "aws_throttled", 3),
        ("ServiceUnavailable", 503, "aws_5xx", 3),
        ("OverLimit", 403, "aws_over_limit", 1),
        ("QueueDoesNotExist", 400, "aws_queue_missing", 1),
        ("AccessDeniedException", 400, "aws_access_denied", 1),
    ],
)
async def test_an_error_that_is_not_retried_or_lasts_is_raised(
    bench: Bench, name: str, status: int, code: str, requests: int
) -> None:
    client = bench.client(error(name, status))
    with pytest.raises((TransientFault, FatalFault)) as caught:
        await client.delete(URL, ["h"])
    assert caught.value.code == code
    assert getattr(caught.value, "stage", Stage.ACKNOWLEDGE) is Stage.ACKNOWLEDGE
    assert name in caught.value.what
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert len(bench.queue.requests) == requests


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"Messages":5}', b'{"Messages":[{}]}', b"\xff"])
async def test_an_answer_that_is_not_the_protocol(bench: Bench, body: bytes) -> None:
    client = bench.client(answer(body))
    with pytest.raises(TransientFault) as caught:
        await client.receive(URL)
    assert (caught.value.code, caught.value.stage) == ("aws_garbled_reply", Stage.RECEIVE)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"Failed":[{}]}', b'{"Failed":"x"}', b"\xff"])
async def test_a_batch_answer_that_is_not_the_protocol(bench: Bench, body: bytes) -> None:
    client = bench.client(answer(body))
    with pytest.raises(TransientFault) as caught:
        await client.delete(URL, ["h"])
    assert (caught.value.code, caught.value.stage) == ("aws_garbled_reply", Stage.ACKNOWLEDGE)


async def test_a_stale_connection_costs_no_attempt(bench: Bench) -> None:
    client = bench.client(ok(), CLOSE, ok(), attempts_max=1)
    await client.receive(URL)
    await client.receive(URL)
    assert bench.queue.connections == 2
    assert len(bench.queue.requests) == 3


async def test_a_new_connection_that_closes_costs_one(bench: Bench) -> None:
    client = bench.client(CLOSE, attempts_max=1)
    with pytest.raises(TransientFault) as caught:
        await client.receive(URL)
    assert (caught.value.code, caught.value.stage) == ("aws_connection", Stage.RECEIVE)
    assert bench.queue.connections == 1


async def test_half_an_answer_is_tried_again(bench: Bench) -> None:
    half = ok(Messages=[MESSAGE])[:-5]
    client = bench.client(half + b"", ok(Messages=[MESSAGE]), silence_s=0.01, sweep_s=0.001)
    assert len(await client.receive(URL, wait_s=0)) == 1
    assert bench.queue.connections == 2


async def test_silence_is_a_timeout(bench: Bench) -> None:
    client = bench.client(SILENCE, attempts_max=1, silence_s=0.01, sweep_s=0.001)
    with pytest.raises(TransientFault) as caught:
        await client.delete(URL, ["h"])
    assert (caught.value.code, caught.value.stage) == ("aws_timeout", Stage.ACKNOWLEDGE)


async def test_a_long_poll_is_waited_for(bench: Bench) -> None:
    client = bench.client(SILENCE)
    time_s = asyncio.get_running_loop().time
    began = time_s()
    task = asyncio.create_task(client.receive(URL, wait_s=20))
    await bench.queue.asked.wait()
    [connection] = client.polls.connections
    assert began + 30 <= connection.deadline <= time_s() + 30
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_send_whose_fate_is_unknown_is_raised_and_not_repeated(bench: Bench) -> None:
    for said in (CLOSE, error("InternalError", 500)):
        bench.queue.requests.clear()
        client = bench.client(said, ok(Successful=[{"Id": "0", "MessageId": "m"}]))
        with pytest.raises(TransientFault):
            await client.send(URL, ["a"])
        assert len(bench.queue.requests) == 1


async def test_a_send_on_a_stale_connection_is_not_repeated(bench: Bench) -> None:
    done = ok(Successful=[{"Id": "0", "MessageId": "m"}])
    client = bench.client(done, CLOSE, done)
    assert await client.send(URL, ["a"]) == []
    with pytest.raises(TransientFault) as caught:
        await client.send(URL, ["b"])
    assert caught.value.code == "aws_connection"
    assert len(bench.queue.requests) == 2


async def test_a_send_is_repeated_where_that_is_safe(bench: Bench) -> None:
    done = ok(Successful=[{"Id": "0", "MessageId": "m"}])
    throttled = bench.client(error("RequestThrottled"), done)
    assert await throttled.send(URL, ["a"]) == []
    deduplicated = bench.client(CLOSE, done)
    once = OutgoingMessage("a", group_id="g", deduplication_id="d")
    assert await deduplicated.send(URL, [once]) == []


async def test_a_send_takes_no_connection_that_waited(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = bench.client(ok(Successful=[{"Id": "0", "MessageId": "m"}]))
    await client.send(URL, ["a"])
    await client.send(URL, ["a"])
    assert bench.queue.connections == 1
    monkeypatch.setattr(HttpConnection, "idle_for", lambda _: 3.0)
    await client.send(URL, ["a"])
    assert bench.queue.connections == 2
    await client.delete(URL, ["h"])
    assert bench.queue.connections == 2


async def test_cancelling_a_receive_never_gives_its_answer_to_the_next(
    bench: Bench, listen: Listen
) -> None:
    """Each answer names its request; that of a cancelled request must not turn up later."""
    release, asked = asyncio.Event(), asyncio.Event()

    async def numbered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, _, body = await read_request(reader)
            number = json.loads(body)["VisibilityTimeout"]
            if number % 2:
                asked.set()
                await release.wait()
            writer.write(ok(Messages=[MESSAGE | {"MessageId": str(number)}]))

    bench.port = await listen(numbered)
    client = bench.client()
    try:
        for number in range(0, 40, 2):
            odd = asyncio.create_task(client.receive(URL, visibility_timeout_s=number + 1))
            await asked.wait()
            asked.clear()
            odd.cancel()
            if number % 4:
                release.set()  # let the lost answer go out while the next one is asked for
            [message] = await client.receive(URL, visibility_timeout_s=number)
            assert message.message_id == str(number)
            release.clear()
            with pytest.raises(asyncio.CancelledError):
                await odd
    finally:
        release.set()
        await client.close()


async def test_long_polls_leave_room_for_deletes(bench: Bench) -> None:
    client = bench.client(SILENCE, SILENCE, ok(Successful=[{"Id": "0"}]), max_connections=2)
    polls = [asyncio.create_task(client.receive(URL)) for _ in range(4)]
    while len(bench.queue.requests) < 2:
        bench.queue.asked.clear()
        await bench.queue.asked.wait()
    assert await client.delete(URL, ["h"]) == []
    await client.close()
    for poll in polls:
        with pytest.raises(TransientFault):
            await poll


async def test_close_ends_retries(bench: Bench) -> None:
    client = bench.client(SILENCE, attempts_max=100, draw=lambda: 1.0)
    task = asyncio.create_task(client.receive(URL))
    await bench.queue.asked.wait()
    await client.close()
    await client.close()
    with pytest.raises(TransientFault) as caught:
        await asyncio.wait_for(task, 10)  # not after an hour of retries
    assert caught.value.code == "aws_connection"
    assert len(bench.queue.requests) == 1
    with pytest.raises(TransientFault):
        await client.delete(URL, ["h"])


@pytest.mark.parametrize("name", ["RequestTimeTooSkewed", "InvalidSignatureException"])
async def test_a_wrong_clock_is_corrected_once(bench: Bench, name: str) -> None:
    ahead = time.time() + 3600
    refused = error(name, 403, Date=formatdate(ahead, usegmt=True))
    client = bench.client(refused, ok(), attempts_max=1)
    await client.receive(URL)
    await client.delete(URL, ["h"])
    dates = [headers["x-amz-date"] for _, headers, _ in bench.queue.requests]
    expected = time.strftime("%Y%m%dT%H%M", time.gmtime(ahead))
    late = time.strftime("%Y%m%dT%H%M", time.gmtime(ahead + 60))
    assert not dates[0].startswith((expected, late))
    assert all(date.startswith((expected, late)) for date in dates[1:])
    assert len(dates) == 3


async def test_a_clock_that_is_near_enough_is_left_alone(bench: Bench) -> None:
    server_s = time.time() + SKEW_S_MIN - 5
    refused = error("InvalidSignatureException", 403, Date=formatdate(server_s, usegmt=True))
    client = bench.client(refused, ok())
    with pytest.raises(FatalFault) as caught:
        await client.receive(URL)
    assert caught.value.code == "aws_bad_credentials"
    assert len(bench.queue.requests) == 1
    began_s = time.time()
    await client.receive(URL)
    date = bench.queue.requests[-1][1]["x-amz-date"]
    signed = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert int(began_s) <= signed.timestamp() <= time.time()


async def test_a_clock_refused_twice_is_a_fault(bench: Bench) -> None:
    refused = error("RequestTimeTooSkewed", 403, Date=formatdate(time.time() + 3600, usegmt=True))
    client = bench.client(refused)
    with pytest.raises(TransientFault) as caught:
        await client.receive(URL)
    assert caught.value.code == "aws_clock_skew"
    assert len(bench.queue.requests) == 2


async def test_a_clock_that_jumps_is_followed_once(bench: Bench) -> None:
    dates = [formatdate(time.time() + hours * 3600, usegmt=True) for hours in (1, 2, 3)]
    client = bench.client(*(error("RequestTimeTooSkewed", 403, Date=date) for date in dates))
    with pytest.raises(TransientFault) as caught:
        await client.receive(URL)
    assert caught.value.code == "aws_clock_skew"
    assert len(bench.queue.requests) == 2


async def test_expired_keys_are_replaced(bench: Bench) -> None:
    client = bench.client(
        error("ExpiredTokenException", 403),
        ok(),
        resolve=lambda: (AwsKeys("NEW", "s", "tok"), None),
    )
    await client.receive(URL)
    first, second = (headers for _, headers, _ in bench.queue.requests)
    assert "Credential=AK/" in first["authorization"]
    assert "Credential=NEW/" in second["authorization"]
    assert second["x-amz-security-token"] == "tok"


async def test_expired_keys_that_cannot_be_replaced_are_a_transient_fault(bench: Bench) -> None:
    client = bench.client(error("ExpiredTokenException", 403))
    with pytest.raises(TransientFault) as caught:
        await client.delete(URL, ["h"])
    assert caught.value.code == "aws_expired_credentials"
    assert caught.value.stage is Stage.ACKNOWLEDGE
    assert len(bench.queue.requests) == 1


async def test_keys_are_renewed_on_the_way(bench: Bench) -> None:
    provided: list[Provided] = [
        (AwsKeys("OLD", "s"), time.time() + 30),
        (AwsKeys("NEW", "s"), time.time() + 7200),
    ]
    client = bench.client(ok(), provide=lambda: provided.pop(0))
    expiry = provided[0][1]
    await client.receive(URL)
    assert "Credential=NEW/" in bench.queue.requests[0][1]["authorization"]
    assert client.credential_expiry() == expiry
    await client.receive(URL)
    assert provided == []


async def test_keys_that_expire_unrenewed(bench: Bench) -> None:
    def provide() -> Provided:
        if bench.clients:
            raise SettingsError("gone")
        return AwsKeys("OLD", "s"), time.time() - 1

    client = bench.client(ok(), provide=provide)
    with capture_logs(), pytest.raises(TransientFault) as caught:
        await client.delete(URL, ["h"])
    assert caught.value.code == "aws_expired_credentials"
    assert caught.value.stage is Stage.ACKNOWLEDGE
    assert bench.queue.requests == []


async def test_a_refused_connection_is_a_transient_fault(bench: Bench, listen: Listen) -> None:
    server = await asyncio.start_server(bench.queue, "127.0.0.1", 0)
    bench.port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(TransientFault) as caught:
        await bench.client().send(URL, ["a"])
    assert caught.value.code == "aws_unreachable"


async def test_tls(listen: Listen, tmp_path: Path) -> None:
    import ssl

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    bundle = tmp_path / "roots.pem"
    authority.cert_pem.write_to_path(bundle)
    queue = Queue()
    queue.script = [ok(Messages=[MESSAGE] * 10)]
    port = await listen(queue, tls=context)
    environment = AwsEnvironment(
        region="us-east-1",
        endpoint=Endpoint("https", "localhost", port),
        credentials=CredentialKeeper(lambda: (AwsKeys("AK", "sk"), None)),
        ca_bundle=str(bundle),
    )
    async with SqsClient(environment) as client:
        for _ in range(3):
            assert len(await client.receive(URL)) == 10
        assert client.endpoint_host == "localhost"
    assert queue.connections == 1
    environment.ca_bundle = str(tmp_path / "others.pem")
    trustme.CA().cert_pem.write_to_path(environment.ca_bundle)
    async with SqsClient(environment) as client:
        with pytest.raises(FatalFault) as caught:
            await client.receive(URL)
    assert caught.value.code == "aws_tls_untrusted"


async def test_plain_http_through_a_proxy(bench: Bench) -> None:
    bench.queue.script = [ok()]
    environment = AwsEnvironment(
        region="us-east-1",
        endpoint=Endpoint("http", "sqs.example", 9324),
        credentials=CredentialKeeper(lambda: (AwsKeys("AK", "sk"), None)),
        proxy=Proxy("127.0.0.1", bench.port, "Basic dTpw"),
    )
    async with SqsClient(environment) as client:
        await client.receive(URL)
    line, headers, _ = bench.queue.requests[0]
    assert line == "POST http://sqs.example:9324/ HTTP/1.1"
    assert headers["host"] == "sqs.example:9324"
    assert headers["proxy-authorization"] == "Basic dTpw"
    assert "proxy-authorization" not in headers["authorization"]

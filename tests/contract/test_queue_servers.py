"""What a consumer relies on in a standard SQS queue, checked on each local server.

No test sleeps: a receive with WaitTimeSeconds returns when a message becomes visible, and how long
that took is the evidence.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

LIMIT_BYTES = 1048576
"""AWS SQS quotas: a message, and all messages of a batch together."""
CLOCK_SLACK_S = 0.05
"""How much earlier than its second an event may seem, by clocks read at different moments."""


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    text: str = caught.value.response["Error"]["Code"]
    return text


def ids(messages: list[Any]) -> list[str]:
    return [message["MessageId"] for message in messages]


def system(message: Any) -> dict[str, str]:
    attributes: dict[str, str] = message["Attributes"]
    return attributes


# ---- one holder, redelivery ----


def test_a_received_message_is_hidden_and_comes_back_after_its_timeout(sqs: Any) -> None:
    url = sqs.queue(VisibilityTimeout="30")
    sent = sqs.send(url, "held")
    started = time.monotonic()
    first = sqs.receive_one(url, VisibilityTimeout=2)
    assert sqs.receive(url) == []
    again = sqs.receive_one(url, wait=20)
    waited = time.monotonic() - started

    assert 2 - CLOCK_SLACK_S <= waited < 15
    assert first["MessageId"] == again["MessageId"] == sent["MessageId"]
    assert first["Body"] == again["Body"] == "held"
    assert first["ReceiptHandle"] != again["ReceiptHandle"]
    assert system(first)["ApproximateReceiveCount"] == "1"
    assert system(again)["ApproximateReceiveCount"] == "2"
    for unchanged in ("SentTimestamp", "ApproximateFirstReceiveTimestamp"):
        assert system(first)[unchanged] == system(again)[unchanged]
    assert abs(int(system(first)["SentTimestamp"]) / 1000 - time.time()) < 60


def test_the_queue_s_own_visibility_timeout_holds_when_a_receive_gives_none(sqs: Any) -> None:
    url = sqs.queue(VisibilityTimeout="2")
    sqs.send(url, "held")
    started = time.monotonic()
    sqs.receive_one(url)
    assert sqs.receive(url) == []
    assert len(sqs.receive(url, wait=20)) == 1
    assert time.monotonic() - started >= 2 - CLOCK_SLACK_S


def test_concurrent_receives_never_share_a_message(sqs: Any) -> None:
    url, count = sqs.queue(VisibilityTimeout="60"), 300
    for start in range(0, count, 10):
        entries = [{"Id": str(i), "MessageBody": str(start + i)} for i in range(10)]
        sqs.client.send_message_batch(QueueUrl=url, Entries=entries)
    with ThreadPoolExecutor(8) as pool:
        held = [m for part in pool.map(lambda _: sqs.drain(url), range(8)) for m in part]
    assert len(ids(held)) == len(set(ids(held))) == count
    assert sorted(int(message["Body"]) for message in held) == list(range(count))
    assert {system(message)["ApproximateReceiveCount"] for message in held} == {"1"}


def test_visibility_zero_releases_at_once(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "released")
    first = sqs.receive_one(url)
    sqs.change(url, first, 0)
    again = sqs.receive_one(url)
    assert again["MessageId"] == first["MessageId"]
    assert system(again)["ApproximateReceiveCount"] == "2"


def test_a_receive_with_visibility_zero_does_not_hide(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "seen")
    assert [len(sqs.receive(url, VisibilityTimeout=0)) for _ in range(3)] == [1, 1, 1]


def test_an_extended_message_stays_hidden_beyond_its_first_timeout(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "extended")
    sqs.send(url, "clock")
    for message in sqs.receive(url, VisibilityTimeout=2):
        sqs.change(url, message, 30 if message["Body"] == "extended" else 3)
    (seen,) = sqs.receive(url, wait=20)
    assert seen["Body"] == "clock"


def test_twelve_hours_from_the_receive_are_the_most(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "long")
    message = sqs.receive_one(url, VisibilityTimeout=30)
    assert sqs.receive(url, wait=1) == []  # a second passes
    if sqs.is_ministack:
        sqs.change(url, message, 43200)  # ministack has no limit
        sqs.change(url, message, 43201)
        return
    sqs.change(url, message, 43190)
    for too_long in (43200, 43201, -1):
        with pytest.raises(ClientError) as caught:
            sqs.change(url, message, too_long)
        assert code(caught) == "InvalidParameterValue"


# ---- deleting, receipt handles ----


def test_a_deleted_message_is_gone_and_deleting_it_again_is_fine(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "deleted")
    message = sqs.receive_one(url, VisibilityTimeout=1)
    sqs.delete(url, message)
    assert sqs.receive(url, wait=2) == []
    if sqs.is_ministack:  # it forgets the handle with the message; AWS does not mind
        with pytest.raises(ClientError) as caught:
            sqs.delete(url, message)
        assert code(caught) == "ReceiptHandleIsInvalid"
    else:
        sqs.delete(url, message)
        with pytest.raises(ClientError) as caught:
            sqs.change(url, message, 10)
        assert code(caught) == "InvalidParameterValue"


def test_an_expired_handle_deletes_while_nobody_else_holds_the_message(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "expired")
    message = sqs.receive_one(url, VisibilityTimeout=0)
    sqs.delete(url, message)
    assert sqs.receive(url) == []


def test_an_older_handle_does_not_delete_what_somebody_holds(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "held")
    older = sqs.receive_one(url, VisibilityTimeout=0)
    newest = sqs.receive_one(url)
    assert older["ReceiptHandle"] != newest["ReceiptHandle"]
    if sqs.is_ministack:  # AWS: "the request succeeds, but the message will not be deleted"
        with pytest.raises(ClientError) as caught:
            sqs.delete(url, older)
        assert code(caught) == "ReceiptHandleIsInvalid"
    else:
        sqs.delete(url, older)
    sqs.change(url, newest, 0)
    assert ids(sqs.receive(url)) == [newest["MessageId"]]


def test_an_expired_handle_does_not_change_visibility(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "expired")
    message = sqs.receive_one(url, VisibilityTimeout=0)
    sqs.change(url, message, 60)  # AWS says nothing and does nothing
    hidden = sqs.receive(url) == []
    assert hidden is sqs.is_ministack  # which hides it again


def test_a_string_that_is_no_handle_is_refused(sqs: Any) -> None:
    url = sqs.queue()
    for refused in (sqs.delete, lambda queue, message: sqs.change(queue, message, 1)):
        with pytest.raises(ClientError) as caught:
            refused(url, {"ReceiptHandle": "garbage"})
        assert code(caught) == "ReceiptHandleIsInvalid"


# ---- batches ----

BATCH_ERROR = "AWS.SimpleQueueService."


def batch_calls(sqs: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    client = sqs.client
    return {
        "send": (client.send_message_batch, {"MessageBody": "x"}),
        "delete": (client.delete_message_batch, {"ReceiptHandle": "x"}),
        "change": (
            client.change_message_visibility_batch,
            {"ReceiptHandle": "x", "VisibilityTimeout": 1},
        ),
    }


@pytest.mark.parametrize("name", ["send", "delete", "change"])
@pytest.mark.parametrize(
    ("entry_ids", "error"),
    [
        ([], "EmptyBatchRequest"),
        ([str(i) for i in range(11)], "TooManyEntriesInBatchRequest"),
        (["a", "b", "a"], "BatchEntryIdsNotDistinct"),
        (["with space"], "InvalidBatchEntryId"),
        (["x" * 81], "InvalidBatchEntryId"),
    ],
)
def test_a_batch_out_of_bounds_fails_whole(
    sqs: Any, name: str, entry_ids: list[str], error: str
) -> None:
    url = sqs.queue()
    call, entry = batch_calls(sqs)[name]
    with pytest.raises(ClientError) as caught:
        call(QueueUrl=url, Entries=[{"Id": each, **entry} for each in entry_ids])
    assert code(caught) == BATCH_ERROR + error
    assert sqs.receive(url) == []


def test_a_batch_holds_one_mebibyte_and_not_a_byte_more(sqs: Any) -> None:
    url = sqs.queue()
    half = "x" * (LIMIT_BYTES // 2)
    entries = [{"Id": "a", "MessageBody": half}, {"Id": "b", "MessageBody": half}]
    answer = sqs.client.send_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["a", "b"]
    entries[1]["MessageBody"] += "x"
    with pytest.raises(ClientError) as caught:
        sqs.client.send_message_batch(QueueUrl=url, Entries=entries)
    assert code(caught) == BATCH_ERROR + "BatchRequestTooLong"
    assert len(sqs.drain(url)) == 2


def test_one_bad_entry_does_not_fail_the_others_of_a_send(sqs: Any) -> None:
    url = sqs.queue()
    bodies = {"good": "first", "bad": "not \x01 allowed", "fine": "second"}
    entries = [{"Id": name, "MessageBody": body} for name, body in bodies.items()]
    answer = sqs.client.send_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good", "fine"]
    (failed,) = answer["Failed"]
    assert (failed["Id"], failed["Code"], failed["SenderFault"]) == (
        "bad",
        "InvalidMessageContents",
        True,
    )
    held = sqs.drain(url)
    assert sorted(m["Body"] for m in held) == ["first", "second"]
    assert sorted(ids(held)) == sorted(entry["MessageId"] for entry in answer["Successful"])


def test_one_bad_entry_does_not_fail_the_others_of_a_delete_or_change(sqs: Any) -> None:
    url = sqs.queue()
    for body in ("deleted", "released"):
        sqs.send(url, body)
    held = {message["Body"]: message["ReceiptHandle"] for message in sqs.receive(url)}
    answers = [
        sqs.client.delete_message_batch(
            QueueUrl=url,
            Entries=[
                {"Id": "bad", "ReceiptHandle": "garbage"},
                {"Id": "good", "ReceiptHandle": held["deleted"]},
            ],
        ),
        sqs.client.change_message_visibility_batch(
            QueueUrl=url,
            Entries=[
                {"Id": "good", "ReceiptHandle": held["released"], "VisibilityTimeout": 0},
                {"Id": "bad", "ReceiptHandle": "garbage", "VisibilityTimeout": 0},
            ],
        ),
    ]
    for answer in answers:
        assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
        (failed,) = answer["Failed"]
        assert (failed["Id"], failed["Code"]) == ("bad", "ReceiptHandleIsInvalid")
        assert failed["SenderFault"] is True
    assert [message["Body"] for message in sqs.receive(url)] == ["released"]


def test_a_batch_settles_ten(sqs: Any) -> None:
    url = sqs.queue(VisibilityTimeout="60")
    entries = [{"Id": str(i), "MessageBody": str(i)} for i in range(10)]
    sent = sqs.client.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]
    assert [entry["Id"] for entry in sent] == [str(i) for i in range(10)]
    held = sqs.drain(url)
    handles = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(held)]
    done = sqs.client.delete_message_batch(QueueUrl=url, Entries=handles)
    assert len(done["Successful"]) == 10
    assert done.get("Failed", []) == []
    for count in ("", "NotVisible", "Delayed"):
        assert sqs.attribute(url, f"ApproximateNumberOfMessages{count}") == "0"


# ---- waiting ----


def test_an_empty_long_poll_ends_after_its_time(sqs: Any) -> None:
    asked = sqs.queue()
    by_default = sqs.queue(ReceiveMessageWaitTimeSeconds="1")
    started = time.monotonic()
    assert sqs.receive(asked, wait=1) == []
    between = time.monotonic()
    answer = sqs.client.receive_message(QueueUrl=by_default)
    ended = time.monotonic()
    assert "Messages" not in answer
    assert 1 - CLOCK_SLACK_S <= between - started < 10
    assert 1 - CLOCK_SLACK_S <= ended - between < 10


def test_a_long_poll_wakes_when_a_message_arrives(sqs: Any) -> None:
    url = sqs.queue()
    asking = threading.Event()

    def tell(request: Any, **_: Any) -> None:
        if request.headers.get("X-Amz-Target") == b"AmazonSQS.ReceiveMessage":
            asking.set()

    sqs.client.meta.events.register("before-send.sqs", tell)
    try:
        with ThreadPoolExecutor(1) as pool:
            started = time.monotonic()
            poll = pool.submit(sqs.receive, url, wait=20)
            assert asking.wait(60)
            for _ in range(5):  # requests after the poll's, so that the server has it by now
                sqs.attribute(url, "QueueArn")
            assert not poll.done()
            sent = sqs.send(url, "late")
            assert ids(poll.result(60)) == [sent["MessageId"]]
            assert time.monotonic() - started < 18
    finally:
        sqs.client.meta.events.unregister("before-send.sqs", tell)


def test_a_delayed_message_arrives_late(sqs: Any) -> None:
    by_message, by_queue = sqs.queue(), sqs.queue(DelaySeconds="2")
    for url, options in ((by_message, {"DelaySeconds": 2}), (by_queue, {})):
        started = time.monotonic()
        sqs.send(url, "late", **options)
        assert sqs.receive(url) == []
        assert sqs.attribute(url, "ApproximateNumberOfMessagesDelayed") == "1"
        assert sqs.attribute(url, "ApproximateNumberOfMessages") == "0"
        assert len(sqs.receive(url, wait=20)) == 1
        assert 2 - CLOCK_SLACK_S <= time.monotonic() - started < 15
    sqs.send(by_queue, "at once", DelaySeconds=0)
    assert len(sqs.receive(by_queue)) == 1


# ---- dead-letter queue ----


def test_a_message_received_too_often_moves_to_the_dead_letter_queue(sqs: Any) -> None:
    dead = sqs.queue()
    policy = json.dumps({"deadLetterTargetArn": sqs.arn(dead), "maxReceiveCount": 2})
    url = sqs.queue(RedrivePolicy=policy)
    attributes = {"kind": {"DataType": "String", "StringValue": "kept"}}
    sent = sqs.send(url, "poison", MessageAttributes=attributes)
    healthy = sqs.send(url, "healthy")
    held = [m for m in sqs.receive(url) if m["Body"] == "poison"]
    sqs.change(url, held[0], 0)
    (second,) = sqs.receive(url, VisibilityTimeout=0)
    assert sqs.receive(dead) == []
    assert sqs.receive(url) == []  # the third receive moves it

    (moved,) = sqs.receive(dead, MessageAttributeNames=["All"])
    assert moved["MessageId"] == second["MessageId"] == sent["MessageId"]
    assert moved["MessageId"] != healthy["MessageId"]
    assert moved["Body"] == "poison"
    assert moved["MessageAttributes"] == attributes
    assert system(moved)["SentTimestamp"] == system(second)["SentTimestamp"]
    assert system(moved)["ApproximateReceiveCount"] == "3"
    assert system(moved)["DeadLetterQueueSourceArn"] == sqs.arn(url)


def test_a_redrive_policy_must_name_a_queue_that_exists(sqs: Any) -> None:
    arn = sqs.arn(sqs.queue())
    for policy in (
        {"deadLetterTargetArn": arn + "-missing", "maxReceiveCount": 2},
        {"deadLetterTargetArn": arn, "maxReceiveCount": 0},
        {"deadLetterTargetArn": arn},
    ):
        with pytest.raises(ClientError) as caught:
            sqs.queue(RedrivePolicy=json.dumps(policy))
        assert code(caught) == "InvalidAttributeValue"


# ---- attributes of messages ----

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
TYPED = {
    "text": {"DataType": "String", "StringValue": 'é "quoted" \\ \n end'},
    "number": {"DataType": "Number", "StringValue": "-12345678901234567890.5"},
    "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
    "text.label": {"DataType": "String.custom", "StringValue": "x"},
}


def test_message_attributes_come_back_as_sent_when_asked_for(sqs: Any) -> None:
    url = sqs.queue()
    sqs.send(url, "typed", MessageAttributes=TYPED)
    for names, expected in (
        (["All"], set(TYPED)),
        ([".*"], set(TYPED)),
        (["number", "missing"], {"number"}),
        (["text.*"], {"text", "text.label"}),
        ([], set()),
    ):
        message = sqs.receive_one(url, VisibilityTimeout=0, MessageAttributeNames=names)
        assert message.get("MessageAttributes", {}) == {name: TYPED[name] for name in expected}


def test_system_attributes_come_when_asked_for(sqs: Any) -> None:
    url = sqs.queue()
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": TRACE}}
    sqs.send(url, "asked", MessageSystemAttributes=trace)
    always = {
        "SenderId",
        "SentTimestamp",
        "ApproximateReceiveCount",
        "ApproximateFirstReceiveTimestamp",
    }
    for names, expected in (
        (["All"], {*always, "AWSTraceHeader"}),
        (["SentTimestamp"], {"SentTimestamp"}),
        (
            ["AWSTraceHeader", "ApproximateReceiveCount"],
            {"AWSTraceHeader", "ApproximateReceiveCount"},
        ),
        ([], set()),
    ):
        for spelling in ("MessageSystemAttributeNames", "AttributeNames"):
            answer = sqs.client.receive_message(
                QueueUrl=url, VisibilityTimeout=0, **{spelling: names}
            )
            found = answer["Messages"][0].get("Attributes", {})
            assert set(found) == expected
            assert found.get("AWSTraceHeader", TRACE) == TRACE


# ---- bodies ----


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * LIMIT_BYTES, id="plain"),
        pytest.param('"\\' * (LIMIT_BYTES // 2), id="every character escaped"),
        pytest.param("😀" * (LIMIT_BYTES // 4), id="four bytes each"),
    ],
)
def test_a_body_of_one_mebibyte_comes_back_whole_and_a_byte_more_is_refused(
    sqs: Any, text: str
) -> None:
    url = sqs.queue()
    sent = sqs.send(url, text)
    message = sqs.receive_one(url)
    digest = hashlib.md5(text.encode()).hexdigest()
    assert message["Body"] == text
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"] == digest
    with pytest.raises(ClientError) as caught:
        sqs.send(url, text + "x")
    assert code(caught) == "InvalidParameterValue"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("tab\t newline\n return\r", id="allowed controls"),
        pytest.param('"quotes" \\backslashes\\ /slashes/', id="escapes"),
        pytest.param("é ß ж 漢字 😀 \U0010fffd", id="every width"),
        pytest.param("\u007f \u0085 \u2028 \ufeff \ufffd \ue000", id="odd but allowed"),
        pytest.param('{"a": "\\u0000 \\ud800"}', id="escapes of a JSON inside"),
        pytest.param(" ", id="one space"),
    ],
)
def test_text_comes_back_as_sent(sqs: Any, text: str) -> None:
    url = sqs.queue()
    sqs.send(url, text)
    message = sqs.receive_one(url)
    assert message["Body"] == text
    assert message["MD5OfBody"] == hashlib.md5(text.encode()).hexdigest()


def test_any_escaping_of_a_body_means_the_same_text(sqs: Any) -> None:
    url = sqs.queue()
    raw = f'{{"QueueUrl": "{url}", "MessageBody": ' + r'"\u0041\/\ud83d\ude00\t\u00E9 é"}'
    request = urllib.request.Request(
        sqs.endpoint_url,
        raw.encode(),
        {
            "X-Amz-Target": "AmazonSQS.SendMessage",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request",
        },
    )
    with urllib.request.urlopen(request) as response:
        sent = json.loads(response.read())
    message = sqs.receive_one(url)
    assert message["Body"] == "A/😀\té é"
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
    assert message["MD5OfBody"] == hashlib.md5("A/😀\té é".encode()).hexdigest()


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x1f", "\ufffe", "\uffff"])
def test_characters_outside_xml_are_refused(sqs: Any, character: str) -> None:
    url = sqs.queue()
    with pytest.raises(ClientError) as caught:
        sqs.send(url, f"with {character} inside")
    assert code(caught) == "InvalidMessageContents"
    assert sqs.receive(url) == []


# ---- queues ----


def test_a_queue_tells_its_attributes(sqs: Any) -> None:
    given = {
        "VisibilityTimeout": "77",
        "MessageRetentionPeriod": "1209600",
        "DelaySeconds": "3",
        "ReceiveMessageWaitTimeSeconds": "4",
        "MaximumMessageSize": "2048",
    }
    url = sqs.queue(**given)
    name = url.rpartition("/")[2]
    asked = sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert {key: asked[key] for key in given} == given
    assert asked["QueueArn"].startswith("arn:aws:sqs:us-east-1:")
    assert asked["QueueArn"].endswith(f":{name}")
    assert abs(int(asked["CreatedTimestamp"]) - time.time()) < 60
    assert "FifoQueue" not in asked
    assert "RedrivePolicy" not in asked
    sqs.client.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5"})
    some = sqs.client.get_queue_attributes(
        QueueUrl=url, AttributeNames=["VisibilityTimeout", "DelaySeconds"]
    )["Attributes"]
    assert some == {"VisibilityTimeout": "5", "DelaySeconds": "3"}
    with pytest.raises(ClientError) as caught:
        sqs.send(url, "x" * 2049)
    assert code(caught) == "InvalidParameterValue"


def test_the_counts_tell_visible_in_flight_and_delayed_apart(sqs: Any) -> None:
    url = sqs.queue()
    for delay_s in (0, 0, 0, 900):
        sqs.send(url, "counted", DelaySeconds=delay_s)
    held = sqs.receive_one(url)
    names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
    asked = sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert [asked[name] for name in names] == ["2", "1", "1"]
    sqs.delete(url, held)
    assert sqs.attribute(url, "ApproximateNumberOfMessagesNotVisible") == "0"
    sqs.client.purge_queue(QueueUrl=url)
    asked = sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert [asked[name] for name in names] == ["0", "0", "0"]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("VisibilityTimeout", "43201"),
        ("DelaySeconds", "901"),
        ("MessageRetentionPeriod", "59"),
        ("ReceiveMessageWaitTimeSeconds", "21"),
        ("MaximumMessageSize", "1048577"),
        ("VisibilityTimeout", "soon"),
    ],
)
def test_an_attribute_out_of_range_is_refused(sqs: Any, attribute: str, value: str) -> None:
    with pytest.raises(ClientError) as caught:
        sqs.queue(**{attribute: value})
    assert code(caught) == "InvalidAttributeValue"


def test_creating_a_queue_again_gives_the_same_one_unless_it_differs(sqs: Any) -> None:
    url = sqs.queue(VisibilityTimeout="40")
    name = url.rpartition("/")[2]
    create = sqs.client.create_queue
    assert create(QueueName=name)["QueueUrl"] == url
    assert create(QueueName=name, Attributes={"VisibilityTimeout": "40"})["QueueUrl"] == url
    with pytest.raises(ClientError) as caught:
        create(QueueName=name, Attributes={"VisibilityTimeout": "41"})
    assert code(caught) == "QueueAlreadyExists"
    assert sqs.client.get_queue_url(QueueName=name)["QueueUrl"] == url
    assert sqs.client.list_queues(QueueNamePrefix=name)["QueueUrls"] == [url]


def test_calls_on_a_deleted_queue_say_that_there_is_none(sqs: Any) -> None:
    url = sqs.queue()
    sqs.client.delete_queue(QueueUrl=url)
    sqs.urls.remove(url)
    calls: list[Any] = [
        lambda: sqs.send(url, "x"),
        lambda: sqs.receive(url),
        lambda: sqs.attribute(url, "All"),
        lambda: sqs.delete(url, {"ReceiptHandle": "x"}),
        lambda: sqs.client.get_queue_url(QueueName=url.rpartition("/")[2]),
    ]
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call()
        assert code(caught) == BATCH_ERROR + "NonExistentQueue"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert url not in sqs.client.list_queues().get("QueueUrls", [])


@pytest.mark.parametrize("most", [0, 11])
def test_a_receive_takes_one_to_ten(sqs: Any, most: int) -> None:
    with pytest.raises(ClientError) as caught:
        sqs.receive(sqs.queue(), most=most)
    assert code(caught) == "InvalidParameterValue"

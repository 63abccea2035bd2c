"""The queue server's faults: each fires if and only if asked for, and the counters balance.

The soak and the fault tests believe what `stats` and `manifest` say, so both are checked here
against what a client saw.
"""

from __future__ import annotations

import collections
import hashlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from benchmarks.queue_server import QueueServer, build
from tests.local_aws import aws_client

THROTTLED = {(400, "RequestThrottled"), (403, "RequestThrottled"), (400, "ThrottlingException")}
FAILED = {(500, "InternalFailure"), (503, "ServiceUnavailable"), (503, "503")}
"""Status and code; the last is a load balancer's HTML, where botocore has only the status."""


def connect(server: QueueServer) -> Any:
    return aws_client(
        "sqs",
        server.endpoint_url,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"}, max_pool_connections=16
        ),
    )


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[QueueServer, Any]]:
    with QueueServer("--manifest", "--in-flight-limit", "500") as server:
        client = connect(server)
        yield server, client
        client.close()


@pytest.fixture
def server(running: tuple[QueueServer, Any]) -> Iterator[QueueServer]:
    """The server without faults, before and after."""
    running[0].set_faults(reset=True, seed=1)
    yield running[0]
    running[0].set_faults(reset=True)


@pytest.fixture
def client(running: tuple[QueueServer, Any]) -> Any:
    return running[1]


@pytest.fixture
def url(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"q-{hashlib.md5(request.node.nodeid.encode()).hexdigest()}"
    made: str = client.create_queue(QueueName=name)["QueueUrl"]
    yield made
    client.delete_queue(QueueUrl=made)


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def outcome(call: Any) -> tuple[int, str]:
    """Status and error code of a call that answers with an error."""
    with pytest.raises(ClientError) as caught:
        call()
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def fired(server: QueueServer, call: str) -> dict[str, int]:
    counts: dict[str, int] = server.faults()["calls"][call]["fired"]
    return counts


# ---- each fault ----


def test_latency_holds_answers_back_without_holding_up_others(
    server: QueueServer, client: Any, url: str
) -> None:
    latency_s = 2.0
    server.set_faults("ReceiveMessage", latency_ms=int(latency_s * 1000))
    with ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        polls = [pool.submit(client.receive_message, QueueUrl=url) for _ in range(8)]
        client.get_queue_url(QueueName=name_of(url))
        other = time.monotonic() - started
        for poll in polls:
            poll.result()
        elapsed = time.monotonic() - started
    assert other < latency_s <= elapsed < 8 * latency_s


@pytest.mark.parametrize(
    ("share", "fault", "ways"),
    [("throttle_share", "throttle", THROTTLED), ("error_share", "error", FAILED)],
)
def test_refusals_take_every_form_of_aws_and_have_no_effect(
    server: QueueServer, client: Any, url: str, share: str, fault: str, ways: set[tuple[int, str]]
) -> None:
    before = fired(server, "SendMessage")[fault]
    server.set_faults("SendMessage", **{share: 1})
    send = lambda: client.send_message(QueueUrl=url, MessageBody="refused")  # noqa: E731
    seen = collections.Counter(outcome(send) for _ in range(40))
    assert set(seen) == ways
    assert fired(server, "SendMessage")[fault] == before + 40
    assert client.receive_message(QueueUrl=url).get("Messages") is None
    server.set_faults(reset=True)
    send()
    assert len(client.receive_message(QueueUrl=url)["Messages"]) == 1


def test_a_lost_reply_leaves_the_work_done(server: QueueServer, client: Any, url: str) -> None:
    before = fired(server, "SendMessage")["lose_reply"]
    server.set_faults("SendMessage", lose_reply_share=1, times=1)
    with pytest.raises(ConnectionClosedError):
        client.send_message(QueueUrl=url, MessageBody="lost")
    client.send_message(QueueUrl=url, MessageBody="answered")
    assert fired(server, "SendMessage")["lose_reply"] == before + 1
    held = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in held] == ["lost", "answered"]


def test_a_lost_receive_keeps_its_messages_hidden(
    server: QueueServer, client: Any, url: str
) -> None:
    client.send_message(QueueUrl=url, MessageBody="held by nobody")
    server.set_faults("ReceiveMessage", lose_reply_share=1, times=1)
    with pytest.raises(ConnectionClosedError):
        client.receive_message(QueueUrl=url, WaitTimeSeconds=20, VisibilityTimeout=2)
    assert client.receive_message(QueueUrl=url).get("Messages") is None
    (again,) = client.receive_message(
        QueueUrl=url, WaitTimeSeconds=20, AttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"


def test_failed_entries_are_reported_and_not_worked_on(
    server: QueueServer, client: Any, url: str
) -> None:
    for body in ("a", "b", "c"):
        client.send_message(QueueUrl=url, MessageBody=body)
    held = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    entries = [{"Id": m["Body"], "ReceiptHandle": m["ReceiptHandle"]} for m in held]
    server.set_faults("DeleteMessageBatch", fail_entry_share=1, times=2)
    answer = client.delete_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["c"]
    assert [entry["Id"] for entry in answer["Failed"]] == ["a", "b"]
    assert {(e["Code"], e["SenderFault"]) for e in answer["Failed"]} == {("InternalError", False)}
    assert server.stats()["queues"][name_of(url)]["in_flight"] == 2
    answer = client.delete_message_batch(QueueUrl=url, Entries=entries[:2])
    assert len(answer["Successful"]) == 2


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_a_share_is_delivered_twice_even_after_its_delete(
    server: QueueServer, client: Any, url: str, share: float
) -> None:
    count = 300
    server.fill(name_of(url), count)
    server.set_faults(duplicate_share=share)
    twice = server.stats()["duplicated"]
    seen: collections.Counter[str] = collections.Counter()
    together = 0
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        ids = [message["MessageId"] for message in messages]
        together += len(ids) - len(set(ids))
        seen.update(ids)
        for message in messages:
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    twice = server.stats()["duplicated"] - twice
    assert len(seen) == count
    assert sum(seen.values()) == count + twice
    assert max(seen.values()) == (2 if share else 1)
    if share == 1:
        assert twice == count
    elif share:
        assert count * share * 0.7 < twice < count * share * 1.3
    assert bool(together) is bool(share)  # some duplicates come in the same answer
    lines = [line for line in server.manifest() if line.queue == name_of(url)]
    assert {line.message_id: line.receives for line in lines} == dict(seen)
    assert {line.message_id: line.deletes for line in lines} == dict(seen)


def test_a_duplicate_may_arrive_while_the_first_copy_is_in_flight(
    server: QueueServer, client: Any, url: str
) -> None:
    server.fill(name_of(url), 100)
    server.set_faults(duplicate_share=1)
    seen: collections.Counter[str] = collections.Counter()
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        seen.update(message["MessageId"] for message in messages)
    assert len(seen) == 100
    assert 40 < list(seen.values()).count(2) < 90  # a third comes back only after a delete


def oddity(message: dict[str, Any]) -> str:
    """What is odd about a delivery."""
    system = message.get("Attributes")
    if system is None:
        return "no system attributes"
    if "Body" not in message:
        return "no body"
    if not isinstance(message["Body"], str):
        return "a number for a body"
    sent_ms = system.get("SentTimestamp")
    if sent_ms is None:
        return "no SentTimestamp"
    return "the year 10000" if int(sent_ms) >= 253_402_300_800_000 else ""


def test_some_messages_are_odd_at_each_delivery(server: QueueServer, client: Any, url: str) -> None:
    share = 0.25
    server.set_faults(odd_share=share)
    sent = {client.send_message(QueueUrl=url, MessageBody="b")["MessageId"] for _ in range(150)}
    seen: list[dict[str, str]] = []
    for _ in range(2):
        found: dict[str, str] = {}
        while len(found) < len(sent):
            asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "AttributeNames": ["All"]}
            reply = server.call("ReceiveMessage", {**asked, "VisibilityTimeout": 60})
            for message in reply["Messages"]:
                found[message["MessageId"]] = oddity(message)
                again = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
                if not seen:
                    server.call("ChangeMessageVisibility", {**again, "VisibilityTimeout": 0})
        seen.append(found)
    assert seen[0] == seen[1]
    odd = {name for name in sent if int(name[:4], 16) < share * 65_536}
    assert {name for name, what in seen[0].items() if what} == odd
    assert set(seen[0].values()) == {
        *("", "no system attributes", "no body", "a number for a body"),
        *("no SentTimestamp", "the year 10000"),
    }


def test_fifo_queues_deliver_once_whatever_the_share(server: QueueServer, client: Any) -> None:
    url = client.create_queue(QueueName="once.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    server.fill("once.fifo", 50, groups=50)
    server.set_faults(duplicate_share=1)
    seen: list[str] = []
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            seen.append(message["MessageId"])
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    client.delete_queue(QueueUrl=url)
    assert len(seen) == len(set(seen)) == 50


def test_the_same_seed_draws_the_same_faults(server: QueueServer, client: Any, url: str) -> None:
    def draw(seed: int) -> list[bool]:
        server.set_faults("GetQueueUrl", throttle_share=0.3, seed=seed)
        drawn = []
        for _ in range(60):
            try:
                client.get_queue_url(QueueName=name_of(url))
                drawn.append(False)
            except ClientError:
                drawn.append(True)
        return drawn

    first = draw(7)
    assert first == draw(7)
    assert first != draw(8)
    assert 6 <= sum(first) <= 30


def test_faults_fall_on_the_named_call_only(server: QueueServer, client: Any, url: str) -> None:
    server.set_faults("DeleteMessage", error_share=1)
    client.send_message(QueueUrl=url, MessageBody="x")
    (held,) = client.receive_message(QueueUrl=url)["Messages"]
    delete = {"QueueUrl": url, "ReceiptHandle": held["ReceiptHandle"]}
    assert outcome(lambda: client.delete_message(**delete)) in FAILED
    client.delete_message_batch(
        QueueUrl=url, Entries=[{"Id": "x", "ReceiptHandle": held["ReceiptHandle"]}]
    )


def test_the_in_flight_limit_is_reported(client: Any, server: QueueServer, url: str) -> None:
    server.fill(name_of(url), 510)
    taken = 0
    for _ in range(50):
        answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        taken += len(answer["Messages"])
    assert taken == 500
    assert outcome(lambda: client.receive_message(QueueUrl=url)) == (400, "OverLimit")


def test_faults_from_the_command_line() -> None:
    options = ("--fault", "ReceiveMessage:throttle_share=1", "--fault", "latency_ms=1")
    with QueueServer(*options, "--fault-seed", "3") as server:
        server.call("CreateQueue", {"QueueName": "q"})
        plan = server.faults()["calls"]
        assert plan["ReceiveMessage"]["throttle_share"] == 1
        assert {call["latency_ms"] for call in plan.values()} == {1}
        with pytest.raises(ValueError, match=r"throttled|exceeded"):
            server.call("ReceiveMessage", {"QueueUrl": "q"})


@pytest.mark.parametrize(
    ("faults", "why"),
    [
        ({"throttle_share": 1.5}, "from 0 to 1"),
        ({"throtle_share": 0.5}, "unknown fault"),
        ({"call": "ReciveMessage", "latency_ms": 1}, "unknown call"),
    ],
)
def test_wrong_faults_are_refused(server: QueueServer, faults: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        server.set_faults(**faults)


@pytest.mark.parametrize(
    "options", [["--fault", "x=1"], ["--port", "0"], ["--handle-chars", "31"], ["word"], ["--tls"]]
)
def test_wrong_options_are_refused(options: list[str]) -> None:
    done = subprocess.run([build(), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


# ---- fill ----


def test_generated_logins_have_the_shape_of_the_job(
    server: QueueServer, client: Any, url: str
) -> None:
    answer = server.fill(name_of(url), 400, malformed_share=0.1, people=20, seed=4)
    assert answer["messages"] == 400
    assert 20 <= answer["malformed"] <= 70
    kinds = {line.message_id: line.kind for line in server.manifest()}
    people: set[str] = set()
    devices: set[str] = set()
    parts: set[int] = set()
    locales: set[str | None] = set()
    malformed, body_bytes = [], 0
    while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            body_bytes += len(message["Body"].encode())
            if kinds[message["MessageId"]] == "malformed":
                malformed.append(message["Body"])
                continue
            event = json.loads(message["Body"])
            assert set(event) == {
                "user_id",
                "app_version",
                "device_type",
                "ip",
                "locale",
                "device_id",
            }
            socket.inet_pton(socket.AF_INET, event["ip"])
            assert [len(part) for part in event["device_id"].split("-")] == [3, 2, 4]
            people.add(event["user_id"])
            devices.add(event["device_id"])
            locales.add(event["locale"])
            parts.add(len([int(part) for part in event["app_version"].split(".")]))
    assert len(malformed) == answer["malformed"]
    assert body_bytes == answer["body_bytes"]
    assert len(set(malformed)) > 5
    assert any(not body.startswith("{") for body in malformed)
    assert len(people) == 20
    assert 20 < len(devices) <= 40
    assert parts == {1, 2, 3}
    assert None in locales
    assert len(locales) > 3


def test_one_seed_gives_one_population(server: QueueServer, client: Any) -> None:
    bodies = []
    for name, seed in (("seed-a", 9), ("seed-b", 9), ("seed-c", 10)):
        url = client.create_queue(QueueName=name)["QueueUrl"]
        server.fill(name, 50, seed=seed, malformed_share=0.2)
        seen: list[str] = []
        while got := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            seen += [message["Body"] for message in got]
        bodies.append(seen)
        client.delete_queue(QueueUrl=url)
    assert bodies[0] == bodies[1] != bodies[2]


def test_a_fill_may_be_large_old_grouped_or_steady(server: QueueServer, client: Any) -> None:
    url = client.create_queue(QueueName="groups.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    server.fill("groups.fifo", 30, groups=3, pad_bytes=100_000, sent_ms_ago=86_400_000)
    (message,) = client.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"]
    assert len(json.loads(message["Body"])["padding"]) == 100_000
    assert message["Attributes"]["MessageGroupId"] in {"g0", "g1", "g2"}
    age_s = time.time() - int(message["Attributes"]["SentTimestamp"]) / 1000
    assert abs(age_s - 86_400) < 60

    started = time.monotonic()
    server.fill("groups.fifo", 200, rate_per_s=400)
    assert 0.45 <= time.monotonic() - started < 20
    sent = server.stats()["sent"]
    server.fill("groups.fifo", 100, rate_per_s=1000, background=True)
    assert server.wait("sent", at_least=sent + 100)["reached"]
    assert server.stats()["queues"]["groups.fifo"]["visible"] == 329
    client.delete_queue(QueueUrl=url)


# ---- books ----


def test_the_manifest_and_the_counters_tell_what_happened(
    server: QueueServer, client: Any, url: str
) -> None:
    before = server.stats()
    sent = [client.send_message(QueueUrl=url, MessageBody=body)["MessageId"] for body in "abc"]
    for _ in range(2):
        held = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)[
            "Messages"
        ]
    client.delete_message(QueueUrl=url, ReceiptHandle=held[0]["ReceiptHandle"])
    lines = {line.message_id: line for line in server.manifest() if line.queue == name_of(url)}
    assert list(lines) == sent
    gone = held[0]["MessageId"]
    for message_id, body in zip(sent, "abc", strict=True):
        line = lines[message_id]
        assert line.body_md5 == hashlib.md5(body.encode()).hexdigest()
        assert (line.receives, line.kind) == (2, "sent")
        assert line.deletes == (message_id == gone)
    after = server.stats()
    changed = {name: after[name] - before[name] for name in ("sent", "received", "deleted")}
    assert changed == {"sent": 3, "received": 6, "deleted": 1}
    assert after["requests"]["SendMessage"] - before["requests"]["SendMessage"] == 3
    assert after["queues"][name_of(url)] == {"visible": 2, "in_flight": 0, "delayed": 0}
    assert after["cpu_seconds"] > before["cpu_seconds"] > 0
    assert after["peak_memory_bytes"] > 1_000_000


def test_a_long_manifest_comes_whole(server: QueueServer, client: Any, url: str) -> None:
    server.fill(name_of(url), 20_000)
    lines = [line for line in server.manifest() if line.queue == name_of(url)]
    assert len({line.message_id for line in lines}) == len(lines) == 20_000


def test_wait_returns_when_a_counter_reaches_its_value(
    server: QueueServer, client: Any, url: str
) -> None:
    name = name_of(url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.wait, "visible", at_least=2, queue=name)
        client.send_message(QueueUrl=url, MessageBody="one")
        client.send_message(QueueUrl=url, MessageBody="two")
        assert waiting.result()["reached"] is True
    assert server.wait("visible", at_most=1, queue=name, timeout_s=0.05)["reached"] is False
    with pytest.raises(ValueError, match="counter must be"):
        server.wait("visibel", at_least=1)


def test_one_seed_gives_one_row_of_message_ids() -> None:
    rows = []
    for seed in ("1", "1", "2"):
        with QueueServer("--seed", seed) as server:
            server.call("CreateQueue", {"QueueName": "q"})
            send = {"QueueUrl": "q", "MessageBody": "x"}
            rows.append([server.call("SendMessage", send)["MessageId"] for _ in range(3)])
    assert rows[0] == rows[1] != rows[2]
    assert all(message_id[14] == "4" for row in rows for message_id in row)

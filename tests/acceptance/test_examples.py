"""The worked examples, run: tables made, their inputs on a real queue, drained, rows compared.

Each input takes the route of its example: SNS and EventBridge wrap and deliver it, S3 keeps it.
The expected rows stand beside the mapping, where `config test` also reads them.
"""

from __future__ import annotations

import gzip
import json
import re
import secrets
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.local_aws import aws_client
from tests.s3_events import notification
from tests.shell import Shell

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*/sqs2pg.toml"))
MIB = 2**20
TOKEN = re.compile(r"v1_[0-9a-f]{32}")
Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]


class Example:
    """One settings file, and what its examples ask for."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tree = tomllib.loads(file.read_text())
        self.cases: list[dict[str, Any]] = self.tree["example"]
        routes = [route for route in self.tree.get("route", []) if "table" in route]
        self.tables = [route["table"] for route in routes] or [self.tree["sink"]["table"]]

    def body(self, case: dict[str, Any]) -> str:
        found = case["input"]
        return found if isinstance(found, str) else json.dumps(found)

    def named(self, name: str) -> dict[str, Any]:
        [case] = [case for case in self.cases if case["name"] == name]
        return case

    def expected(self, table: str) -> list[dict[str, Any]]:
        rows = [
            row
            for case in self.cases
            for row in case.get("rows", []) + ([case["row"]] if "row" in case else [])
        ]
        return [
            {name: value for name, value in row.items() if name != "@table"}
            for row in rows
            if row.get("@table", self.tables[0]) == table
        ]

    @property
    def faults(self) -> list[str]:
        return sorted(case["fault"] for case in self.cases if "fault" in case)


@pytest.fixture
def bucket(emulator_endpoint: str, local_aws: Callable[[str], Any]) -> Iterator[str]:
    name = f"payloads-{secrets.token_hex(6)}"
    s3 = local_aws("s3")
    s3.create_bucket(Bucket=name)
    yield name
    for one in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=one["Key"])
    s3.delete_bucket(Bucket=name)


@pytest.fixture
def local_aws(emulator_endpoint: str) -> Callable[[str], Any]:
    """Make a boto3 client of a service of the local server."""
    return lambda service: aws_client(
        service,
        emulator_endpoint,
    )


@pytest.fixture
def queue_arn(sqs: Any, queue_url: str) -> str:
    found = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    arn: str = found["Attributes"]["QueueArn"]
    return arn


def same(wanted: Any, found: Any, masked: bool) -> bool:
    if wanted == "masked" and masked:
        return TOKEN.fullmatch(found or "") is not None
    if found is None or wanted is None:
        return found is wanted
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, int | float) and isinstance(found, int | float | Decimal):
        return Decimal(str(wanted)) == Decimal(str(found))
    if isinstance(found, bytes):
        return bool(wanted == rf"\x{found.hex()}")
    if isinstance(found, Decimal):
        return Decimal(wanted) == found
    if isinstance(found, UUID | date) and not isinstance(found, datetime):
        return str(found) == str(wanted)
    return bool(wanted == found)


def assert_rows(query: Query, example: Example, table: str, expected: list[dict[str, Any]]) -> None:
    """Each row that is expected is there once, and no other; a column not named is NULL."""
    fields = example.tree.get("field", []) + [
        field for route in example.tree.get("route", []) for field in route.get("field", [])
    ]
    masked = {field["column"] for field in fields if "mask" in field}
    names = [
        name
        for (name,) in query(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
            " ORDER BY ordinal_position",
            table,
        )
    ]
    assert {name for row in expected for name in row} <= set(names)
    left = query(f"SELECT * FROM {table}")
    for wanted in expected:
        fits = [
            row
            for row in left
            if all(
                same(wanted.get(name), cell, name in masked)
                for name, cell in zip(names, row, strict=True)
            )
        ]
        assert len(fits) >= 1, (table, wanted)
        left.remove(fits[0])
    assert left == []


def assert_faults(query: Query, expected: list[str]) -> None:
    """A fault is a reason, or a reason and its detail."""
    found = query("SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2")
    assert len(found) == len(expected)
    for (reason, detail), fault in zip(found, sorted(expected), strict=True):
        assert fault in (reason, f"{reason} {detail}")


def prepared(shell: Shell, example: Example) -> tuple[str, str]:
    """Make the tables and run `check`; return the options that name the settings."""
    options = ("-c", str(example.file))
    shell("migrate", *options)
    report = shell("check", "--json", *options).last
    assert report["ok"]
    assert [one for one in report["checks"] if one["status"] == "fail"] == []
    assert len(report["checks"]) >= 13
    return options


def drained(shell: Shell, options: tuple[str, str], written: int, quarantined: int) -> None:
    done = shell("run", "--drain", "--drain-timeout-s", "60", "--json", *options).last
    assert (done["written"], done["quarantined"], done["released"]) == (written, quarantined, 0)
    books = shell("verify", "--json", *options).last
    assert books["ok"]
    assert shell("check", "--json", *options).last["ok"]


@pytest.mark.parametrize(
    "name",
    [
        *("clickstream", "cloudtrail", "dynamodb-stream", "iot-telemetry", "protobuf-json"),
        *("service-logs", "two-tables"),
    ],
)
def test_inputs_become_the_rows_that_stand_beside_them(
    shell: Shell, query: Query, send: Send, name: str
) -> None:
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == name]
    options = prepared(shell, example)
    before = datetime.now(UTC).date()
    send([example.body(case) for case in example.cases])
    drained(
        shell, options, len(example.cases) - len(example.faults), quarantined=len(example.faults)
    )
    for table in example.tables:
        expected = example.expected(table)
        if table == "login":
            # Its day is the day of sending: an example can fix that, a queue cannot.
            [(day,)] = query("SELECT day FROM login")
            assert before <= day <= datetime.now(UTC).date()
            expected = [row | {"day": str(day)} for row in expected]
        assert_rows(query, example, table, expected)
    assert_faults(query, example.faults)
    if name == "service-logs":  # a message whose records are all dropped is one of the ledger's
        left_out = sum(case.get("rows") == [] for case in example.cases)
        outcomes = "SELECT (SELECT sum(dropped) FROM sqs2pg.tally), count(*) FROM sqs2pg.delivery"
        delivered = f"{outcomes} WHERE outcome = 'written'"
        assert query(delivered) == [(left_out, len(example.cases) - len(example.faults))]
    if name == "two-tables":  # one domain: a person's logins and purchases join
        [(joined,)] = query("SELECT count(*) FROM login JOIN purchase USING (visitor)")
        assert joined == 1


def test_an_export_and_the_queue_give_each_event_once(
    shell: Shell, query: Query, send: Send
) -> None:
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == "webhook-archive"]
    options = prepared(shell, example)
    archive = example.file.parent / "payments-2026-05-01.csv"
    done = shell("backfill", str(archive), "--json", *options).last
    good = [case for case in example.cases if "fault" not in case]
    assert (done["written"], done["quarantined"]) == (len(good), 0)
    assert_rows(query, example, "payment", example.expected("payment"))
    send([example.body(case) for case in example.cases])
    drained(shell, options, 0, quarantined=len(example.cases) - len(good))
    assert_rows(query, example, "payment", example.expected("payment"))


def test_orders_come_through_a_topic(
    shell: Shell,
    query: Query,
    send: Send,
    queue_arn: str,
    local_aws: Callable[[str], Any],
) -> None:
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == "orders-sns"]
    options = prepared(shell, example)
    sns = local_aws("sns")
    topic = sns.create_topic(Name=f"orders-{secrets.token_hex(6)}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_arn)
    before = datetime.now(UTC) - timedelta(seconds=1)
    good = example.named("an order of two lines")
    for case in example.cases:
        body = example.body(case)
        if case.get("fault") == "not_sns":
            send([body])
        else:
            sns.publish(TopicArn=topic, Message=json.loads(body)["Message"])
    drained(shell, options, 1, quarantined=2)
    stamps = {stamp for (stamp,) in query("SELECT published_at FROM order_line")}
    [published] = stamps
    assert before <= published <= datetime.now(UTC)
    expected = [row | {"published_at": published} for row in good["rows"]]
    assert_rows(query, example, "order_line", expected)
    assert_faults(query, example.faults)
    # The example's own body, as AWS documents it, beside those that the endpoint made.
    send([example.body(good)])
    drained(shell, options, 1, quarantined=0)
    assert_rows(query, example, "order_line", [*expected, *good["rows"]])


def test_events_come_through_a_bus(
    shell: Shell,
    query: Query,
    send: Send,
    queue_arn: str,
    local_aws: Callable[[str], Any],
) -> None:
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == "eventbridge"]
    options = prepared(shell, example)
    events = local_aws("events")
    bus = f"bus-{secrets.token_hex(6)}"
    events.create_event_bus(Name=bus)
    rule = {"Name": "instances", "EventBusName": bus}
    events.put_rule(**rule, EventPattern=json.dumps({"source": ["test.ec2"]}))
    events.put_targets(Rule=rule["Name"], EventBusName=bus, Targets=[{"Id": "q", "Arn": queue_arn}])
    detail = {"instance-id": "i-17", "state": "stopped"}
    kinds = {"DetailType": "EC2 Instance State-change Notification", "EventBusName": bus}
    entries = [{"Source": "test.ec2", "Detail": json.dumps(detail), **kinds}]
    [sent] = events.put_events(Entries=entries)["Entries"]
    send([example.body(case) for case in example.cases])
    drained(shell, options, 2, quarantined=len(example.faults))
    of_bus = "SELECT happened_at, account FROM instance_state WHERE instance_id = 'i-17'"
    [(happened, account)] = query(of_bus)
    assert abs(happened - datetime.now(UTC)) < timedelta(minutes=5)
    more = {"event_id": sent["EventId"], "happened_at": happened, "account": "masked"}
    row = {"instance_id": "i-17", "state": "stopped"} | more
    assert_rows(query, example, "instance_state", [*example.expected("instance_state"), row])
    assert TOKEN.fullmatch(account)
    assert_faults(query, example.faults)


def test_lines_come_from_the_objects_of_notifications(
    shell: Shell, query: Query, send: Send, bucket: str, local_aws: Callable[[str], Any]
) -> None:
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == "s3-notifications"]
    shell.environment["SQS2PG_ENVELOPE__S3_BUCKETS"] = bucket
    options = prepared(shell, example)
    [row] = example.expected("archived_order")
    # As Firehose writes them: without line feeds, in gzip.
    body = gzip.compress("".join(map(example.body, example.cases)).encode())
    put = local_aws("s3").put_object(Bucket=bucket, Key=row["object_key"], Body=body)
    told = notification(bucket, row["object_key"], etag=put["ETag"], size=len(body))
    send([told, told])
    drained(shell, options, 2, quarantined=0)
    assert_rows(query, example, "archived_order", [row])
    place = f"s3://{bucket}/{row['object_key']} line 2"
    assert_faults(query, [f"missing_field order_id, {place}"])


def test_payloads_of_five_mebibytes_come_from_s3(
    shell: Shell, query: Query, send: Send, bucket: str, local_aws: Callable[[str], Any]
) -> None:
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == "large-payloads"]
    shell.environment["SQS2PG_ENVELOPE__S3_BUCKETS"] = f"one,{bucket}"
    options = prepared(shell, example)
    s3 = local_aws("s3")
    pointed = example.named("a payload in S3")
    payload = json.loads(pointed["payload"])
    payload["text"] = payload["text"] * (5 * MIB // len(payload["text"]))
    body = json.dumps(payload).encode()
    assert len(body) > 5 * MIB
    s3.put_object(Bucket=bucket, Key=pointed["row"]["object_key"], Body=body)
    send([example.body(case).replace('"payloads"', f'"{bucket}"') for case in example.cases])
    drained(shell, options, 2, quarantined=2)
    expected = [
        row | {"text": payload["text"]} if row["id"] == payload["id"] else row
        for row in example.expected("document")
    ]
    assert_rows(query, example, "document", expected)
    assert_faults(query, example.faults)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0  # s3_delete, once it is committed


def test_orders_are_state_beside_a_log_of_the_same_messages(
    shell: Shell, query: Query, send: Send
) -> None:
    """Out of order, in several batches: the log has every message, the state the newest of each."""
    [example] = [Example(file) for file in EXAMPLES if file.parent.name == "order-state"]
    shell("migrate", "-c", str(example.file))
    report = shell("check", "--json", "-c", str(example.file), code=1).last
    [missing] = [one for one in report["checks"] if one["status"] == "fail"]
    assert missing["name"] == "target order_state key"
    query(missing["remedy"].partition(";")[0])
    options = prepared(shell, example)
    new, paid, without = map(example.body, example.cases)
    for bodies, written, quarantined in (([paid], 1, 0), ([new, without, paid], 2, 1)):
        send(bodies)
        drained(shell, options, written, quarantined)
    state = "SELECT order_id, updated_at::text, status FROM order_state"
    query("SET TimeZone = 'UTC'")
    assert query(state) == [("o-1", "2026-11-30 09:00:00+00", "paid")]
    log = "SELECT status, count(*) FROM order_log GROUP BY 1 ORDER BY 1"
    assert query(log) == [("new", 1), ("paid", 2)]
    tally = "SELECT target, sum(target_rows), sum(rows_inserted), sum(rows_superseded)"
    assert query(f"{tally} FROM sqs2pg.tally GROUP BY 1 ORDER BY 1") == [
        ("public.order_log", 3, 3, 0),
        (None, 1, 1, 2),
    ]


def test_every_example_is_run_here() -> None:
    assert [file.parent.name for file in EXAMPLES] == [
        "clickstream",
        "cloudtrail",
        "dynamodb-stream",
        "eventbridge",
        "iot-telemetry",
        "large-payloads",
        "order-state",
        "orders-sns",
        "protobuf-json",
        "s3-notifications",
        "service-logs",
        "two-tables",
        "webhook-archive",
    ]

"""The Lambda handler under AWS's own runtime client, on a real database.

The runtime API is a stub that hands out events and deadlines as Lambda does; everything between it
and the rows is what would run in AWS.
"""

from __future__ import annotations

import json
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.logins import login
from tests.runtime_api import Answer, Sandbox, record, sandbox
from tests.shell import Shell
from tests.waiting import BLOCKED, wait_until

SECRET = "203.0.113.77"
LOCK_S = 1

Start = Callable[..., AbstractContextManager[Sandbox]]
Query = Callable[..., list[tuple[Any, ...]]]


def ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def batch(users: dict[str, str], **attributes: Any) -> Any:
    """An event: MessageId -> user."""
    return {
        "Records": [record(i, login(user, ip=SECRET), **attributes) for i, user in users.items()]
    }


@pytest.fixture
def start(shell: Shell, tmp_path: Path, migrated_database: str) -> Start:
    """Start a sandbox on a migrated database; arguments are variables of its environment."""

    def begin(**environment: str) -> AbstractContextManager[Sandbox]:
        return sandbox(
            tmp_path,
            shell.environment | {"SQS2PG_SINK__STATEMENT_TIMEOUT_S": str(LOCK_S)} | environment,
            shell.forks,
        )

    return begin


def gives_all_back(answer: Answer) -> bool:
    """Whether the handler raised because every message goes back."""
    return (answer.kind, answer.body.get("errorMessage")) == (
        "error",
        "every message of the batch goes back",
    )


@contextmanager
def holding(database: str, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Another transaction that has run `statement` and is still open."""
    with psycopg.connect(database) as other:
        other.execute(statement)
        yield other
        other.rollback()


def test_ten_with_two_bad_and_one_transient_give_back_exactly_the_transient_one(
    start: Start, database: str, query: Query
) -> None:
    names = ids(10)
    records = [record(name, login(at, ip=SECRET)) for at, name in enumerate(names)]
    records[2]["body"] = "not json"
    records[6]["body"] = login("u6", ip="not an address")
    with start() as function:
        query("CREATE UNIQUE INDEX one_each ON user_logins (user_id)")
        # Another transaction has written the row of u4 and has not committed yet.
        with holding(database, "INSERT INTO user_logins (user_id) VALUES ('u4')"):
            answer = function.invoke({"Records": records})
        assert answer.failures == [names[4]]
        assert query("SELECT user_id FROM user_logins ORDER BY 1") == [
            (f"u{n}",) for n in (0, 1, 3, 5, 7, 8, 9)
        ]
        reasons = query("SELECT message_id, reason FROM sqs2pg.quarantine ORDER BY id")
        assert dict(reasons).keys() == {names[2], names[6]}
        # It comes again, as Lambda's poller would bring it.
        again = function.invoke({"Records": [records[4]]})
        assert again.failures == []
        assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u4'") == [(1,)]
        assert SECRET not in function.log


def told(function: Sandbox) -> list[dict[str, Any]]:
    """The counts of each metrics line, without those that are zero."""
    lines = [json.loads(line) for line in function.log.splitlines() if '"_aws"' in line]
    for line in lines:
        [directive] = line["_aws"]["CloudWatchMetrics"]
        assert (directive["Namespace"], line["pipeline"]) == ("sqs2pg", "user_logins")
        assert {one["Name"] for one in directive["Metrics"]} <= line.keys()
    return [
        {n: v for n, v in line.items() if v and n not in ("_aws", "pipeline", "lag_seconds")}
        for line in lines
    ]


def test_each_invocation_tells_cloudwatch_what_it_did_where_it_is_asked_to(
    start: Start, database: str, query: Query
) -> None:
    names = ids(4)
    records = [record(name, login(at, ip=SECRET)) for at, name in enumerate(names)]
    records[1]["body"] = "not json"
    with start(SQS2PG_TELEMETRY__EMF="true") as function:
        # An invocation that raises returns every message; the counts continue after it.
        query("ALTER TABLE user_logins RENAME TO elsewhere")
        assert function.invoke({"Records": records}).kind == "error"
        query("ALTER TABLE elsewhere RENAME TO user_logins")
        query("CREATE UNIQUE INDEX one_each ON user_logins (user_id)")
        with holding(database, "INSERT INTO user_logins (user_id) VALUES ('u2')"):
            assert function.invoke({"Records": records}).failures == [names[2]]
        assert function.invoke({"Records": records}).failures == []
        raised, first, second = told(function)
        assert raised == {"received": 4, "released": 4}
        assert first.pop("faults") > 0
        assert first == {"received": 4, "written": 2, "quarantined": 1, "released": 1}
        # The message that is not JSON comes again, and is a duplicate.
        assert second == {"received": 4, "written": 1, "duplicate": 3, "faults": 1}
    away = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere"}
    with start(SQS2PG_TELEMETRY__EMF="true", **away) as function:
        function.invoke(batch(dict.fromkeys(names, "u")))
        assert told(function) == [{"received": 4, "released": 4, "faults": 1}]
    with start() as function:
        assert function.invoke(batch(dict.fromkeys(ids(1), "x"))).failures == []
        assert told(function) == []


def test_what_no_field_names_is_recorded(start: Start, query: Query) -> None:
    [message_id] = ids(1)
    event = {"Records": [record(message_id, login("u1", ip=SECRET, plan="gold"))]}
    with start() as function:
        assert function.invoke(event).failures == []
        assert query("SELECT path, type, seen FROM sqs2pg.unknown_field") == [("", "text", 1)]


def test_warm_invocations_share_one_connection_and_a_batch_twice_changes_nothing(
    start: Start, database: str, query: Query
) -> None:
    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sqs2pg'"
    with start() as function:
        event = batch(dict.fromkeys(ids(3), "u"))
        assert function.invoke(event).failures == []
        [cold] = query(sessions)
        assert function.invoke(event).failures == []
        assert query(sessions) == [cold]
        assert query("SELECT count(*) FROM user_logins") == [(3,)]
        # The server, or a proxy before it, closed the connection while the function was frozen.
        query("SELECT pg_terminate_backend(%s)", cold[0])
        assert function.invoke(batch(dict.fromkeys(ids(2), "v"))).failures == []
        assert query(sessions) != [cold]
        assert query("SELECT count(*) FROM user_logins") == [(5,)]


def test_a_crash_in_the_middle_loses_nothing_and_doubles_nothing(
    start: Start, database: str, query: Query
) -> None:
    event = batch(dict.fromkeys(ids(5), "u"))
    with start(SQS2PG_SINK__STATEMENT_TIMEOUT_S="30") as function:
        assert function.invoke(batch(dict.fromkeys(ids(1), "before"))).failures == []
        with holding(database, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE"):
            function.api.offer(event, 30.0)
            wait_until(lambda: query(BLOCKED) != [(0,)], during=function.process)
            function.process.send_signal(signal.SIGKILL)
            function.process.wait()
    with start() as function:
        assert function.invoke(event).failures == []
    assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u'") == [(5,)]


def test_nothing_is_started_if_less_than_the_margin_is_left(start: Start, query: Query) -> None:
    names = ids(3)
    with start(SQS2PG_AWS_LAMBDA__MARGIN_S="10") as function:
        assert gives_all_back(function.invoke(batch(dict.fromkeys(names, "u")), timeout_s=9))
        assert query("SELECT count(*) FROM user_logins") == [(0,)]
        assert query("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sqs2pg'") == [
            (0,)
        ]
        assert function.invoke(batch(dict.fromkeys(names, "u")), timeout_s=30).failures == []
        assert query("SELECT count(*) FROM user_logins") == [(3,)]


def test_a_batch_under_way_is_ended_before_the_timeout_and_returned(
    start: Start, database: str, query: Query
) -> None:
    names = ids(3)
    event = batch(dict.fromkeys(names, "u"))
    with start(SQS2PG_SINK__STATEMENT_TIMEOUT_S="60") as function:
        assert function.invoke(batch(dict.fromkeys(ids(1), "before"))).failures == []
        with holding(database, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE"):
            assert gives_all_back(function.invoke(event, timeout_s=8))
        assert function.invoke(event).failures == []
        assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u'") == [(3,)]
        assert "cut before the function's timeout" in function.log


def test_on_fifo_a_failed_message_and_the_later_ones_of_its_group_are_returned(
    start: Start, database: str, query: Query
) -> None:
    groups = ["a", "b", "a", "b", "a", "b"]
    names = ids(6)
    records = [
        record(
            name,
            login(f"{group}{at}", ip=SECRET),
            queue="logins.fifo",
            MessageGroupId=group,
            SequenceNumber=18_849_496_460_467_696_128 + at,
        )
        for at, (name, group) in enumerate(zip(names, groups, strict=True))
    ]
    with start() as function:
        query("CREATE UNIQUE INDEX one_each ON user_logins (user_id)")
        with holding(database, "INSERT INTO user_logins (user_id) VALUES ('a2')"):
            # Lambda may list the groups' messages in any order between groups.
            answer = function.invoke({"Records": records})
        assert answer.failures == [names[2], names[4]]
        assert query("SELECT user_id FROM user_logins ORDER BY 1") == [
            (user,) for user in ("a0", "b1", "b3", "b5")
        ]
        assert function.invoke({"Records": [records[2], records[4]]}).failures == []
        assert query("SELECT user_id FROM user_logins WHERE user_id ~ 'a' ORDER BY ctid") == [
            ("a0",),
            ("a2",),
            ("a4",),
        ]


def test_on_a_standard_queue_a_group_goes_on_past_the_failed_one(
    start: Start, database: str, query: Query
) -> None:
    names = ids(3)
    records = [
        record(name, login(f"u{at}", ip=SECRET), MessageGroupId="tenant")
        for at, name in enumerate(names)
    ]
    with start() as function:
        query("CREATE UNIQUE INDEX one_each ON user_logins (user_id)")
        with holding(database, "INSERT INTO user_logins (user_id) VALUES ('u1')"):
            assert function.invoke({"Records": records}).failures == [names[1]]
        assert query("SELECT user_id FROM user_logins ORDER BY 1") == [("u0",), ("u2",)]


READS = """CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.user_id ~ '{who}' THEN PERFORM FROM missing_table; END IF; RETURN NEW; END $$;
CREATE TRIGGER reads BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION reads()"""


def test_a_trigger_that_fails_for_one_row_gives_one_message_back(
    start: Start, query: Query
) -> None:
    names = ids(20)
    records = [record(name, login(f"u{at}", ip=SECRET)) for at, name in enumerate(names)]
    with start() as function:
        query(READS.format(who="^u7$"))
        assert function.invoke({"Records": records}).failures == [names[7]]
        assert query("SELECT count(*) FROM user_logins") == [(19,)]
        assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
        query("DROP TRIGGER reads ON user_logins")
        assert function.invoke({"Records": [records[7]]}).failures == []


DAMAGE = """UPDATE pii.subject_key
SET wrapped_key = set_byte(wrapped_key, 30, get_byte(wrapped_key, 30) # 1)
WHERE subject = (SELECT v.subject FROM pii.value v JOIN user_logins u ON u.masked_ip = v.token
                 WHERE u.user_id = 'u7' LIMIT 1) RETURNING subject"""


def people(names: list[str], octet: int) -> dict[str, Any]:
    """An event: a message of u0, u1, … each, from addresses of their own."""
    return {
        "Records": [
            record(name, login(f"u{at}", ip=f"192.0.{octet}.{at}")) for at, name in enumerate(names)
        ]
    }


def test_a_persons_damaged_key_gives_back_that_persons_message_alone(
    start: Start, shell: Shell, query: Query
) -> None:
    vault = {"SQS2PG_VAULT__ENABLED": "true"}
    shell("migrate", **vault)
    with start(**vault) as function:
        assert function.invoke(people(ids(20), 1)).failures == []
    query("CREATE TABLE backup AS SELECT * FROM pii.subject_key")
    [(reference,)] = query(DAMAGE)
    names = ids(20)
    event = people(names, 2)
    with start(**vault, SQS2PG_TELEMETRY__EMF="true") as function:
        assert function.invoke(event).failures == [names[7]]
        assert query("SELECT count(*) FROM user_logins") == [(39,)]
        [counted] = told(function)
        assert counted.pop("faults") > 0
        assert counted == {"received": 20, "written": 19, "released": 1}
        # Alone it goes back as a failed invocation: an answer that names all would be deleted.
        assert gives_all_back(function.invoke({"Records": [event["Records"][7]]}))
        assert function.log.count(reference.hex) == 1
        query("UPDATE pii.subject_key k SET wrapped_key = b.wrapped_key FROM backup b"
              " WHERE b.subject = k.subject")  # fmt: skip
        assert function.invoke(event).failures == []
    assert query("SELECT count(*) FROM user_logins") == [(40,)]
    assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


class S3(ThreadingHTTPServer):
    """Gives a login for each key, and refuses those that it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Objects)
        self.refused: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Objects(BaseHTTPRequestHandler):
    server: S3
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        key = self.path.partition("?")[0].rpartition("/")[2]
        if key in self.server.refused:
            self.send_response(403)
            body = b"<Error><Code>AccessDenied</Code></Error>"
        else:
            self.send_response(200)
            body = login(key, ip=SECRET).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def s3() -> Iterator[S3]:
    with S3() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def pointer(key: str) -> str:
    """A body that names an object, as the extended clients write it."""
    place = {"s3BucketName": "payloads", "s3Key": key}
    return json.dumps(["software.amazon.payloadoffloading.PayloadS3Pointer", place])


@pytest.mark.parametrize("bytes_max", [2**20, 2**27], ids=["one part", "a part for each"])
def test_an_object_that_s3_refuses_gives_back_its_own_message_alone(
    start: Start, query: Query, s3: S3, bytes_max: int
) -> None:
    names = ids(10)
    records = [record(name, pointer(f"u{at}")) for at, name in enumerate(names)]
    envelope = {
        "AWS_ENDPOINT_URL_S3": s3.url,
        "SQS2PG_ENVELOPE__LAYERS": "s3",
        "SQS2PG_ENVELOPE__S3_BUCKETS": "payloads",
        "SQS2PG_ENVELOPE__S3_BYTES_MAX": str(bytes_max),
    }
    s3.refused |= {"u2", "u7"}
    with start(**envelope) as function:
        assert function.invoke({"Records": records}).failures == [names[2], names[7]]
        assert query("SELECT count(DISTINCT user_id) FROM user_logins") == [(8,)]
        assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
        s3.refused.clear()
        assert function.invoke({"Records": [records[2], records[7]]}).failures == []
    assert query("SELECT count(DISTINCT user_id), count(*) FROM user_logins") == [(10, 10)]


def test_a_fault_of_the_settings_raises_and_says_so_without_a_value(
    start: Start, query: Query
) -> None:
    with start() as function:
        query("ALTER TABLE user_logins RENAME TO elsewhere")
        event = batch(dict.fromkeys(ids(2), "u"))
        answer = function.invoke(event)
        assert answer.kind == "error"
        assert answer.body["errorType"] == "SettingsError"
        assert "user_logins does not exist" in answer.body["errorMessage"]
        assert SECRET not in json.dumps(answer.body)
        # After the repair the same sandbox continues.
        query("ALTER TABLE elsewhere RENAME TO user_logins")
        assert function.invoke(event).failures == []


@pytest.mark.parametrize("event", [{}, {"Records": [{"body": SECRET}]}, {"Records": None}, []])
def test_an_event_of_something_else_raises_and_is_not_quoted(start: Start, event: Any) -> None:
    with start() as function:
        answer = function.invoke(event)
        assert answer.kind == "error"
        assert answer.body["errorMessage"] == "the event is not one of an SQS event source mapping"
        assert SECRET not in json.dumps(answer.body) + function.log


def test_a_database_that_is_away_gives_the_whole_batch_back(start: Start) -> None:
    names = ids(2)
    with start(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nowhere") as function:
        answer = function.invoke(batch(dict.fromkeys(names, "u")))
        # An answer that names them all would have Lambda delete them, unless the event source
        # mapping has ReportBatchItemFailures.
        assert gives_all_back(answer)
        assert "postgres_08001" in function.log


def test_the_development_key_is_refused_where_messages_come_from_aws(
    start: Start, shell: Shell, query: Query
) -> None:
    with start(SQS2PG_KEYS__FILE="", AWS_ENDPOINT_URL="") as function:
        answer = function.invoke(batch(dict.fromkeys(ids(1), "u")))
        assert (answer.kind, answer.body["errorType"]) == ("error", "KeyFault")
        assert query("SELECT count(*) FROM user_logins") == [(0,)]


def test_a_message_that_kills_its_sandbox_alone_is_set_aside(start: Start, query: Query) -> None:
    [name] = ids(1)
    event = batch({name: "u"}, ApproximateReceiveCount=9)
    suspect = {"SQS2PG_SOURCE__MAX_RECEIVES": "9"}
    with start(SQS2PG_SINK__STATEMENT_TIMEOUT_S="30", **suspect) as function:
        query(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'"
        )
        query(
            "CREATE TRIGGER hang BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION hang()"
        )
        function.api.offer(event, 30.0)
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: query(sleeping) != [(0,)], during=function.process)
        function.process.send_signal(signal.SIGKILL)
        function.process.wait()
    query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    query("DROP TRIGGER hang ON user_logins")
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "10"
    with start(**suspect) as function:
        assert function.invoke(event).failures == []
    assert query("SELECT message_id, reason FROM sqs2pg.quarantine") == [(name, "kills_worker")]


def test_a_suspect_that_was_cut_before_the_timeout_is_not_taken_for_a_killer(
    start: Start, database: str, query: Query
) -> None:
    [name] = ids(1)
    event = batch({name: "u"}, ApproximateReceiveCount=9)
    with start(SQS2PG_SINK__STATEMENT_TIMEOUT_S="60", SQS2PG_SOURCE__MAX_RECEIVES="9") as function:
        assert function.invoke(batch(dict.fromkeys(ids(1), "before"))).failures == []
        with holding(database, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE"):
            assert gives_all_back(function.invoke(event, timeout_s=8))
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "10"
        assert function.invoke(event).failures == []
    assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u'") == [(1,)]
    assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


def test_a_scheduled_event_does_the_books_upkeep(start: Start, query: Query) -> None:
    days = (
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'sqs2pg.delivery'::regclass ORDER BY 1"
    )
    with start() as function:
        before = query(days)
        query(f"DROP TABLE {max(name for (name,) in before if name[-1].isdigit())}")
        assert query(days) != before
        scheduled = {"detail-type": "Scheduled Event", "source": "aws.events"}
        assert function.invoke(scheduled).failures == []
        assert query(days) == before

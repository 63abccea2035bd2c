"""The main job as its users see it: commands in, rows out, no cleartext anywhere."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql

from sqs2pg.settings.fields import USER_LOGINS
from tests.logins import recurring_login
from tests.shell import told_error
from tests.waiting import wait_for_answer, wait_until

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

TARGET = """CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date date)"""
ROWS = """SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
FROM user_logins ORDER BY user_id, app_version"""
TOKEN = re.compile(r"v1_[0-9a-f]{32}")


def test_demo_sends_drains_verifies_and_counts(bare_shell: Any) -> None:
    result = bare_shell("demo", "--messages", "1000", "--seed", "1", "--json").last
    assert result["sent"] == result["received"] == 1000
    assert result["quarantined"] == 20
    assert result["written"] == 980
    assert result["duplicate"] == result["released"] == 0
    assert result["messages_per_second"] > 0


def test_a_demo_that_is_stopped_says_so_and_that_nothing_is_lost(bare_shell: Any) -> None:
    command = subprocess.Popen(
        [bare_shell.python, "-m", "sqs2pg", "demo", "--messages", "12000"],
        cwd=bare_shell.folder,
        env=bare_shell.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert command.stderr is not None
        # From here on it takes signals; the first batches may be written.
        log = iter(command.stderr.readline, "")
        assert any('"event": "status"' in line for line in log)
        os.killpg(command.pid, signal.SIGINT)
        out, errors = command.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.communicate()
    assert command.returncode == 1, errors
    assert re.search(
        r"^error: stopped early: [\d,]+ of 12,000 messages are written", errors, re.MULTILINE
    )
    assert "balance" not in out + errors


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("starting PostgreSQL", "while the servers started: nothing was sent"),
        ("both are up", "(while the servers started|while the tables were made): nothing was sent"),
        (
            "sending 30,000",
            r"while the logins were sent: at least [\d,]+ of 30,000 logins were sent",
        ),
    ],
)
def test_an_interrupted_demo_says_what_was_done(bare_shell: Any, line: str, said: str) -> None:
    with subprocess.Popen(
        [bare_shell.python, "-m", "sqs2pg", "demo", "--messages", "30000"],
        cwd=bare_shell.folder,
        env=bare_shell.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert any(shown.startswith(line) for shown in demo.stdout)
        demo.send_signal(signal.SIGINT)
        out, errors = demo.communicate(timeout=120)
    assert demo.returncode == 130, errors
    assert re.fullmatch(
        rf"error: stopped {said}\nhint: the servers are stopped and their data is gone.*\n", errors
    )
    assert "balance" not in out


def test_in_a_pipe_the_demo_tells_the_story_and_does_not_log_each_batch(bare_shell: Any) -> None:
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it already
            taken.bind(("127.0.0.1", 9465))
            taken.listen()
        ended = bare_shell("demo", "--messages", "500", "--seed", "2")
    events = [json.loads(line)["event"] for line in ended.err.splitlines()]
    assert events == ["status", "consuming", "stopped"]
    assert "draining the queue" in ended.out
    assert not re.search(r" $", ended.out, re.MULTILINE)
    # Masked rows, devices that recur, and books that balance.
    assert TOKEN.search(ended.out)
    assert re.search(r"logins by masked device \([1-9]\d* of \d+ devices came back\)", ended.out)
    assert "sent 500 = written 490 + quarantined 10: yes" in ended.out
    assert "the books balance" in ended.out
    logged = bare_shell("demo", "--messages", "100", "--seed", "2", "-v").err
    assert '"event": "batch"' in logged
    assert '"event": "message quarantined"' in logged


@pytest.mark.skipif(sys.platform != "linux", reason="the fast queue server stands on epoll")
def test_demo_and_run_have_a_fast_queue_server(bare_shell: Any) -> None:
    ended = bare_shell("demo", "--local=fast", "--messages", "2000", "--seed", "1", "--json")
    assert ended.last["written"] == 1_960
    fifo = {"SQS2PG_SOURCE__QUEUE": "logins.fifo"}
    ended = bare_shell("demo", "--local=fast", "--messages", "100", "--seed", "1", "--json", **fifo)
    assert ended.last["written"] == 98
    ended = bare_shell("run", "--local=fast", "--drain", "--json", **fifo)
    assert ended.last["received"] == 0
    elsewhere = {"SQS2PG_SOURCE__QUEUE": "arn:aws:sqs:eu-central-1:123456789012:logins"}
    said = bare_shell.error("run", "--local=fast", "--drain", code=2, **elsewhere)
    assert "SQS2PG_SOURCE__QUEUE=logins" in said
    assert "--local" in bare_shell.error("run", "--local=quick", "--drain", code=2)


def test_an_example_with_a_state_table_runs_on_embedded_servers(bare_shell: Any) -> None:
    file = Path(__file__).parents[2] / "examples/order-state/sqs2pg.toml"
    ended = bare_shell("run", "--local", "-c", str(file), "--drain", "--json")
    assert ended.last["received"] == 0


def test_demo_survives_a_kill_of_its_consumer(bare_shell: Any) -> None:
    ended = bare_shell("demo", "--chaos", "--messages", "1000", "--seed", "3")
    assert "killed with SIGKILL" in ended.out
    assert "sent 1,000 = written 980 + quarantined 20: yes" in ended.out
    assert "the books balance" in ended.out


def test_demo_takes_names_table_and_batches_from_a_file(bare_shell: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    fields = "\n".join(
        f'[[field]]\nsource = "{field.source}"\n'
        + "".join(
            f"{key} = {json.dumps(value)}\n"
            for key, value in msgspec.to_builtins(field).items()
            if key != "source" and value not in (None, "", [])
        )
        for field in USER_LOGINS
    )
    file.write_text(
        'name = "mine"\n[source]\nqueue = "not-touched"\n[keys]\nprovider = "aws-kms"\n'
        'kms_key = "alias/not-asked"\nfile = "nowhere"\n'
        '[sink]\ntable = "my_logins"\ndsn = "host=nowhere.invalid"\nbatch_rows_max = 70\n' + fields
    )
    shown = bare_shell("demo", "-c", str(file), "--chaos", "--messages", "300", "--seed", "2").out
    assert "my_logins, as analysts see it:" in shown
    assert "killed with SIGKILL" in shown
    assert "sent 300 = written 294 + quarantined 6: yes" in shown


@pytest.mark.parametrize(
    "text",
    [
        '[[field]]\nsource = "order"\ncolumn = "order_no"\n',
        'explode = "items"\n',
        '[envelope]\nlayers = ["sns"]\n',
    ],
)
def test_demo_refuses_a_mapping_that_logins_do_not_fit(
    bare_shell: Any, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "other.toml"
    file.write_text(text)
    said = bare_shell.error("demo", "-c", str(file), code=2)
    assert "is not that of the logins" in said
    assert "hint: start it with `sqs2pg run --local -c" in said


@pytest.mark.usefixtures("migrated_database")
def test_drain_writes_rows_quarantines_bad_ones_and_empties_the_queue(
    shell: Any, query: Query, send: Send, sqs: Any, queue_url: str
) -> None:
    bodies = [recurring_login(i) for i in range(120)]
    bodies[7:7] = [
        "not json",
        '{"foo": "oops"}',
        recurring_login(1, ip="1.2.3"),
        recurring_login(2, app_version=3),
    ]
    send(bodies)
    result = shell("run", "--drain", "--json").last
    assert (result["received"], result["written"], result["quarantined"]) == (124, 120, 4)
    rows = query(ROWS)
    assert [row[0] for row in rows] == [f"user-{i:05}" for i in range(120)]
    assert all(TOKEN.fullmatch(row[2]) and TOKEN.fullmatch(row[3]) for row in rows)
    assert Counter(row[5] for row in rows) == {2_003_000: 120}
    by_device = Counter(row[3] for row in rows)
    assert sorted(by_device.values()) == sorted(Counter(i % 13 for i in range(120)).values())
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    counts = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    assert set(counts.values()) == {"0"}
    assert shell("verify", "--json").last == {
        "ok": True,
        "written": 120,
        "duplicate": 0,
        "quarantined": 4,
        "differences": [],
    }
    listed = shell("quarantine", "list", "--json").last
    assert Counter(entry["reason"] for entry in listed) == {
        "not_json": 1,
        "missing_field": 1,
        "bad_ip": 1,
        "wrong_type": 1,
    }
    assert {"id", "message_id", "reason", "attempts", "received_at"} <= set(listed[0])
    shown = shell("quarantine", "show", str(listed[0]["id"]), "--json").last
    assert shown["message_id"] == listed[0]["message_id"]


def test_existing_target_with_rows_is_left_as_it_is(shell: Any, query: Query, send: Send) -> None:
    query(TARGET)
    query("INSERT INTO user_logins VALUES ('old', 'x', 'hash', 'hash', 'RU', 2, '2020-01-01')")
    before = query(
        "SELECT column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_name = 'user_logins' ORDER BY 1"
    )
    shell("migrate")
    send([recurring_login(i) for i in range(5)])
    shell("run", "--drain")
    after = query(
        "SELECT column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_name = 'user_logins' ORDER BY 1"
    )
    assert before == after
    assert query("SELECT count(*) FROM user_logins") == [(6,)]
    assert query("SELECT masked_ip FROM user_logins WHERE user_id = 'old'") == [("hash",)]
    assert shell("verify", "--json").last["ok"] is True


@pytest.mark.usefixtures("migrated_database")
def test_tokens_follow_the_key_and_nothing_else(
    shell: Any, query: Query, send: Send, tmp_path: Path
) -> None:
    send([recurring_login(1)])
    shell("run", "--drain")
    send([recurring_login(1)])
    shell("run", "--drain")
    again = query("SELECT DISTINCT masked_ip, masked_device_id FROM user_logins")
    assert len(again) == 1, "two runs under one key must give one token"

    query("DROP SCHEMA sqs2pg, pii CASCADE")
    query("DROP TABLE user_logins")
    other = {"SQS2PG_KEYS__FILE": str(tmp_path / "other.keys")}
    shell("keys", "init", **other)
    shell("migrate", **other)
    send([recurring_login(1)])
    shell("run", "--drain", **other)
    [(ip, device)] = query("SELECT masked_ip, masked_device_id FROM user_logins")
    assert (ip, device) != again[0]
    assert ip != again[0][0]
    assert device != again[0][1]


@pytest.mark.usefixtures("migrated_database")
def test_another_key_than_the_recorded_one_is_refused(shell: Any, tmp_path: Path) -> None:
    shell("run", "--drain")
    other = {"SQS2PG_KEYS__FILE": str(tmp_path / "other.keys")}
    shell("keys", "init", **other)
    said = shell.error("run", "--drain", code=2, **other)
    assert "not the one on record" in said


def test_no_cleartext_in_database_logs_or_output(
    shell: Any, database: str, send: Send, server_logs: Callable[[], str]
) -> None:
    secrets = {"ip": "203.0.113.77", "device_id": "901-23-4567"}
    shell("migrate")
    bad = "canary-4b1d"
    bodies = [recurring_login(1, **secrets), recurring_login(2, **secrets), f"{bad} not json"]
    bodies += [
        recurring_login(3, ip=bad),
        recurring_login(4, device_id=[bad]),
        recurring_login(5, app_version=bad),
    ]
    bodies += [recurring_login(6, create_date=bad), recurring_login(7, device_type=bad * 20)]
    send([*bodies, recurring_login(8, locale=bad + "\x00")])
    result = shell("run", "--drain", "--verbose", "--json").last
    assert (result["written"], result["quarantined"]) == (2, 7)
    shell("verify")
    shell("quarantine", "list")
    everything = dump(database) + "".join(shell.transcript) + server_logs()
    assert "v1_" in everything
    for secret in (*secrets.values(), bad):
        assert secret not in everything
        assert secret.encode().hex() not in everything


def dump(database: str) -> str:
    """Every row of every table, as text."""
    parts: list[str] = []
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert ("sqs2pg", "quarantine") in tables
        for table in tables:
            with (
                connection.cursor() as cursor,
                cursor.copy(
                    sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(*table))
                ) as copy,
            ):
                parts += [bytes(block).decode() for block in copy]
    return "".join(parts)


def test_a_mapping_of_one_s_own_is_read_from_toml(
    shell: Any, query: Query, send: Send, tmp_path: Path
) -> None:
    (tmp_path / "sqs2pg.toml").write_text(
        """
unknown_fields = "quarantine"
[sink]
table = "shop.orders"
[[field]]
source = "order"
column = "order_no"
required = true
length_max = 10
[[field]]
source = "mail"
column = "mail_token"
mask = "pseudonymize"
domain = "person"
[[field]]
source = "note"
column = "note"
mask = "redact"
[[field]]
source = "client"
column = "client_major"
type = "major"
default = 0
"""
    )
    query("CREATE SCHEMA shop")
    shell("migrate")
    send(
        [
            json.dumps({"order": "A1", "mail": "a@b.example", "note": "hello", "client": "7.1"}),
            json.dumps({"order": "A2", "mail": "a@b.example"}),
            json.dumps({"order": "A3", "more": 1}),
            json.dumps({"order": "A-much-too-long"}),
        ]
    )
    result = shell("run", "--drain", "--json").last
    assert (result["written"], result["quarantined"]) == (2, 2)
    first, second = query("SELECT * FROM shop.orders ORDER BY order_no")
    assert first[0] == "A1"
    assert first[1] == second[1]
    assert TOKEN.fullmatch(first[1])
    assert first[2] == "[redacted]"
    assert second[2] is None
    assert (first[3], second[3]) == (7, 0)
    reasons = {entry["reason"] for entry in shell("quarantine", "list", "--json").last}
    assert reasons == {"unknown_field", "too_long"}


def test_sha256_with_consent_is_the_old_output(
    shell: Any, query: Query, send: Send, tmp_path: Path
) -> None:
    fields = "\n".join(
        f'[[field]]\nsource = "{source}"\ncolumn = "{column}"\n{more}'
        for source, column, more in [
            ("user_id", "user_id", "required = true"),
            ("ip", "masked_ip", 'mask = "sha256"'),
            ("device_id", "masked_device_id", 'mask = "sha256"'),
        ]
    )
    (tmp_path / "sqs2pg.toml").write_text(f"i_accept_reversible = true\n{fields}")
    query(TARGET)
    shell("migrate")
    send([recurring_login(1, ip=" not even an ip", device_id="593-47-5928")])
    shell("run", "--drain")
    [(ip, device)] = query("SELECT masked_ip, masked_device_id FROM user_logins")
    assert ip == hashlib.sha256(b" not even an ip").hexdigest()
    assert device == hashlib.sha256(b"593-47-5928").hexdigest()
    (tmp_path / "sqs2pg.toml").write_text(fields)
    assert "reversible" in shell.error("run", "--drain", code=2)


@pytest.mark.usefixtures("migrated_database")
def test_workers_share_one_queue(shell: Any, query: Query, send: Send) -> None:
    send([recurring_login(i) for i in range(300)])
    result = shell("run", "--drain", "--workers", "2", "--json").last
    assert result["received"] == result["written"] == 300
    assert query("SELECT count(*), count(DISTINCT user_id) FROM user_logins") == [(300, 300)]


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_drain_says_how_many_messages_are_left_isolated(
    shell: Any, query: Query, send: Send, workers: int
) -> None:
    query("""CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.user_id = 'u7' THEN PERFORM FROM missing_table; END IF; RETURN NEW; END $$;
        CREATE TRIGGER reads BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION reads()""")
    send([json.dumps({"user_id": f"u{i}", "ip": "203.0.113.77"}) for i in range(20)])
    ended = shell("run", "--drain", "--json", "--workers", str(workers), code=1)
    assert (ended.last["written"], ended.last["isolated"]) == (19, 1)
    told = told_error(ended.err)
    assert "error: 1 message is left that PostgreSQL does not take" in told
    assert "hint: the log names them" in told
    assert "203.0.113.77" not in ended.out + ended.err
    [event] = [line for line in ended.err.splitlines() if "messages are isolated" in line][:1]
    assert "postgres_42P01" in event
    assert "public.user_logins" in event
    assert query("SELECT count(*) FROM user_logins") == [(19,)]
    assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]
    assert shell("verify", "--json").last["ok"]


@pytest.mark.usefixtures("migrated_database")
def test_workers_answer_at_one_status_address(shell: Any, send: Send) -> None:
    with shell.serving("--workers", "2") as address:
        report = wait_for_answer(f"{address}/livez", lambda text: text.count("last_poll_s") == 2)
        assert json.loads(report)["ok"] is True
        send([recurring_login(i) for i in range(300)])
        written = 'sqs2pg_messages_outcome_total{outcome="written",pipeline="user_logins"} 300.0'
        wait_for_answer(f"{address}/metrics", lambda text: written in text)


@pytest.mark.usefixtures("migrated_database")
def test_a_fault_of_keys_has_its_exit_code_with_workers_too(shell: Any, tmp_path: Path) -> None:
    missing = {"SQS2PG_KEYS__FILE": str(tmp_path / "missing.keys")}
    said = shell("run", "--workers", "2", "--drain", code=2, **missing).err
    *of_workers, last = map(json.loads, said.splitlines())
    assert {line["code"] for line in of_workers if line["level"] == "error"} == {"key_missing"}
    assert re.fullmatch(r"worker [01] stopped with exit code 2", last["event"])
    assert (last["level"], last["exit_code"]) == ("error", 2)


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize("workers", [1, 2])
def test_one_interrupt_of_the_group_is_one_request_and_a_second_one_to_a_lone_process_is_two(
    shell: Any, query: Query, send: Send, sqs: Any, queue_url: str, workers: int
) -> None:
    query("BEGIN")
    query("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
    command = subprocess.Popen(
        [shell.python, "-m", "sqs2pg", "run", "--json", "--workers", str(workers)],
        cwd=shell.folder,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        send([recurring_login(i) for i in range(40)])
        wait_until(lambda: _in_flight(sqs, queue_url) == 40)
        os.killpg(command.pid, signal.SIGINT)  # as a terminal does; the parent relays its own
        if workers == 1:
            os.killpg(command.pid, signal.SIGTERM)
            assert command.wait(timeout=20) == 1, "asked twice: at once"
            return
        # Bounded by an event that must not happen: an end with messages still held.
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(timeout=1.5)
        query("ROLLBACK")
        out, errors = command.communicate(timeout=60)
        assert command.returncode == 0, errors
        totals = json.loads(out.splitlines()[-1])
        assert (totals["written"], totals["released"]) == (40, 0)
        assert query("SELECT count(*) FROM user_logins") == [(40,)]
        wait_until(lambda: _in_flight(sqs, queue_url) == 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.communicate()


def _in_flight(sqs: Any, queue_url: str) -> int:
    """How many messages of the queue are in flight."""
    name = "ApproximateNumberOfMessagesNotVisible"
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=[name])
    return int(answer["Attributes"][name])


EXAMPLES = """
[sink]
table = "orders"
[[field]]
source = "order_id"
column = "order_id"
[[field]]
source = "attribute:shop"
column = "shop"
[[example]]
input = { order_id = "o-1" }
row = { order_id = "o-1", shop = "north" }
attributes = { shop = "north" }
[[example]]
input = "not json"
fault = "not_json"
[[example]]
input = '{"pointer": 1}'
payload = '{"order_id": "o-2"}'
row = { order_id = "o-2" }
"""


def test_send_knows_the_mapping_in_use(
    shell: Any, sqs: Any, queue_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "orders.toml"
    file.write_text(EXAMPLES)
    said = shell.error("send", "-c", str(file), code=2)
    assert "error: the mapping into orders does not read logins" in said
    assert "hint: `sqs2pg send --example` sends the mapping's own examples" in said
    assert shell("send", "-c", str(file), "--example").out == "sent 2 messages\n"
    assert shell("send", "-c", str(file), "--example", "--count", "3", "--json").last["sent"] == 3
    found: list[tuple[str, str | None]] = []
    while len(found) < 5:
        answer = sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        for message in answer["Messages"]:
            shop = message.get("MessageAttributes", {}).get("shop", {}).get("StringValue")
            found.append((message["Body"], shop))
    assert Counter(found) == {('{"order_id": "o-1"}', "north"): 3, ("not json", None): 2}
    file.write_text('[[field]]\nsource = "order_id"\ncolumn = "order_id"\n')
    assert "have no [[example]]" in shell.error("send", "-c", str(file), "--example", code=2)
    assert "--file goes without" in shell("send", "--file", "x", "--example", code=2).err


@pytest.mark.usefixtures("migrated_database")
def test_a_fifo_queue_takes_what_is_sent_in_its_order(
    shell: Any, query: Query, sqs: Any, tmp_path: Path
) -> None:
    name = f"send-{secrets.token_hex(4)}.fifo"
    url = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"})["QueueUrl"]
    shell.environment["SQS2PG_SOURCE__QUEUE"] = name
    users = [f"user-{number:02}" for number in range(25)]
    lines = tmp_path / "logins.jsonl"
    lines.write_text("".join(json.dumps({"user_id": user}) + "\n" for user in users))
    assert shell("send", "--file", str(lines), "--json").last == {"sent": 25, "refused": 0}
    for _ in range(2):  # the same logins once more are new messages
        assert shell("send", "--count", "3", "--seed", "1", "--json").last["sent"] == 3
    assert shell("run", "--drain", "--json").last["written"] == 31
    assert [user for (user,) in query("SELECT user_id FROM user_logins")][:25] == users
    sqs.delete_queue(QueueUrl=url)


def test_send_puts_lines_of_a_file_on_the_queue(
    shell: Any, sqs_endpoint: str, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        stream.write("".join(recurring_login(i) + "\n" for i in range(25)) + "\n")
    assert shell("send", "--file", str(path), "--json").last == {"sent": 25, "refused": 0}
    shell("migrate")
    assert shell("run", "--drain", "--json").last["written"] == 25

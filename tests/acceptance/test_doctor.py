"""`sqs2pg check` on queue, server and tables: what it reports, and what it accepts."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]


def found(shell: Shell, *arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    report = shell("check", *arguments, "--json", code=code).last
    assert report["ok"] is (code == 0)
    return {one["name"]: one for one in report["checks"]}


@pytest.mark.usefixtures("migrated_database")
def test_a_server_that_logs_parameters_is_reported(shell: Shell, query: Query) -> None:
    assert found(shell)["database log"]["status"] == "ok"
    [(name,)] = query("SELECT current_database()")
    query(f"ALTER DATABASE {name} SET log_min_duration_statement = 0")
    told = found(shell)["database log"]
    assert told["status"] == "warn"
    assert "log_min_duration_statement = 0: statements go" in told["detail"]
    assert "log_parameter_max_length = 0" in told["remedy"]
    query(f"ALTER DATABASE {name} SET log_parameter_max_length = 0")
    assert found(shell)["database log"]["status"] == "ok"


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.usefixtures("emulator")  # its queue may be its own dead-letter queue
def test_a_pipeline_that_can_run_and_a_table_that_changed(
    shell: Shell, query: Query, sqs: Any, queue_url: str
) -> None:
    checks = found(shell)
    for name in (
        *("queue redrive", "queue retention", "queue encryption", "queue visibility timeout"),
        *("queue long polling", "queue permissions", "database durability", "clock"),
        *("database TLS", "database connections", "target user_logins"),
    ):
        assert name in checks, name
    assert checks["queue permissions"]["status"] == "ok"
    assert checks["target user_logins"]["status"] == "ok"

    target = json.dumps({"deadLetterTargetArn": arn(sqs, queue_url), "maxReceiveCount": "2"})
    sqs.set_queue_attributes(
        QueueUrl=queue_url,
        Attributes={"RedrivePolicy": target, "MessageRetentionPeriod": "3600"},
    )
    query(
        "ALTER TABLE user_logins SET UNLOGGED;"
        "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER look BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION look()"
    )
    checks = found(shell)
    for name, words in (
        ("queue redrive", "maxReceiveCount is 2"),
        ("queue retention", "dropped after 0.0 days"),
        ("target user_logins durability", "UNLOGGED"),
        ("target user_logins triggers", "look"),
    ):
        assert checks[name]["status"] == "warn", name
        assert words in checks[name]["detail"]
        assert checks[name]["remedy"]

    [(name,)] = query("SELECT current_database()")
    query("ALTER TABLE user_logins DROP COLUMN locale")
    query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    checks = found(shell, code=1)
    assert checks["target user_logins"]["status"] == "fail"
    assert "no column 'locale'" in checks["target user_logins"]["detail"]
    assert checks["database writes"]["status"] == "fail"


BEAT = """INSERT INTO sqs2pg.worker (id, pipeline, host, pid, version, started_at, heartbeat_at,
    state, batch_s_max) SELECT gen_random_uuid(), id, 'h', 1, '1', now(), now() - %s::interval,
    'running', %s FROM sqs2pg.pipeline"""


def test_the_visibility_timeout_is_held_against_the_longest_batch(
    shell: Shell, query: Query
) -> None:
    assert found(shell, code=1)["queue batch time"]["status"] == "warn"  # nothing is migrated yet
    shell("migrate")
    assert "no worker runs" in found(shell)["queue batch time"]["detail"]
    query(BEAT, "0 s", 0)
    assert "none has committed" in found(shell)["queue batch time"]["detail"]
    for longest in (1.0, 11.25):
        query(BEAT, "0 s", longest)
    query(BEAT, "90 s", 500.0)  # left by a worker that is gone
    slow = found(shell)["queue batch time"]
    assert slow["status"] == "warn"
    assert "the longest batch of 3 workers took 11.2 s; receives ask for 60 s" in slow["detail"]
    assert "visibility_timeout_s to 68 or more" in slow["remedy"]
    shell.environment["SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S"] = "68"
    assert found(shell)["queue batch time"]["status"] == "ok"


STATE = """
[sink]
table = "orders"
mode = "upsert"
key = ["order_id"]
{more}
[[field]]
source = "id"
column = "order_id"
[[field]]
source = ["sqs:SentTimestamp"]
column = "sent_ms"
type = "bigint"
[[field]]
source = "state"
column = "state"
"""


@pytest.mark.usefixtures("emulator")  # its queue may be its own dead-letter queue
def test_the_doctor_knows_state_tables(
    shell: Shell, query: Query, sqs: Any, queue_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "orders.toml"
    shell.environment["SQS2PG_CONFIG"] = str(file)
    file.write_text(STATE.format(more=""))
    shell("migrate")  # neither makes the index nor refuses
    key = found(shell, code=1)["target orders key"]
    assert key["status"] == "fail"
    for word in ("key", "order_id", "unique"):
        assert word in key["detail"]
    statement = key["remedy"].partition(";")[0]
    assert statement == 'CREATE UNIQUE INDEX CONCURRENTLY ON "orders" ("order_id")'
    refused = json.loads(shell("run", "--drain", code=2).err.splitlines()[-1])
    for word in ("key", "order_id", "unique"):
        assert word in refused["event"]
    assert statement in refused["hint"]
    query(statement)
    checks = found(shell)
    assert checks["target orders key"]["status"] == "ok"
    assert "the later commit wins" in checks["target orders order"]["detail"]
    assert "fillfactor 100" in checks["target orders updates"]["detail"]

    query(checks["target orders updates"]["remedy"])
    query("CREATE INDEX by_time ON orders (sent_ms)")
    file.write_text(STATE.format(more='newer = "sent_ms"'))
    checks = found(shell)
    assert "target orders order" not in checks
    assert "index by_time has sent_ms" in checks["target orders updates"]["detail"]
    query(checks["target orders updates"]["remedy"].partition(",")[0])
    redrive = json.dumps({"deadLetterTargetArn": arn(sqs, queue_url), "maxReceiveCount": "10"})
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"RedrivePolicy": redrive})
    checks = found(shell)
    assert "target orders updates" not in checks
    assert "dates messages anew" in checks["target orders order"]["detail"]

    query("ALTER TABLE orders ALTER sent_ms TYPE text")
    file.write_text(STATE.format(more='newer = "state"'))
    assert "letter by letter" in found(shell)["target orders order"]["detail"]


@pytest.mark.parametrize(
    "more", ["", "keep_if_null = true", "delete_when = { field = 'state', equals = 'gone' }"]
)
def test_the_grants_of_a_state_table_are_enough(
    shell: Shell, query: Query, database: str, send: Send, tmp_path: Path, more: str
) -> None:
    file = tmp_path / "orders.toml"
    shell.environment["SQS2PG_CONFIG"] = str(file)
    file.write_text(STATE.format(more=f'newer = "sent_ms"\n{more}'))
    shell("migrate")
    query("ALTER TABLE orders ADD PRIMARY KEY (order_id)")
    [(name,)] = query("SELECT current_database()")
    role = f"pipeline_{secrets.token_hex(4)}"
    query(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; REVOKE ALL ON orders FROM PUBLIC")
    query("REVOKE SELECT, UPDATE, DELETE ON orders FROM sqs2pg_ingest")
    query(f"CREATE ROLE {role} LOGIN PASSWORD 'x' IN ROLE sqs2pg_ingest")
    try:
        shell.environment["DATABASE_URL"] = login_url(database, role)
        writing = found(shell, code=1)["writing"]
        assert "may not make temporary tables" in writing["detail"]
        query(writing["remedy"])
        writing = found(shell, code=1)["writing"]
        assert "SELECT on order_id" in writing["detail"]
        assert "UPDATE on sent_ms, state" in writing["detail"]
        assert ("DELETE" in writing["detail"]) is ("delete_when" in more)
        query(writing["remedy"])
        assert found(shell)["writing"]["status"] == "ok"
        query(f"REVOKE ALL ON orders FROM {role}; REVOKE TEMPORARY ON DATABASE {name} FROM {role}")
        emitted = shell("check", "--emit-sql").out
        query(emitted.replace("CREATE ROLE pipeline LOGIN", "SELECT").replace("pipeline", role))
        assert found(shell)["writing"]["status"] == "ok"
        send([json.dumps({"id": "a", "state": "new"}), json.dumps({"id": "a", "state": None})])
        done = shell("run", "--drain", "--json").last
        assert (done["written"], done["rows_inserted"]) == (2, 1)
        assert done["rows_updated"] + done["rows_superseded"] == 1
        if "delete_when" in more:
            send([json.dumps({"id": "a", "state": "gone"})])
            assert shell("run", "--drain", "--json").last["rows_deleted"] == 1
        shell.environment["DATABASE_URL"] = database
        assert shell("verify", "--json").last["ok"]
    finally:
        query(f"REVOKE TEMPORARY ON DATABASE {name} FROM sqs2pg_ingest; DROP OWNED BY {role}")
        query(f"DROP ROLE {role}")


def login_url(database: str, role: str) -> str:
    return re.sub("//[^@]*@", f"//{role}:x@", database)


def test_doctor_warns_of_a_column_that_merges_people_or_cannot_hold_a_random_id(
    shell: Shell, query: Query
) -> None:
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    shell("migrate")
    assert "target user_logins people" not in found(shell)
    query("ALTER TABLE user_logins ALTER user_id TYPE bigint USING 0")
    people = found(shell)["target user_logins people"]
    assert people["status"] == "warn"
    assert "7 and 007 are one there" in people["detail"]
    for kind, words in (("uuid", 'set type = "uuid"'), ("inet", "keep the id in a column of te")):
        query(f"ALTER TABLE user_logins ALTER user_id TYPE {kind} USING NULL")
        target = found(shell, code=1)["target user_logins"]
        assert target["status"] == "fail"
        assert words in target["remedy"]
    del shell.environment["SQS2PG_VAULT__ENABLED"]
    assert found(shell)["target user_logins"]["status"] == "ok"


def arn(sqs: Any, queue_url: str) -> str:
    found = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return str(found["Attributes"]["QueueArn"])


@pytest.mark.usefixtures("migrated_database")
def test_a_sample_is_masked_and_leaves_everything_as_it_was(
    shell: Shell, query: Query, sqs: Any, queue_url: str, send: Send
) -> None:
    logins = [
        {"user_id": f"u{i}", "ip": f"198.51.100.{i}", "device_id": "d-4711"} for i in range(3)
    ]
    send([*map(json.dumps, logins), "not json"])
    report = shell("check", "--sample", "10", "--json").last
    sample = report["sample"]
    assert (sample["messages"], sample["faults"]) == (4, {"not_json": 1})
    assert {row["user_id"] for row in sample["rows"]} == {"u0", "u1", "u2"}
    assert len({row["masked_device_id"] for row in sample["rows"]}) == 1
    ended = shell("check", "--sample", "10")
    assert "v1_" in ended.out
    for canary in ("198.51.100.", "d-4711"):
        assert canary not in ended.out + ended.err + json.dumps(report)
    assert query("SELECT count(*) FROM user_logins") == [(0,)]
    assert query("SELECT count(*) FROM sqs2pg.delivery") == [(0,)]
    waiting = sqs.get_queue_attributes(
        QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages"]
    )
    assert waiting["Attributes"]["ApproximateNumberOfMessages"] == "4"


def test_check_prints_the_iam_policy_that_is_needed(shell: Shell, sqs: Any, queue_url: str) -> None:
    policy = json.loads(shell("check", "--emit-iam").out)
    [statement] = policy["Statement"]
    assert statement["Resource"] == arn(sqs, queue_url)
    assert set(statement["Action"]) == {
        *("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"),
        *("sqs:GetQueueAttributes", "sqs:GetQueueUrl"),
    }
    with_payloads = shell(
        *("check", "--emit-iam"),
        SQS2PG_ENVELOPE__LAYERS="s3",
        SQS2PG_ENVELOPE__S3_DELETE="true",
        SQS2PG_ENVELOPE__S3_BUCKETS="large-bodies",
    )
    assert "s3:DeleteObject" in with_payloads.out
    assert "arn:aws:s3:::large-bodies/*" in with_payloads.out
    with_objects = shell(
        *("check", "--emit-iam"),
        SQS2PG_ENVELOPE__LAYERS="s3_event",
        SQS2PG_ENVELOPE__S3_BUCKETS="one,two",
    )
    granted = {one["Sid"]: one for one in json.loads(with_objects.out)["Statement"][1:]}
    buckets = ["arn:aws:s3:::one", "arn:aws:s3:::two"]
    assert granted["Objects"]["Action"] == ["s3:GetObject", "s3:GetObjectVersion"]
    assert granted["Objects"]["Resource"] == [f"{one}/*" for one in buckets]
    assert granted["ObjectsMissing"]["Resource"] == buckets
    assert granted["ObjectsEncrypted"]["Action"] == "kms:Decrypt"
    [(_, via)] = granted["ObjectsEncrypted"]["Condition"]["StringLike"].items()
    assert via == "s3.*.amazonaws.com", "only through S3"
    sql = shell("check", "--emit-sql").out
    assert "GRANT sqs2pg_ingest TO pipeline" in sql
    assert 'GRANT INSERT ON "user_logins" TO sqs2pg_ingest' in sql


def test_the_grants_are_enough_for_a_table_in_a_schema_with_a_sequence(
    shell: Shell, query: Query, database: str, send: Send
) -> None:
    query("CREATE SCHEMA logs")
    query("CREATE TABLE logs.visit (id bigserial, user_id text)")
    (shell.folder / "sqs2pg.toml").write_text(
        '[sink]\ntable = "logs.visit"\n[[field]]\nsource = "user_id"\ncolumn = "user_id"\n'
    )
    sql = shell("check", "--emit-sql").out
    assert 'GRANT USAGE ON SCHEMA "logs" TO sqs2pg_ingest' in sql
    shell("migrate")
    login, rest = f"role_{secrets.token_hex(6)}", database.partition("@")[2]
    query(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE sqs2pg_ingest")
    try:
        send(['{"user_id": "u1"}'])
        as_login = {"DATABASE_URL": f"postgresql://{login}:x@{rest}"}
        assert shell("check", "--json", **as_login).last["ok"]
        assert shell("run", "--drain", "--json", **as_login).last["written"] == 1
    finally:
        query(f"DROP ROLE {login}")


PARTITIONED = """CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
    masked_device_id varchar(256), locale varchar(32), app_version integer, create_date {kind})
    PARTITION BY RANGE (create_date)"""
PART = """DO $$ BEGIN EXECUTE format(
    'CREATE TABLE p{ahead} PARTITION OF user_logins FOR VALUES FROM (%L) TO (%L)',
    (now() AT TIME ZONE 'UTC')::date + {ahead}, (now() AT TIME ZONE 'UTC')::date + {ahead} + 1);
    END $$"""


@pytest.mark.parametrize("kind", ["date", "timestamptz", "timestamp"])
def test_a_partitioned_table_without_a_partition_for_today_or_tomorrow(
    shell: Shell, query: Query, kind: str
) -> None:
    query("SET timezone = 'UTC'; " + PARTITIONED.format(kind=kind))
    shell("migrate")
    [(today, tomorrow)] = query(
        "SELECT d::text, (d + 1)::text FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS d) t"
    )
    name = "target user_logins partitions"
    without = found(shell)[name]
    assert without["status"] == "warn"
    assert f"no partition holds {today} and {tomorrow} (UTC)" in without["detail"]
    assert f"FROM ('{today}')" in without["remedy"]
    query("SET timezone = 'UTC'; " + PART.format(ahead=0))
    assert f"no partition holds {tomorrow} (UTC)" in found(shell)[name]["detail"]
    query("SET timezone = 'UTC'; " + PART.format(ahead=1))
    assert name not in found(shell)
    query("DROP TABLE p0; CREATE TABLE rest PARTITION OF user_logins DEFAULT")
    assert name not in found(shell), "the default partition takes what no other does"


@pytest.mark.usefixtures("migrated_database")
def test_a_table_that_is_not_partitioned_by_days_is_let_be(shell: Shell, query: Query) -> None:
    query("DROP TABLE user_logins")
    query(PARTITIONED.format(kind="date").replace("(create_date)", "(user_id)"))
    assert not [name for name in found(shell) if name.endswith("partitions")]

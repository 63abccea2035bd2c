"""The pipeline through PgBouncer in transaction mode, which needs no special setting.

Each transaction may get another server connection, and the fixture's pooler sees to it that it
does: nothing may be left in a session, be it a setting, a lock, a prepared statement or rows of a
temporary table.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import load
from tests.waiting import wait_until

pytestmark = pytest.mark.system

COUNT = 2_000
BAD = 20
SEED = 6432
WITHIN_S = 60.0
"""A pause reaches workers within 5 s; the machine of a test may do much else."""
DAYS = """SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'sqs2pg.delivery'::regclass"""

# Without the two that PgBouncer sets itself, as every client may send them.
SESSION = """SELECT (SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
        WHERE source = 'session' AND name NOT IN ('application_name', 'client_encoding')),
       (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"""


@pytest.fixture
def query(postgres15: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Run SQL in the test's database, past the pooler."""

    def run(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres15) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def shell(make_shell: Callable[[str], Any], pgbouncer: str) -> Any:
    """The shell of a pipeline that gets to its database through the pooler."""
    return make_shell(pgbouncer)


@pytest.fixture
def left_in_sessions(pgbouncer: str, pooler: Any) -> Callable[[], set[tuple[Any, ...]]]:
    """What the pooler's server sessions keep beyond their transactions; each is queried twice."""

    def find() -> set[tuple[Any, ...]]:
        found: set[tuple[Any, ...]] = set()
        with psycopg.connect(pgbouncer) as connection:
            for _ in range(2 * pooler.size):
                found.update(connection.execute(SESSION).fetchall())
                connection.rollback()
        return found

    return find


def good_users() -> list[tuple[str]]:
    """The users of the well-formed logins: those that are the same where none is bad."""
    all_good = logins(COUNT, seed=SEED, bad_share=0)
    some_bad = logins(COUNT, seed=SEED, bad_share=BAD / COUNT)
    pairs = zip(all_good, some_bad, strict=True)
    return [(json.loads(good)["user_id"],) for good, sent in pairs if good == sent]


def write_logins(path: Path, count: int, bad_share: float) -> str:
    """Write a file of message bodies for `send`; return its path."""
    path.write_text("\n".join(logins(count, seed=SEED, bad_share=bad_share)))
    return str(path)


def test_the_pooler_hands_the_transactions_of_one_client_to_different_servers(
    pgbouncer: str,
) -> None:
    backend = "SELECT pg_backend_pid()"
    with psycopg.connect(pgbouncer) as first, psycopg.connect(pgbouncer) as second:
        both = {client.execute(backend).fetchone() for client in (first, second)}
        assert len(both) == 2, "two open transactions have a server each"
        first.rollback()
        second.rollback()
        seen = set()
        for _ in range(4):
            seen.add(first.execute(backend).fetchone())
            first.rollback()
        assert seen == both


def test_migrate_drain_and_verify(
    shell: Any, left_in_sessions: Callable[[], Any], query: Callable[..., Any], tmp_path: Path
) -> None:
    done = shell("migrate").out
    assert "applied migration 0001" in done
    assert shell("migrate").out != done, "a second time there is nothing to apply"
    bodies = write_logins(tmp_path / "logins.jsonl", COUNT, BAD / COUNT)
    assert shell("send", "--file", bodies, "--json").last == {"sent": COUNT, "refused": 0}
    result = shell("run", "--drain", "--workers", "2", "--json").last
    assert result["received"] == COUNT
    assert result["written"] == COUNT - BAD
    assert result["quarantined"] == BAD
    assert result["duplicate"] == result["released"] == 0
    balance = {"ok": True, "written": COUNT - BAD, "duplicate": 0, "quarantined": BAD}
    assert shell("verify", "--json").last == balance | {"differences": []}
    assert len(shell("quarantine", "list", "--json").last) == BAD
    assert {row["active"] for row in shell("keys", "list", "--json").last} == {True}
    assert sorted(query("SELECT user_id FROM user_logins")) == sorted(good_users())
    assert left_in_sessions() == {(None, 0, 0)}


STATE = """[sink]
table = "orders"
mode = "upsert"
key = ["order_id"]
newer = "version"
digest = true
delete_when = { field = "op", equals = "delete" }
batch_rows_max = 50
[[field]]
source = "id"
column = "order_id"
[[field]]
source = "version"
column = "version"
type = "bigint"
"""


def test_versions_meet_in_whatever_session_they_are_staged(
    shell: Any, left_in_sessions: Callable[[], Any], query: Callable[..., Any], tmp_path: Path
) -> None:
    """A session has the staging table of earlier batches, or makes one; none has their rows."""
    (tmp_path / "orders.toml").write_text(STATE)
    shell.environment["SQS2PG_CONFIG"] = str(tmp_path / "orders.toml")
    shell("migrate")
    query("CREATE UNIQUE INDEX ON orders (order_id)")
    bodies = [
        json.dumps({"id": f"o{key}", "version": version, "op": "delete" if key < 20 else "set"})
        if version == 9
        else json.dumps({"id": f"o{key}", "version": version})
        for version in (3, 9, 1, 8, 2, 7)
        for key in range(100)
    ]
    (tmp_path / "orders.jsonl").write_text("\n".join(bodies))
    assert shell("send", "--file", str(tmp_path / "orders.jsonl"), "--json").last["sent"] == 600
    done = shell("run", "--drain", "--workers", "2", "--json").last
    assert (done["written"], done["released"]) == (600, 0)
    assert done["rows_inserted"] - done["rows_deleted"] == 80
    numbers = "rows_inserted", "rows_updated", "rows_superseded", "rows_deleted"
    assert sum(done[name] for name in numbers) == 600
    assert query("SELECT count(*), min(version), max(version) FROM orders") == [(80, 9, 9)]
    assert query("SELECT count(*) FROM sqs2pg.tombstone") == [(20,)]
    assert shell("verify", "--deep", "--json").last["ok"]
    query("UPDATE orders SET version = 8 WHERE order_id = 'o50'")
    assert shell("verify", "--json").last["ok"]
    assert not shell("verify", "--deep", "--json", code=1).last["ok"]
    shell("verify", "--deep", "--accept", "--reason", "corrected by hand")
    assert left_in_sessions() == {(None, 0, 0)}


SECURE = """ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_logins FORCE ROW LEVEL SECURITY;
CREATE POLICY adds ON user_logins FOR INSERT WITH CHECK (user_id <> 'u7');
CREATE POLICY counts ON user_logins FOR SELECT USING (true)"""


def test_rows_that_copy_does_not_write_are_staged_in_any_session(
    shell: Any, left_in_sessions: Callable[[], Any], query: Callable[..., Any], tmp_path: Path
) -> None:
    shell("migrate")
    query(SECURE)
    bodies = [json.dumps({"user_id": f"u{number}"}) for number in range(600)]
    (tmp_path / "logins.jsonl").write_text("\n".join(bodies))
    assert shell("send", "--file", str(tmp_path / "logins.jsonl"), "--json").last["sent"] == 600
    batches = {"SQS2PG_SINK__BATCH_ROWS_MAX": "50"}
    done = shell("run", "--drain", "--workers", "2", "--json", **batches).last
    assert (done["written"], done["quarantined"], done["released"]) == (599, 1, 0)
    assert query("SELECT count(*), count(DISTINCT user_id) FROM user_logins") == [(599, 599)]
    assert shell("verify", "--json").last["ok"]
    assert left_in_sessions() == {(None, 0, 0)}


def test_a_backfill_claim_ends_with_its_transaction(
    shell: Any, left_in_sessions: Callable[[], Any], tmp_path: Path
) -> None:
    shell("migrate")
    files = [write_logins(tmp_path / f"{part}.jsonl", COUNT, part / 100) for part in range(3)]
    done = shell("backfill", *files, "--json").last
    assert (done["files"], done["lines"]) == (3, 3 * COUNT)
    assert left_in_sessions() == {(None, 0, 0)}
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"user_id": "u"}\n' * 99)[:-9])
    shell.error("backfill", str(tmp_path / "cut.jsonl.gz"), code=1)
    assert left_in_sessions() == {(None, 0, 0)}
    assert shell("backfill", *files, "--json").last["skipped"] == 3


def test_people_are_shown_rekeyed_and_erased(
    shell: Any, left_in_sessions: Callable[[], Any], query: Callable[..., Any], tmp_path: Path
) -> None:
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    shell("migrate")
    shell("send", "--file", write_logins(tmp_path / "logins.jsonl", 100, 0))
    shell("run", "--drain")
    (one,), (two,) = query("SELECT DISTINCT user_id FROM user_logins ORDER BY 1 LIMIT 2")
    found = shell("reveal", "--user", one, "--all", "--reason", "a test", "--json").last
    assert found["rows"]["public.user_logins"]
    assert len(found["values"]) >= 2
    shell("keys", "rotate", "pseudonym")
    assert shell("keys", "rekey", "--json").last["rows_left"] == 0
    names = f"{one}\n{two}\nnobody\n"
    report = shell("forget", "-", "--reason", "a test", "--json", stdin=names).last
    assert (report["found"], report["not_found_lines"]) == (2, [3])
    assert query(f"SELECT count(*) FROM user_logins WHERE user_id IN ('{one}', '{two}')") == [(0,)]
    assert shell("verify", "--json").last["ok"] is True
    assert left_in_sessions() == {(None, 0, 0)}
    assert query("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == [(0,)]


def test_ledger_days_that_are_missing_are_attached_by_a_running_pipeline(
    shell: Any, query: Callable[..., Any], tmp_path: Path
) -> None:
    shell("migrate")
    today = datetime.now(UTC).date()
    lost = {f"delivery_{today + timedelta(days=ahead):%Y%m%d}" for ahead in (0, 1)}
    before = {name for (name,) in query(DAYS)}
    assert lost < before
    query(";".join(f"DROP TABLE sqs2pg.{name}" for name in lost))
    shell("send", "--file", write_logins(tmp_path / "logins.jsonl", 100, 0))
    result = shell("run", "--drain", "--workers", "2", "--json").last
    assert (result["written"], result["quarantined"], result["released"]) == (100, 0, 0)
    assert lost & {name for (name,) in query(DAYS)}, "the messages had to go somewhere"
    shell("migrate")
    assert before <= {name for (name,) in query(DAYS)}
    assert shell("verify", "--json").last["ok"] is True


async def test_a_batch_attaches_the_day_it_needs(
    make_shell: Callable[[str], Any],
    pgbouncer: str,
    queue_url: str,
    query: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """A day so far ahead that neither `migrate` nor upkeep has made it: by the writer itself."""
    make_shell(pgbouncer)("migrate")
    overrides = {
        "source": {"queue": queue_url},
        "sink": {"dsn": pgbouncer},
        "keys": {"file": str(tmp_path / "sqs2pg.keys")},
    }
    sent_at = datetime.now(UTC) + timedelta(days=8)
    attributes = SystemAttributes(sent_timestamp=int(sent_at.timestamp() * 1000))
    [body] = logins(1, seed=SEED, bad_share=0)
    message = Message("7f1f4f7e-6c6b-4d0e-9a43-000000006432", "-", body, attributes)
    day = (f"delivery_{sent_at:%Y%m%d}",)
    assert day not in query(DAYS)
    async with Pipeline(load(environ={}, overrides=overrides, discover=False)) as ready:
        first, second = ready.processors[:2]
        assert await first.process([message]) == [Outcome.WRITTEN]
        assert await second.process([message]) == [Outcome.DUPLICATE]
    assert day in query(DAYS)
    assert query("SELECT count(*) FROM user_logins") == [(1,)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sslrootcert": "{other_authority}"}, "TLS with PostgreSQL"),
        ({"sslmode": "disable"}, "TLS with PostgreSQL"),
        ({"password": "canary-64"}, "refused the login"),
        ({"user": "nobody-here"}, "refused the login"),
        ({"dbname": "no_such_database"}, "does not exist"),
    ],
)
def test_a_connection_that_the_pooler_refuses_is_one_error_and_one_hint(
    make_shell: Callable[[str], Any],
    cluster: Any,
    pooler: Any,
    options: dict[str, str],
    words: str,
) -> None:
    named = {name: value.format_map(vars(cluster.tls)) for name, value in options.items()}
    said = make_shell(cluster.dsn("postgres", pooler.port, **named)).error("verify", code=1)
    assert words in said
    assert "canary-64" not in said
    assert cluster.password not in said


def test_a_pause_reaches_workers_whatever_session_they_read_it_in(
    shell: Any, left_in_sessions: Callable[[], Any], query: Callable[..., Any], tmp_path: Path
) -> None:
    shell("migrate")
    states = "SELECT array_agg(DISTINCT state), count(*) FROM sqs2pg.worker"
    (tmp_path / "logins.jsonl").write_text("\n".join(logins(100, seed=SEED, bad_share=0)))
    soon = {"SQS2PG_STATUS__POLL_S": "0.5", "SQS2PG_STATUS__BIND": "127.0.0.1:0"}
    with shell.running("run", "--workers", "2", **soon) as process:
        wait_until(lambda: query(states) == [(["running"], 2)], during=process)
        began = time.monotonic()
        shell("pause", "--reason", "over a pooler")
        wait_until(lambda: query(states) == [(["paused"], 2)], during=process)
        assert time.monotonic() - began < WITHIN_S
        shell("send", "--file", str(tmp_path / "logins.jsonl"))
        assert query("SELECT count(*) FROM user_logins") == [(0,)]
        shell("resume")
        wait_until(lambda: query("SELECT count(*) FROM user_logins") == [(100,)], during=process)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert shell("verify", "--json").last["ok"]
    assert left_in_sessions() == {(None, 0, 0)}

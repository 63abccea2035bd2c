"""kill -9 in the middle of rewrap, rekey and forget: a second run completes the work.

A lock that the test holds stops each command halfway; it is killed there, and run again.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.vault_support import message, rotate, write
from tests.waiting import wait_until

Query = Callable[..., list[tuple[Any, ...]]]
PEOPLE = 2_300  # more than one batch of rewrap, and several of rekey
WAITING = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND wait_event_type = 'Lock' AND application_name = 'sqs2pg'"""
THERE = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
AND application_name = 'sqs2pg'"""


@pytest.fixture
async def filled(shell: Any, aws_environment: None, queue_url: str, migrated_database: str) -> Any:
    """A shell with the vault on, and many people's logins written."""
    from sqs2pg.runners.pipeline import Pipeline
    from sqs2pg.settings import load

    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    shell.settings = load(
        environ={},
        discover=False,
        overrides={
            "source": {"queue": queue_url},
            "sink": {"dsn": migrated_database},
            "keys": {"file": shell.environment["SQS2PG_KEYS__FILE"]},
            "vault": {"enabled": True},
        },
    )
    async with Pipeline(shell.settings) as ready:
        people = [message(f"u{i:05}", f"10.0.{i % 250}.{i // 250}", str(i)) for i in range(PEOPLE)]
        people += [message("u00007", "10.0.9.9", str(i)) for i in range(30)]
        await write(ready, people)
    return shell


@contextmanager
def half_done(
    shell: Any, database: str, lock: str, *command: str, after: str = "SELECT 1"
) -> Iterator[None]:
    """Run a command until it waits for what `lock` holds, kill it, then release the lock.

    It is not killed before the query `after` has a row.
    """
    with psycopg.connect(database) as holder, psycopg.connect(database, autocommit=True) as watch:
        held = holder.execute(lock.encode()).fetchall()
        assert held
        with shell.running(*command) as running:
            wait_until(lambda: watch.execute(WAITING).fetchone() != (0,), during=running)
            wait_until(lambda: watch.execute(after.encode()).fetchone(), during=running)
            running.send_signal(signal.SIGKILL)
        assert running.returncode == -signal.SIGKILL
        yield
    # The killed process's backend ends once it notices that its client is gone.
    with psycopg.connect(database, autocommit=True) as watch:
        wait_until(lambda: watch.execute(THERE).fetchone() == (0,))


def look(shell: Any, *what: str) -> Any:
    return shell("reveal", *what, "--reason", "test", "--json").last


def test_a_killed_rewrap_completes_when_run_again(filled: Any, database: str, query: Query) -> None:
    rotate(filled.settings, database, "vault")
    last = "SELECT 1 FROM pii.subject_key ORDER BY subject DESC LIMIT 1 FOR UPDATE"
    versions = "SELECT key_version, count(*) FROM pii.subject_key GROUP BY 1 ORDER BY 1"
    # The other session goes on with its half of the table.
    some = "SELECT 1 FROM pii.subject_key WHERE key_version = 2"
    with half_done(filled, database, last, "keys", "rewrap", after=some):
        [(_, left), (_, done)] = query(versions)
    assert (left > 0, left + done) == (True, PEOPLE)
    assert filled("keys", "rewrap", "--json").last["rewrapped"] == left
    assert query(versions) == [(2, PEOPLE)]
    for user in ("u00000", "u01111", "u02299"):
        assert len(look(filled, "--user", user)) == 2


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT 1 FROM pii.value ORDER BY subject DESC LIMIT 1 FOR UPDATE",
        "SELECT 1 FROM user_logins WHERE user_id = 'u02299' FOR UPDATE",
    ],
    ids=["values", "rows"],
)
def test_a_killed_rekey_completes_when_run_again(
    filled: Any, database: str, query: Query, lock: str
) -> None:
    values = "SELECT left(token, 3), count(*) FROM pii.value GROUP BY 1 ORDER BY 1"
    total = query("SELECT count(*) FROM pii.value")[0][0]
    before = query("SELECT user_id, masked_ip, masked_device_id FROM user_logins")
    rotate(filled.settings, database, "pseudonym")
    some = "SELECT 1 FROM pii.token_map"  # several sessions read the values
    with half_done(filled, database, lock, "keys", "rekey", after=some):
        mapped = query("SELECT count(*) FROM pii.token_map")[0][0]
        assert mapped > 0
        assert query("SELECT count(*) FROM user_logins WHERE masked_ip ~ '^v2_'") == [(0,)]
        assert sum(count for _, count in query(values)) == total
    assert filled("keys", "rekey", "--json").last["rows_left"] == 0
    assert query(values) == [("v2_", total)]
    after = query("SELECT user_id, masked_ip, masked_device_id FROM user_logins")
    assert {t[:3] for row in after for t in row[1:]} == {"v2_"}
    # Old and new tokens correspond one to one, everywhere.
    for column in (1, 2):
        groups = [
            sorted(sorted(r[0] for r in found if r[column] == token) for token in tokens)
            for found in (before, after)
            for tokens in [{row[column] for row in found}]
        ]
        assert groups[0] == groups[1]
    assert query("SELECT count(*) FROM pii.token_map") == [(0,)]
    values_of = {one["value"] for one in look(filled, "--user", "u00007", "--limit", "50")}
    assert values_of == {"10.0.7.0", "7", "10.0.9.9", *map(str, range(30))}
    assert filled("verify", "--json").last["ok"]


@pytest.mark.parametrize("delete", [(), ("--delete-rows",)], ids=["clear", "delete"])
def test_a_killed_forget_completes_when_run_again(
    filled: Any, database: str, query: Query, delete: tuple[str, ...]
) -> None:
    others = query("SELECT * FROM user_logins WHERE user_id <> 'u00007' ORDER BY user_id")
    command = ("forget", "u00007", "--reason", "test", *delete)
    lock = "SELECT 1 FROM user_logins WHERE user_id = 'u00007' FOR UPDATE"
    with half_done(filled, database, lock, *command):
        # The keys are gone already: nobody can open the tokens in the rows.
        assert "erased" in filled.error("reveal", "--user", "u00007", "--reason", "x", code=1)
        assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u00007'") == [(31,)]
    report = filled(*command, "--json").last
    assert report["rows_deleted" if delete else "rows_changed"] == 31
    assert (report["keys_destroyed"], report["found"]) == (0, 1)
    assert (report["totals"]["keys"], report["totals"]["rows"]) == (1, 31)  # of both runs
    assert query("SELECT count(*) FROM user_logins WHERE user_id = 'u00007'") == [(0,)]
    left = query(
        "SELECT DISTINCT masked_ip, masked_device_id FROM user_logins WHERE user_id !~ '^u0'"
    )
    assert left == ([] if delete else [(None, None)])
    assert query("SELECT count(DISTINCT user_id) FROM user_logins WHERE user_id !~ '^u0'") == [
        (0 if delete else 1,)
    ]
    assert query("SELECT * FROM user_logins WHERE user_id ~ '^u0' ORDER BY user_id") == others
    assert query("SELECT count(*) FROM pii.erasure WHERE finished_at IS NULL") == [(0,)]
    assert filled("verify", "--json").last["ok"]
    assert json.dumps(query("SELECT subject FROM sqs2pg.audit")).count("u0") == 0


def test_forget_before_its_commit_has_done_nothing(
    filled: Any, database: str, query: Query, tmp_path: Path
) -> None:
    state = "SELECT count(*), count(wrapped_key) FROM pii.subject_key"
    with half_done(
        filled, database, "SELECT pii.lock_shared()", "forget", "u00007", "--reason", "x"
    ):
        assert query(state) == [(PEOPLE, PEOPLE)]
    assert len(look(filled, "--user", "u00007", "--limit", "50")) == 32
    filled("forget", "u00007", "--reason", "x")
    assert query(state) == [(PEOPLE, PEOPLE - 1)]

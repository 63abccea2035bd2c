"""State tables and the vault as users see them: people as state beside an append-only log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_vault_kills import half_done
from tests.integration.vault_support import login_of
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
WHY = ("--reason", "a test")
FIELDS = """
[[{where}.field]]
source = "user"
column = "user_id"
mask = "pseudonymize"
recover = true
[[{where}.field]]
source = "at"
column = "updated_at"
type = "timestamptz"
[[{where}.field]]
source = "device"
column = "masked_device"
mask = "pseudonymize"
recover = true
"""
SETTINGS = f"""
[vault]
enabled = true
subject = "user"

[[route]]
table = "people"
mode = "upsert"
key = ["user_id"]
newer = "updated_at"
when = {{ field = "user", exists = true }}
{FIELDS.format(where="route")}
[[route]]
table = "log"
when = {{ field = "log", exists = true }}
{FIELDS.format(where="route")}
"""


def seen(user: str, day: int, device: str, **more: Any) -> str:
    return json.dumps({"user": user, "at": f"2026-11-{day:02}T00:00:00Z", "device": device} | more)


@pytest.fixture
def people(shell: Shell, tmp_path: Path, query: Query) -> Shell:
    """The shell of a database with both tables."""
    file = tmp_path / "people.toml"
    file.write_text(SETTINGS)
    shell.environment["SQS2PG_CONFIG"] = str(file)
    shell("migrate")
    query("ALTER TABLE people ADD PRIMARY KEY (user_id)")
    return shell


def drained(shell: Shell, send: Send, *bodies: str) -> dict[str, Any]:
    send(list(bodies))
    return dict(shell("run", "--drain", "--json").last)


def test_a_person_is_shown_and_forgotten_in_a_state_table_and_in_a_log(
    people: Shell, query: Query, send: Send, database: str, tmp_path: Path
) -> None:
    """The pipeline runs with the grants of `migrate` alone, and the revealer with its own."""
    with login_of(database, "sqs2pg_ingest") as ingest:
        people.environment["DATABASE_URL"] = ingest
        drained(people, send, seen("ann", 5, "a-5", log=1), seen("bob", 5, "b-5"))
        done = drained(people, send, seen("ann", 6, "a-6"), seen("bob", 4, "b-4"))
        assert (done["rows_updated"], done["rows_superseded"]) == (1, 1)
    assert query("SELECT count(*) FROM pii.value WHERE field = 'device'") == [(3,)]
    with login_of(database, "sqs2pg_revealer") as revealer:
        people.environment["DATABASE_URL"] = revealer
        found = people("reveal", "--user", "ann", "--all", *WHY, "--json").last
        assert {name: len(rows) for name, rows in found["rows"].items()} == {
            "public.people": 1,
            "public.log": 1,
        }
        devices = {one["value"] for one in found["values"] if one["field"] == "device"}
        assert devices == {"a-5", "a-6"}  # one is in the log alone
    people.environment["DATABASE_URL"] = database

    would = people("forget", "ann", *WHY, "--dry-run", "--json").last
    assert (would["rows_changed"], would["rows_deleted"]) == (1, 1)
    proof = tmp_path / "proof.json"
    done = people("forget", "ann", *WHY, "--certificate", str(proof))
    assert "values removed, rows 1 cleared and 1 deleted" in done.out
    certificate = json.loads(proof.read_text())
    assert certificate["rows_by_table"] == {
        "public.people": {"rows": 1, "done": "deleted"},
        "public.log": {"rows": 1, "done": "cleared"},
    }
    assert certificate["erased"]["rows"] == 2
    assert people("verify", "--deep", "--json").last["ok"]

    done = drained(people, send, seen("ann", 5, "a-5"), seen("ann", 6, "a-6"))
    assert (done["rows_inserted"], done["rows_superseded"]) == (0, 2)
    assert "this person was erased on" in people.error("reveal", "--user", "ann", *WHY, code=1)
    assert drained(people, send, seen("ann", 7, "a-7"))["rows_inserted"] == 1
    assert people("reveal", "--user", "ann", "--limit", "9", *WHY, "--json").last
    assert people("verify", "--deep", "--json").last["ok"]
    for table in ("sqs2pg.tombstone", "sqs2pg.audit", "pii.erasure"):
        text = json.dumps(query(f"SELECT to_json(t)::text FROM {table} t"))
        assert "ann" not in text
        assert "a-6" not in text


def test_a_killed_forget_of_a_state_table_completes_when_run_again(
    people: Shell, query: Query, send: Send, database: str
) -> None:
    drained(people, send, seen("ann", 5, "a-5"), seen("bob", 5, "b-5"))
    command = ("forget", "ann", *WHY)
    lock = "SELECT user_id FROM people FOR UPDATE"
    with half_done(people, database, lock, *command):
        assert query("SELECT count(*) FROM people") == [(2,)]
        assert query("SELECT count(*) FROM sqs2pg.tombstone") == [(0,)]
    report = people(*command, "--json").last
    assert (report["rows_deleted"], report["totals"]["keys"], report["totals"]["rows"]) == (1, 1, 1)
    assert query("SELECT count(*) FROM sqs2pg.tombstone") == [(1,)]
    done = drained(people, send, seen("ann", 5, "a-5"), seen("bob", 6, "b-6"))
    assert (done["rows_updated"], done["rows_superseded"]) == (1, 1)
    assert people("verify", "--deep", "--json").last["ok"]

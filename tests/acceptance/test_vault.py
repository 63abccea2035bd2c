"""The vault as its users see it: ingest, reveal, forget, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.vault_support import login_of
from tests.logins import recurring_login

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
ROWS = "SELECT user_id, masked_ip, masked_device_id FROM user_logins ORDER BY user_id"


@pytest.fixture
def vault(shell: Any, migrated_database: str) -> Any:
    """The shell, with the vault on, migrated."""
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    return shell


def test_round_trip_reveal_every_value_forget_one_person_leave_the_others(
    vault: Any, query: Query, send: Send
) -> None:
    people = {f"user-{i:05}": (f"203.0.113.{i // 2}", f"593-47-{i:04}") for i in range(4)}
    send(
        [
            recurring_login(0, user_id=u, ip=ip, device_id=device)
            for u, (ip, device) in people.items()
        ]
    )
    send([json.dumps({"user_id": "user-00002", "ip": 5})])
    vault("run", "--drain")
    rows = query(ROWS)
    assert len(rows) == 4
    for user, ip, device in rows:
        why = ("--reason", "abuse report", "--ticket", "T-1", "--json")
        found = vault("reveal", device, *why).last
        assert (found["value"], found["subject"]) == (people[user][1], user)
        assert vault("reveal", ip, "--user", user, *why).last["value"] == people[user][0]
    shared = vault("reveal", rows[0][1], "--reason", "x")
    assert shared.out == "203.0.113.0\n"
    assert "one of 2 people who share this token" in shared.err

    report = vault("forget", "user-00002", "--reason", "art. 17", "--json").last
    assert report["keys_destroyed"] == report["quarantine_removed"] == report["rows_changed"] == 1
    assert report["values_removed"] == 2
    refused = vault.error("reveal", "--user", "user-00002", "--reason", "x", code=1)
    assert "this person was erased on" in refused
    assert "no value is sealed" in vault.error("reveal", rows[2][2], "--reason", "x", code=1)
    found = vault("reveal", rows[3][1], "--reason", "x", "--json").last
    assert (found["value"], found["subject"], found["shared_by"]) == (
        "203.0.113.1",
        "user-00003",
        1,
    )
    after = query(ROWS)
    assert [row for row in after if row[0] in people] == [r for r in rows if r[0] != "user-00002"]
    [(name, *tokens)] = [row for row in after if row[0] not in people]
    assert len(name) == 36
    assert tokens == [None, None]
    assert vault("verify", "--json").last["ok"]

    send([recurring_login(0, user_id="user-00002", ip="192.0.2.9", device_id="back")])
    vault("run", "--drain")
    values = vault("reveal", "--user", "user-00002", "--reason", "x", "--json").last
    assert [one["value"] for one in values] == ["back", "192.0.2.9"]
    assert query("SELECT max(generation) FROM pii.subject_key") == [(2,)]
    again = vault("forget", "user-00002", "--reason", "again", "--delete-rows", "--json").last
    assert (again["rows_deleted"], again["rows_changed"]) == (1, 0)
    assert vault("verify", "--json").last["ok"]
    acts = [act for (act,) in query("SELECT DISTINCT act FROM sqs2pg.audit ORDER BY 1")]
    assert acts == ["forget", "forget_done", "reveal"]
    everything = json.dumps(query("SELECT subject, reason FROM sqs2pg.audit"))
    assert "user-0" not in everything


def test_demo_recover_reveals_forgets_and_balances(bare_shell: Any) -> None:
    ended = bare_shell("demo", "--recover", "--messages", "300", "--seed", "4")
    assert "$ sqs2pg reveal v1_" in ended.out
    assert re.search(r"^\d+(\.\d+){3}$", ended.out, re.MULTILINE)
    assert "erased 1 person: 1 key destroyed" in ended.out
    assert "error: this person was erased on" in ended.out
    assert ended.out.strip().endswith("after all that the books balance")


def test_names_come_from_stdin_where_the_argument_is_a_dash(
    vault: Any, query: Query, send: Send
) -> None:
    send([recurring_login(i, user_id=f"user-{i}") for i in range(5)])
    vault("run", "--drain")
    report = vault("forget", "-", "--reason", "x", "--json", stdin="user-1\n\nuser-3\n").last
    assert (report["subjects"], report["rows_changed"]) == (2, 2)
    assert {u for (u, *_) in query(ROWS)} >= {"user-0", "user-2", "user-4"}
    shown = vault("reveal", "--user", "-", "--reason", "x", stdin="user-2\n").out
    assert [line.split("\t")[0] for line in shown.splitlines()] == ["device_id", "ip"]
    assert "stdin has 0 lines" in vault.error("forget", "-", "--reason", "x", code=2)


def test_a_body_that_does_not_say_whose_it_is_remains_and_is_reported(
    vault: Any, send: Send
) -> None:
    send([recurring_login(1), "not json"])
    vault("run", "--drain")
    ended = vault("forget", "user-00001", "--reason", "x")
    assert re.search(r"1 quarantined body, sealed, .*purged on \d{4}-\d\d-\d\d", ended.out)
    assert "backups" in ended.out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("reveal", "--reason", "x"), "say what"),
        (("reveal", "v1_x"), "--reason"),
        (("reveal", "v1_x", "--reason", "  "), "the reason is empty"),
        (("forget", "ann"), "--reason"),
        (("forget", "ann", "--reason", ""), "the reason is empty"),
        (("forget", "", "--reason", "x"), "a user id is empty"),
        (("verify", "--audit", "--since", "2026-01-01"), "leave out --since"),
    ],
)
def test_wrong_usage_is_reported(vault: Any, command: tuple[str, ...], says: str) -> None:
    assert says in vault.error(*command, code=2)


@pytest.mark.parametrize(
    "typed", ["199.172.111.135", "ann@example.com", "424cdd21-063a-43a7-b91b-7ca1a833afae", "", " "]
)
def test_a_value_typed_for_a_token_is_on_record_nowhere(vault: Any, query: Any, typed: str) -> None:
    before = query("SELECT count(*) FROM sqs2pg.audit")
    said = vault.error("reveal", typed, "--reason", "x", code=2)
    assert "does not look like a token" in said
    assert not typed.strip() or typed not in said
    assert query("SELECT count(*) FROM sqs2pg.audit") == before
    assert query("SELECT count(*) FROM pii.request") == [(0,)]


def test_the_auditor_verifies_the_chain_and_nothing_else(
    vault: Any, database: str, send: Send
) -> None:
    send([recurring_login(1)])
    vault("run", "--drain")
    audited = vault("forget", "user-00001", "--reason", "x")
    anchors = re.findall(r'"anchor": "(\d+:[0-9a-f]{64})"', audited.err)
    assert len(anchors) == 2
    with login_of(database, "sqs2pg_auditor") as conninfo:
        for anchor in anchors:
            found = vault("verify", "--audit", "--anchor", anchor, "--json", DATABASE_URL=conninfo)
            assert found.last == {"ok": True, "acts": 2, "anchor": anchors[1], "differences": []}
        wrong = f"1:{'0' * 64}"
        ended = vault("verify", "--audit", "--anchor", wrong, code=1, DATABASE_URL=conninfo)
        assert "row 1 is not the one the anchor names" in ended.out
        assert "42501" in vault.error("verify", code=1, DATABASE_URL=conninfo)
        assert "42501" in vault.error(
            "reveal", "v1_x", "--reason", "x", code=1, DATABASE_URL=conninfo
        )


@pytest.mark.parametrize("role", ["sqs2pg_analyst", "sqs2pg_auditor", "sqs2pg_ingest", None])
def test_who_may_not_reveal_is_told_which_role_and_whom_to_ask(
    vault: Any, database: str, role: str | None
) -> None:
    vault("run", "--drain")
    with login_of(database, *filter(None, [role])) as conninfo:
        for what in (("v1_x",), ("--user", "user-00001")):
            said = vault.error("reveal", *what, "--reason", "x", code=1, DATABASE_URL=conninfo)
            assert "ask the owner of the schema sqs2pg" in said
            assert "GRANT sqs2pg_revealer" in said
        if role != "sqs2pg_auditor":
            said = vault.error("verify", "--audit", code=1, DATABASE_URL=conninfo)
            assert "GRANT sqs2pg_auditor" in said


def test_the_limit_of_the_hour_is_set_by_migrate(vault: Any, send: Send) -> None:
    send([recurring_login(1)])
    vault("run", "--drain")
    told = vault("migrate", SQS2PG_VAULT__REVEALS_PER_HOUR_MAX="2").out
    assert "a login may reveal 2 values an hour" in told
    vault("reveal", "--user", "user-00001", "--limit", "2", "--reason", "x")
    refused = vault.error("reveal", "--user", "user-00001", "--limit", "1", "--reason", "x", code=1)
    assert "as many values within the hour as it may" in refused

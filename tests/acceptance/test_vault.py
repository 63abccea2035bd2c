"""The vault as its users see it: ingest, reveal, forget, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.test_main_job import login

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
ROWS = "SELECT user_id, masked_ip, masked_device_id FROM user_logins ORDER BY user_id"


@pytest.fixture
def vault(shell: Any) -> Any:
    """The shell, with the vault on, migrated."""
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    shell("migrate")
    return shell


def test_round_trip_reveal_every_value_forget_one_person_leave_the_others(
    vault: Any, query: Query, send: Send
) -> None:
    people = {f"user-{i:05}": (f"203.0.113.{i // 2}", f"593-47-{i:04}") for i in range(8)}
    send([login(0, user_id=u, ip=ip, device_id=device) for u, (ip, device) in people.items()])
    send([json.dumps({"user_id": "user-00002", "ip": 5})])
    vault("run", "--drain")
    rows = query(ROWS)
    assert len(rows) == 8
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

    send([login(0, user_id="user-00002", ip="192.0.2.9", device_id="back")])
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

"""`sqs2pg verify --accept --reason TEXT`, and what `check` says of a table that others write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.logins import login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
TARGET = "public.user_logins"


@pytest.mark.usefixtures("migrated_database")
def test_a_difference_is_accepted_with_a_reason(
    shell: Shell, query: Query, send: Callable[[list[str]], list[str]]
) -> None:
    assert "nothing to accept" in shell.error("verify", "--accept", "--reason", "why", code=1)
    send([login(i) for i in range(4)])
    shell("run", "--drain")
    query("DELETE FROM user_logins WHERE user_id = 'u1'")
    told = shell("verify", code=1).out
    assert "(-1); if others deleted rows on purpose, record it: `sqs2pg verify --accept" in told
    for wrong in (
        ["--accept"],
        ["--reason", "why"],
        ["--table", "user_logins"],
        ["--accept", "--reason", "why", "--since", "2026-01-01"],
        ["--accept", "--reason", "why", "--audit"],
        ["--accept", "--reason", " \t"],
    ):
        shell.error("verify", *wrong, code=2)
    accepted = ["--accept", "--reason", "moved to the archive", "--ticket", "OPS-7"]
    assert shell("verify", *accepted, "--json").last == {
        "ok": True,
        "written": 4,
        "duplicate": 0,
        "quarantined": 0,
        "differences": [],
        "accepted": [{"target": TARGET, "found": 3, "expected": 4}],
    }
    acts = query("SELECT act, subject, reason, ticket FROM sqs2pg.audit")
    numbers = f"{TARGET}: 3 rows found, 4 expected (-1)"
    assert acts == [("accept_difference", numbers, "moved to the archive", "OPS-7")]
    assert shell("verify", "--json").last["ok"] is True
    query("INSERT INTO user_logins (user_id) VALUES ('x'), ('y')")
    said = shell("verify", *accepted, "--table", "user_logins").out
    assert f"accepted: {TARGET}: 5 rows found, 3 expected (+2)" in said
    assert said.endswith("the books balance\n")
    assert shell("verify", "--audit").out.startswith("2 acts")


@pytest.mark.usefixtures("migrated_database")
def test_check_says_who_else_writes_the_table(shell: Shell, query: Query) -> None:
    def told() -> list[dict[str, str]]:
        checks = shell("check", "--json").last["checks"]
        return [one for one in checks if one["name"] == "target user_logins books"]

    assert told() == []
    query("GRANT UPDATE ON user_logins TO sqs2pg_analyst")
    query("GRANT DELETE ON user_logins TO PUBLIC")
    [one] = told()
    assert one["status"] == "ok"
    assert one["detail"] == (
        "others may update its rows (sqs2pg_analyst), and verify does not see changes; others may "
        "insert or delete rows (PUBLIC), which verify reports: record what is done on purpose with "
        "`sqs2pg verify --accept --reason TEXT`"
    )


def digest_check(shell: Shell) -> list[dict[str, str]]:
    checks = shell("check", "--json").last["checks"]
    return [one for one in checks if one["name"] == "target user_logins digest"]


def test_a_row_in_the_place_of_another_is_seen_by_deep(
    shell: Shell, query: Query, send: Callable[[list[str]], list[str]]
) -> None:
    shell("migrate")
    shell.environment |= {"SQS2PG_SINK__KEY": "user_id", "SQS2PG_SINK__DIGEST": "true"}
    assert digest_check(shell)[0]["remedy"].startswith("run `sqs2pg migrate`")
    assert "keeps a digest of user_logins by user_id" in shell("migrate").out
    names = [one["name"] for one in shell("check", "--json").last["checks"]]
    assert "target user_logins triggers" not in names
    send([login(i) for i in range(4)])
    shell("run", "--drain")
    assert shell("verify", "--deep", "--json").last == {
        "ok": True,
        "written": 4,
        "duplicate": 0,
        "quarantined": 0,
        "differences": [],
    }
    query("DELETE FROM user_logins WHERE user_id = 'u1'")
    query("INSERT INTO user_logins (user_id) VALUES ('foreign')")
    assert shell("verify", "--json").last["ok"] is True
    [told] = shell("verify", "--deep", "--json", code=1).last["differences"]
    assert "by the digest of key and version: they are not those that the books say" in told
    assert "sqs2pg verify --accept --reason TEXT" in told
    done = shell("verify", "--deep", "--accept", "--reason", "corrected by hand", "--json").last
    assert done["accepted"] == [{"target": TARGET, "found": 4, "expected": 4, "others": True}]
    assert shell("verify", "--deep", "--json").last["ok"] is True
    assert digest_check(shell) == []
    del shell.environment["SQS2PG_SINK__DIGEST"]
    del shell.environment["SQS2PG_SINK__KEY"]
    assert "the settings do not ask for it" in digest_check(shell)[0]["detail"]
    shell("migrate")
    assert digest_check(shell) == []
    assert "no digest is kept of any table" in shell.error("verify", "--deep", code=2)
    shell.error("verify", "--deep", "--since", "2026-01-01", code=2)

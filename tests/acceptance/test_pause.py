"""`pause`, `resume` and the quarantine as a place of work, by their commands."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.vault_support import login_of
from tests.logins import login
from tests.waiting import BLOCKED, wait_until

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


@pytest.mark.usefixtures("migrated_database")
def test_pause_and_resume_report_and_are_recorded(shell: Any, query: Query) -> None:
    done = shell("pause", "--reason", "the table is being rebuilt", "--json").last
    [(since,)] = query(
        "SELECT to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM sqs2pg.pause"
    )
    assert done.pop("since").startswith(since)
    [(user,)] = query("SELECT session_user::text")
    assert done == {
        "pipeline": "user_logins",
        "paused": True,
        "changed": True,
        "code": "by_operator",
        "by": user,
        "reason": "the table is being rebuilt",
    }
    again = shell("pause", "--reason", "another").out
    assert f"was paused before, since {since}" in again
    assert f"by {user}: the table is being rebuilt" in again
    shown = shell("check", "--json", code=None).last["checks"]
    [check] = [one for one in shown if one["name"] == "pause"]
    assert check["status"] == "warn"
    assert re.match(r"paused for [\d.]+ (s|minutes), since ", check["detail"])
    assert f"by {user}: the table is being rebuilt" in check["detail"]
    assert "the queue keeps a message for 4 days" in check["detail"]
    done = shell("resume", "--reason", "done", "--json").last
    assert (done["paused"], done["changed"], done["by"]) == (False, True, None)
    assert "was not paused" in shell("resume").out
    acts = query("SELECT act, reason FROM sqs2pg.audit ORDER BY sequence")
    assert acts == [("pause", "the table is being rebuilt"), ("resume", "done")]
    assert "500 characters" in shell.error("pause", "--reason", "x" * 501, code=2)
    assert "one line" in shell.error("pause", "--reason", "a\nb", code=2)


@pytest.mark.usefixtures("migrated_database")
def test_only_the_owner_pauses_and_whoever_it_grants_that_to(
    shell: Any, database: str, query: Query
) -> None:
    with login_of(database, "sqs2pg_ingest") as conninfo:
        for act in ("pause", "resume"):
            said = shell.error(act, code=1, DATABASE_URL=conninfo, SQS2PG_SINK__DSN=conninfo)
            assert f"GRANT EXECUTE ON FUNCTION sqs2pg.{act}(integer, text)" in said
    with login_of(database) as conninfo:
        role = psycopg.conninfo.conninfo_to_dict(conninfo)["user"]
        try:
            grants = re.findall(r"^ +(GRANT .+) TO oncall;$", RUNBOOK.read_text(), re.MULTILINE)
            query(";".join(f"{grant} TO {role}" for grant in grants))
            done = shell("pause", "--json", DATABASE_URL=conninfo, SQS2PG_SINK__DSN=conninfo).last
            assert done["by"] == role
            shell("resume", DATABASE_URL=conninfo, SQS2PG_SINK__DSN=conninfo)
        finally:
            query(f"DROP OWNED BY {role}")


@pytest.mark.usefixtures("migrated_database")
def test_a_running_worker_pauses_says_so_and_goes_on(shell: Any, send: Send, query: Query) -> None:
    environment = {"SQS2PG_STATUS__BIND": "127.0.0.1:0", "SQS2PG_STATUS__POLL_S": "0.5"}
    with shell.running("run", **environment) as process:
        send([login(1)])
        wait_until(lambda: query("SELECT count(*) FROM user_logins") == [(1,)], during=process)
        shell("pause", "--reason", "maintenance")
        state = "SELECT state FROM sqs2pg.worker"
        wait_until(lambda: query(state) == [("paused",)], during=process)
        send([login(2)])
        refused = shell("run", "--drain", "--json", code=1)
        assert "paused since" in refused.err
        assert "maintenance" in refused.err
        assert "sqs2pg resume" in refused.err
        assert query("SELECT count(*) FROM user_logins") == [(1,)]
        shell("resume")
        wait_until(lambda: query("SELECT count(*) FROM user_logins") == [(2,)], during=process)
        process.terminate()
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the pipeline is paused" in log
    assert "the pipeline is resumed" in log
    assert "maintenance" not in log, "the words of an operator are for page, check and audit"


def test_what_was_set_aside_is_grouped_exported_and_amended(
    shell: Any, send: Send, query: Query, migrated_database: str, tmp_path: Path
) -> None:
    send(["{", login(1, ip="canary-21"), login(2, ip="canary-22")])
    shell("run", "--drain")
    groups = shell("quarantine", "list", "--group-by", "detail", "--json").last
    assert [(g["detail"], g["codes"], g["messages"]) for g in groups] == [
        ("ip", ["bad_ip"], 2),
        ("", ["not_json"], 1),
    ]
    table = shell("quarantine", "list", "--group-by", "table").out.splitlines()
    assert table[0].split() == ["table", "codes", "messages", "first", "at", "last", "at", "sample"]
    assert table[1].split()[:4] == ["public.user_logins", "bad_ip,", "not_json", "3"]
    [by_code] = [
        g
        for g in shell("quarantine", "list", "--group-by", "code", "--json").last
        if g["code"] == "not_json"
    ]
    number = str(by_code["sample_id"])

    file = tmp_path / "open.jsonl"
    said = shell.error("quarantine", "export", "--all", "--file", str(file), "--unsealed", code=2)
    assert "--reason TEXT" in said
    said = shell.error(
        "quarantine", "export", "--all", "--file", str(file), "--reason", "x", code=2
    )
    assert "--code CODE" in said
    shell.error("quarantine", "export", "--file", str(file), code=2)
    done = shell("quarantine", "export", "--code", "bad_ip", "--file", str(file), "--json").last
    assert done == {"exported": 2, "unopened": 0, "unsealed": False, "file": str(file)}
    assert "canary" not in file.read_text()
    file.unlink()
    how = ("--unsealed", "--reason", "mend", "--file", str(file))
    assert "exported 1 entry, in clear" in shell("quarantine", "export", number, *how).out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["body"] == "{"

    mended = tmp_path / "body.json"
    mended.write_text(login(3) + "\n")
    reason = ("--reason", "the producer cut it off")
    done = shell("quarantine", "amend", number, "--body", str(mended), *reason, "--json").last
    assert (done["id"], done["amended"]) == (int(number), True)
    assert query("SELECT user_id FROM user_logins") == [("u3",)]
    said = shell.error("quarantine", "amend", number, "--body", str(mended), *reason, code=2)
    assert "replayed already" in said
    other = next(g["sample_id"] for g in groups if g["detail"] == "ip")
    bad = ("quarantine", "amend", str(other), "--body", "-", *reason)
    ended = shell(*bad, stdin=login(4, ip="canary-23"), code=1)
    assert "still bad: bad_ip (ip)" in ended.err
    assert "is empty" in shell(*bad, stdin="", code=2).err
    with (tmp_path / "large").open("wb") as large:
        large.truncate(32 * 2**20 + 1)
    too_large = ("quarantine", "amend", str(other), "--body", large.name, *reason)
    assert "has more than 33,554,432 bytes" in shell.error(*too_large, code=2)
    assert "cannot be read" in shell.error(
        "quarantine", "amend", str(other), "--body", str(tmp_path / "none"), *reason, code=2
    )
    assert shell("verify", "--json").last["differences"] == []
    assert "canary" not in "".join(shell.transcript)


def test_an_amendment_that_is_killed_has_not_happened_and_may_be_made_again(
    shell: Any, send: Send, query: Query, database: str, migrated_database: str, tmp_path: Path
) -> None:
    send(["{"])
    shell("run", "--drain")
    mended = tmp_path / "body.json"
    mended.write_text(login(3))
    amend = ("quarantine", "amend", "1", "--body", str(mended), "--reason", "mend")
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM sqs2pg.audit_head FOR UPDATE")
        with shell.running(*amend) as process:
            wait_until(lambda: query(BLOCKED) != [(0,)], during=process)
            process.kill()
            process.communicate(timeout=60)
        holder.rollback()
    wait_until(lambda: query(BLOCKED) == [(0,)])
    [(rows, acts)] = query(
        "SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM sqs2pg.audit)"
    )
    again = shell(*amend, "--json", code=None)
    # The server may have finished for a client that is gone: then it happened, whole.
    assert (rows, acts, again.code) in {(0, 0, 0), (1, 1, 2)}
    assert query("SELECT user_id FROM user_logins") == [("u3",)]
    assert query("SELECT act FROM sqs2pg.audit") == [("amend",)]
    assert shell("verify", "--json").last["differences"] == []

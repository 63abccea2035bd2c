"""The quarantine as operators see it: its commands, which show a body only when asked to."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.logins import login
from tests.shell import Shell
from tests.terminal import on_terminal
from tests.waiting import BLOCKED, wait_until

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

SECRET = {"ip": "203.0.113.77", "device_id": "901-23-4567"}
STRICT = {"SQS2PG_UNKNOWN_FIELDS": "quarantine"}
WAIT_S = 60


@pytest.fixture
def set_aside(shell: Any, send: Send, migrated_database: str) -> Callable[[list[str]], None]:
    """Quarantine bodies that are bad, or bad only as long as unknown fields are refused."""

    def put(bodies: list[str]) -> None:
        send(bodies)
        assert shell("run", "--drain", "--json", **STRICT).last["quarantined"] == len(bodies)

    return put


def test_list_filters_and_counts(shell: Any, set_aside: Any, query: Query) -> None:
    set_aside(["not json", login(1, extra=1, **SECRET), login(2, extra=1, **SECRET)])
    shown = shell("quarantine", "list").out
    assert "1  not_json" in shown
    assert "2  unknown_field" in shown
    assert "3  in all" in shown
    query("UPDATE sqs2pg.quarantine SET received_at = '2024-05-01 12:00Z' WHERE reason='not_json'")
    [old] = shell("quarantine", "list", "--reason", "not_json", "--json").last
    assert old["received_at"].startswith("2024-05-01T12:00:00")
    recent = shell("quarantine", "list", "--since", "2024-05-02", "--json").last
    assert {entry["reason"] for entry in recent} == {"unknown_field"}
    shown = max(entry["received_at"] for entry in recent)
    latest = shell("quarantine", "list", "--since", shown, "--json").last
    assert shown in {entry["received_at"] for entry in latest}, "a time that `list` has shown"
    by_message = shell("quarantine", "list", "--message-id", old["message_id"], "--json").last
    assert by_message == [old]
    assert "3  in all, 2 of them shown" in shell("quarantine", "list", "--limit", "2").out
    lines = shell("quarantine", "list").out.splitlines()
    assert " ".join(lines[0].split()) == "id message id reason detail attempts received at"
    for entry in (*recent, old):  # in a pipe: one line each, everything whole
        [line] = [line for line in lines if entry["message_id"] in line]
        assert line.split()[:3] == [str(entry["id"]), entry["message_id"], entry["reason"]]
        shown = line.split()[-1]
        assert shell("quarantine", "list", "--since", shown).out.count(entry["message_id"]) == 1
    for name in ("--code", "--reason"):
        assert shell("quarantine", "list", name, "not_json", "--json").last == [old]
    shell("quarantine", "replay", "--code", "unknown_field")
    everything = shell("quarantine", "list", "--include-replayed", "--json").last
    assert [entry["replayed_at"] is None for entry in everything].count(True) == 1
    assert len(everything) == 3


def test_on_a_terminal_of_80_columns_ids_are_whole_and_no_line_is_wrapped(
    shell: Shell, set_aside: Any
) -> None:
    set_aside(["not json", login(1, extra=1, **SECRET)])
    command = [shell.python, "-m", "sqs2pg", "quarantine", "list"]
    where = {"cwd": shell.folder, "environment": shell.environment}
    entries = shell(*command[3:], "--json").last
    code, shown = on_terminal(command, **where)
    lines = shown.splitlines()
    assert (code, [line for line in lines if len(line) > 80]) == (0, [])
    assert lines[0].split() == ["id", "message", "id", "reason", "since", "(UTC)"]
    for entry in entries:
        [at] = [i for i, line in enumerate(lines) if entry["message_id"] in line]
        assert lines[at].split()[:3] == [str(entry["id"]), entry["message_id"], entry["reason"]]
        below = " ".join(line.strip() for line in lines[at + 1 :])
        assert below.startswith(entry["detail"]), shown
    code, shown = on_terminal([*command, "--group-by", "detail"], **where)
    assert (code, [line for line in shown.splitlines() if len(line) > 80]) == (0, [])
    assert all(entry["detail"].split(":")[0] in shown for entry in entries)
    # Where it fits, it is what a pipe gets.
    code, shown = on_terminal(command, columns=200, **where)
    assert (code, shown) == (0, shell(*command[3:]).out)


def test_show_keeps_the_body_sealed_unless_unsealed_for_a_reason(
    shell: Any, set_aside: Any, query: Query, server_logs: Callable[[], str]
) -> None:
    body = 'canary-5e1f é \u2603 { "ip": "203.0.113.78"'
    set_aside([body])
    shown = shell("quarantine", "show", "1")
    assert "not_json" in shown.out
    assert "--reason" in shell.error("quarantine", "show", "1", "--unseal", code=2)
    assert "--unseal" in shell.error("quarantine", "show", "1", "--reason", "x", code=2)
    assert "no entry 2" in shell.error("quarantine", "show", "2", code=2)
    assert query("SELECT count(*) FROM sqs2pg.audit") == [(0,)]
    before = "".join(shell.transcript) + server_logs()
    assert "canary-5e1f" not in before

    asked = ("quarantine", "show", "1", "--unseal", "--reason", "the sender asks")
    opened = shell(*asked, "--ticket", "OPS-7")
    assert opened.out == body, "the body as it was received, and nothing else"
    assert "canary-5e1f" not in opened.err + server_logs()
    assert shell(*asked, "--json").last == {"id": 1, "body": body}
    [(message_id,)] = query("SELECT message_id FROM sqs2pg.quarantine")
    assert query("SELECT act, subject, reason, ticket FROM sqs2pg.audit ORDER BY sequence") == [
        ("unseal", f"quarantine entry 1, message {message_id}", "the sender asks", "OPS-7"),
        ("unseal", f"quarantine entry 1, message {message_id}", "the sender asks", ""),
    ]


def test_unseal_needs_the_key_the_body_was_sealed_under(
    shell: Any, set_aside: Any, tmp_path: Any, query: Query
) -> None:
    set_aside(["canary-77"])
    other = {"SQS2PG_KEYS__FILE": str(tmp_path / "other.keys")}
    shell("keys", "init", **other)
    asked = ("quarantine", "show", "1", "--unseal", "--reason", "x")
    assert "not the one on record" in shell.error(*asked, code=2, **other)
    assert query("SELECT count(*) FROM sqs2pg.audit") == [(0,)]


def test_a_body_cannot_command_the_terminal_it_is_shown_on(shell: Any, set_aside: Any) -> None:
    set_aside(["line one\nred \x9b31m title \x9d0;x back\rover"])
    arguments = ["quarantine", "show", "1", "--unseal", "--reason", "x"]
    code, shown = on_terminal(
        [shell.python, "-m", "sqs2pg", *arguments],
        environment=shell.environment,
        cwd=shell.folder,
        stderr=subprocess.DEVNULL,
    )
    assert code == 0
    assert shown.splitlines() == ["line one", r"red \x9b31m title \x9d0;x back\rover"]


def test_no_body_is_shown_before_its_act_is_committed(
    shell: Any, set_aside: Any, database: str, query: Query
) -> None:
    set_aside(["canary-78"])
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM sqs2pg.audit_head FOR UPDATE")
        arguments = ("quarantine", "show", "1", "--unseal", "--reason", "x")
        with shell.running(*arguments) as process:
            wait_until(lambda: query(BLOCKED) != [(0,)], during=process)
            process.kill()
            out, _ = process.communicate(timeout=WAIT_S)
        assert out == ""
        holder.rollback()


def test_replay_after_the_mapping_was_mended(
    shell: Any, set_aside: Any, query: Query, server_logs: Callable[[], str]
) -> None:
    set_aside([login(i, extra=1, **SECRET) for i in range(5)] + ["canary-79"])
    result = shell("quarantine", "replay", "--all", "--json")
    assert result.last == {"replayed": 5, "still_bad": 1, "already_done": 0}
    assert query("SELECT user_id FROM user_logins ORDER BY 1") == [(f"u{i}",) for i in range(5)]
    assert query("SELECT count(*) FROM user_logins WHERE masked_ip LIKE 'v1\\_%'") == [(5,)]
    again = shell("quarantine", "replay", "--reason", "not_json").out
    assert "replayed 0, still bad 1, already done 0" in again
    numbers = [str(n) for (n,) in query("SELECT id FROM sqs2pg.quarantine ORDER BY 1")]
    again = shell("quarantine", "replay", *numbers, "--json").last
    assert again == {"replayed": 0, "still_bad": 1, "already_done": 5}
    assert query("SELECT count(*) FROM user_logins") == [(5,)]
    verified = shell("verify", "--json").last
    assert verified["differences"] == []
    assert (verified["written"], verified["quarantined"]) == (5, 1)
    everything = "".join(shell.transcript) + server_logs()
    for secret in ("canary-79", *SECRET.values()):
        assert secret not in everything


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("replay", "1", "--all"),
        ("replay", "--reason", "not_json", "--all"),
        ("replay", "1", "--reason", "not_json"),
        ("replay", "--reason", "not a code"),
        ("replay", "0"),
        ("replay", str(2**63)),
        ("purge", "--yes"),
        ("purge", "--yes", "1", "--all"),
        ("purge", "--yes", "--all", "--older-than-days", "3"),
        ("purge", "--yes", "--older-than-days", "0"),
    ],
)
def test_contradictory_selections_are_refused(bare_shell: Any, arguments: tuple[str, ...]) -> None:
    ended = bare_shell("quarantine", *arguments, code=2)
    assert ended.err.startswith("error:")


@pytest.mark.usefixtures("migrated_database")
def test_replay_and_purge_of_entries_that_are_not_there(shell: Any) -> None:
    assert "no entry 7" in shell.error("quarantine", "replay", "7", code=2)
    assert "no entry 7, 8" in shell.error("quarantine", "purge", "7", "8", "--yes", code=2)
    nothing = shell("quarantine", "replay", "--all", "--json").last
    assert nothing == {"replayed": 0, "still_bad": 0, "already_done": 0}


def test_purge_asks_first_and_the_books_balance_after_it(
    shell: Any, set_aside: Any, query: Query
) -> None:
    set_aside(["not json", "nor this", login(1, extra=1, **SECRET), login(2, extra=1, **SECRET)])
    shell("quarantine", "replay", "--reason", "unknown_field")
    said = shell.error("quarantine", "purge", "--all", code=2)
    assert "delete 4 quarantine entries for good, 2 of them never replayed" in said
    assert "--yes" in said
    assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(4,)]
    query(
        "UPDATE sqs2pg.quarantine SET received_at = now() - interval '3 days'"
        " WHERE id = (SELECT min(id) FROM sqs2pg.quarantine WHERE reason = 'not_json')"
    )
    purged = shell("quarantine", "purge", "--older-than-days", "2", "--yes", "--json").last
    assert purged == {"purged": 1, "never_replayed": 1}
    said = shell("quarantine", "purge", "--all", "--yes").out
    assert "purged 3, 1 of them never replayed" in said
    verified = shell("verify", "--json").last
    assert verified["differences"] == []
    assert (verified["written"], verified["quarantined"]) == (2, 2)
    acts = query("SELECT act, subject FROM sqs2pg.audit ORDER BY sequence")
    assert [act for act, _ in acts] == ["replay", "purge", "purge"]
    assert acts[2][1] == "pipeline 1, 3 quarantine entries, 1 never replayed: all"


# A replay of 600, in batches of 500, is killed where it waits for a lock of the test.
_WAIT = """CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT count(*) FROM sqs2pg.quarantine WHERE replayed_at IS NOT NULL) = {replayed} THEN
        PERFORM pg_advisory_xact_lock(42);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER wait_here BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION wait_here()"""
KILLS = {
    "in the first COPY": (_WAIT.format(replayed=0, table="user_logins"), 0),
    "in the second COPY": (_WAIT.format(replayed=500, table="user_logins"), 500),
    "before the second COMMIT": (_WAIT.format(replayed=600, table="sqs2pg.tally"), 500),
}


@pytest.mark.parametrize("point", KILLS)
def test_a_replay_killed_midway_and_run_again_doubles_nothing(
    shell: Any, set_aside: Any, database: str, query: Query, point: str
) -> None:
    set_aside([login(i, extra=1, **SECRET) for i in range(600)])
    waiting, committed = KILLS[point]
    query(waiting)
    with psycopg.connect(database) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(42)")
        with shell.running("quarantine", "replay", "--all") as process:
            wait_until(lambda: query(BLOCKED) != [(0,)], during=process)
            process.kill()
            process.communicate(timeout=WAIT_S)
        assert process.returncode == -9
        assert query("SELECT count(*) FROM user_logins") == [(committed,)]
        holder.rollback()
    result = shell("quarantine", "replay", "--all", "--json").last
    assert result["replayed"] + result["already_done"] == 600 - committed
    assert query("SELECT count(*), count(DISTINCT user_id) FROM user_logins") == [(600, 600)]
    assert query("SELECT count(*) FROM sqs2pg.quarantine WHERE replayed_at IS NULL") == [(0,)]
    verified = shell("verify", "--json").last
    assert verified["differences"] == []
    assert (verified["written"], verified["quarantined"]) == (600, 0)
    acts = query("SELECT subject FROM sqs2pg.audit ORDER BY sequence")
    assert acts[0] == ("pipeline 1, 600 quarantine entries: all",), "recorded, though it was killed"


def test_the_anchor_of_an_act_is_logged_and_verify_holds_the_audit_to_it(
    shell: Any, set_aside: Any, query: Query
) -> None:
    set_aside(["not json"])
    logged = shell("quarantine", "replay", "--all").err
    [anchor] = re.findall(r'"anchor": "(1:[0-9a-f]{64})"', logged)
    assert shell("verify", "--anchor", anchor, "--json").last["ok"] is True
    query("ALTER TABLE sqs2pg.audit DISABLE TRIGGER ALL")
    query("TRUNCATE sqs2pg.audit")
    query("ALTER TABLE sqs2pg.audit_head DISABLE TRIGGER ALL")
    query("UPDATE sqs2pg.audit_head SET sequence = 0, hash = decode(repeat('00', 32), 'hex')")
    assert shell("verify", "--json").last["ok"] is True, (
        "rewritten so that only an anchor reveals it"
    )
    [difference] = shell("verify", "--anchor", anchor, "--json", code=1).last["differences"]
    assert "row 1, which the anchor names, is missing" in difference

"""`forget` as its users see it: who is found, who is not, and what nobody may read afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.vault_support import login_of
from tests.logins import recurring_login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
ALL_LOGGED = {
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_error_verbosity": "verbose",
}
NOT_SAME = ("dry_run", "anchor", "first_act")
WHY = ("--reason", "a test")


@pytest.fixture
def people(shell: Shell, send: Send, migrated_database: str) -> Shell:
    """The shell of a database with user-0 to user-4 in it, two rows each, and the vault on."""
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    send([recurring_login(n, user_id=f"user-{n % 5}", device_id=f"d{n}") for n in range(10)])
    shell("run", "--drain")
    return shell


def test_nobody_is_not_called_erased(people: Shell, query: Query) -> None:
    everything = "SELECT * FROM user_logins ORDER BY 1, 2, 3, 4"
    before, epoch = query(everything), query("SELECT epoch FROM pii.state")
    ended = people("forget", "nobody", *WHY, code=1)
    assert [line["act"] for line in map(json.loads, ended.err.splitlines()) if "act" in line] == [
        "forget",
        "forget_not_found",
    ]
    assert ended.out.startswith("erased 0 people")
    assert "not found: 1 person." in ended.out
    report = people("forget", "nobody", *WHY, "--json", code=1).last
    counts = ("subjects", "found", "not_found", "keys_destroyed", "rows_changed", "rows_left")
    assert [report[name] for name in counts] == [1, 0, 1, 0, 0, 0]
    acts = query("SELECT DISTINCT act FROM sqs2pg.audit ORDER BY 1")
    assert acts == [("forget",), ("forget_not_found",)]
    assert query(everything) == before
    assert query("SELECT epoch FROM pii.state") == epoch  # nobody's cache was emptied


def test_some_of_many_are_not_found_and_their_lines_are_named(people: Shell) -> None:
    given = "\ufeffuser-1\r\n\r\nuser-9\r\nuser-3\r\nuser-8\r\n"
    report = people("forget", "-", *WHY, "--json", stdin=given).last
    assert (report["subjects"], report["found"], report["not_found"]) == (4, 2, 2)
    assert report["not_found_lines"] == [2, 4]
    assert report["rows_changed"] == 4
    ended = people("forget", "-", *WHY, stdin="user-3\nuser-4\n")
    assert "erased 1 person" in ended.out
    assert "not found: 1 person (line 1)" in ended.out
    assert "user-" not in ended.out


def test_a_dry_run_finds_the_same_and_changes_nothing(people: Shell, query: Query) -> None:
    state = """SELECT (SELECT count(*) FROM pii.subject_key WHERE wrapped_key IS NOT NULL),
        (SELECT count(*) FROM pii.erasure), (SELECT count(*) FROM sqs2pg.audit),
        (SELECT count(*) FROM user_logins WHERE user_id = 'user-1'),
        (SELECT epoch FROM pii.state)"""
    before = query(state)
    would = people("forget", "user-1", *WHY, "--dry-run", "--json").last
    assert (would["dry_run"], would["anchor"]) == (True, "")
    assert people("forget", "user-1", "--dry-run").out.startswith("would erase 1 person: 1 ")
    assert "--reason" in people.error("forget", "user-1", code=2)
    assert people("forget", "nobody", *WHY, "--dry-run", "--json", code=1).last["found"] == 0
    assert query(state) == before
    did = people("forget", "user-1", *WHY, "--json").last
    same = {name: value for name, value in did.items() if name not in NOT_SAME}
    assert same == {name: would[name] for name in same}
    assert (did["found"], did["keys_destroyed"], did["tables"]) == (1, 1, {"public.user_logins": 2})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("user_id\nuser-1\n", "the id on line 1 is a header"),
        ("USER_ID\r\nuser-1\r\n", "the id on line 1 is a header"),
        ("user-1\n user-2\n", "the id on line 2 begins or ends with white space"),
        ("user-1\nuser-2\t\n", "the id on line 2 begins or ends with white space"),
        ('user-1\n"user-2"\n', "the id on line 2 is in quotes"),
        ("user-1\n\u201cuser-2\u201d\n", "the id on line 2 is in quotes"),
        ("user-1\nuser\x07-2\n", "the id on line 2 has control characters"),
        ("user-1\nuser\u200b-2\n", "the id on line 2 has control characters"),
    ],
)
def test_lines_that_are_no_ids_are_refused_before_anybody_is_erased(
    people: Shell, query: Query, given: str, says: str
) -> None:
    told = people.error("forget", "-", *WHY, code=2, stdin=given)
    assert says in told
    assert "user-2" not in told
    assert query("SELECT count(*) FROM sqs2pg.audit") == [(0,)]


def test_an_argument_is_refused_as_a_line_is(people: Shell) -> None:
    for typed in (" user-1", "'user-1'", "user-1\r"):
        told = people.error("forget", typed, *WHY, code=2)
        assert "add --exact" in told
        assert "user-1" not in told


def test_an_id_that_really_has_quotes_and_spaces_is_taken_exactly(
    people: Shell, send: Send, query: Query
) -> None:
    odd = ' "user" '
    send([recurring_login(20, user_id=odd)])
    people("run", "--drain")
    assert people("forget", "-", *WHY, "--exact", "--json", stdin=f"{odd}\n").last["found"] == 1
    assert query("SELECT count(*) FROM user_logins WHERE user_id ~ '\"'") == [(0,)]


def test_neither_name_nor_reference_nor_random_id_goes_to_the_servers_log(
    people: Shell, database: str, query: Query, server_logs: Callable[[], str]
) -> None:
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as owner:
        for setting, value in ALL_LOGGED.items():
            owner.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    before = len(server_logs())
    people("forget", "user-1", *WHY, "--dry-run")
    people("forget", "user-1", *WHY)
    people("forget", "user-2", *WHY, "--delete-rows")
    people("forget", "nobody-at-all", *WHY, code=1)
    [(given,)] = query("SELECT DISTINCT user_id FROM user_logins WHERE user_id !~ '^user'")
    references = [subject.hex for (subject,) in query("SELECT subject FROM pii.erasure")]
    logged = server_logs()[before:]
    assert "COPY pg_temp.sqs2pg_people" in logged  # it does log everything
    assert "Parameters: " in logged or "parameters: " in logged
    for secret in ("user-1", "user-2", "nobody-at-all", given, *references):
        assert secret not in logged.replace("-", "") if len(secret) == 32 else secret not in logged


def test_an_id_that_the_column_cannot_hold_is_not_quoted_in_the_servers_log(
    shell: Shell, send: Send, query: Query, server_logs: Callable[[], str]
) -> None:
    query("CREATE TABLE user_logins (user_id integer, device_type varchar(32),"
          " masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),"
          " app_version integer, create_date date)")  # fmt: skip
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    shell("migrate")
    send([recurring_login(1, user_id="70")])
    shell("run", "--drain")
    before = len(server_logs())
    for typed in ("ann-b2f1@example.com", "99999999999"):
        assert shell("forget", typed, *WHY, "--json", code=1).last["found"] == 0
    assert "ann-b2f1" not in server_logs()[before:]
    assert shell("forget", "70", *WHY, "--json").last["rows_changed"] == 1


def test_a_login_that_may_make_no_temporary_table_is_told_before_anything_is_destroyed(
    people: Shell, database: str, query: Query
) -> None:
    name = database.rpartition("/")[2]
    query(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    with login_of(database) as conninfo:
        login = re.search(r"user=(\S+)", conninfo)
        assert login is not None
        query(f"GRANT ALL ON SCHEMA sqs2pg, pii TO {login[1]}")
        query(f"GRANT ALL ON ALL TABLES IN SCHEMA sqs2pg, pii, public TO {login[1]}")
        query(f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA sqs2pg, pii TO {login[1]}")
        told = people.error("forget", "user-1", *WHY, code=1, DATABASE_URL=conninfo)
    assert "may not create temporary tables" in told
    assert "GRANT TEMPORARY" in told
    assert query("SELECT count(*) FROM pii.erasure") == [(0,)]


def test_a_certificate_says_what_where_and_when_and_nothing_personal(
    people: Shell, query: Query, send: Send
) -> None:
    send([json.dumps({"user_id": "user-1", "ip": 5})])
    people("run", "--drain")
    why = ("--reason", "asked by user-1@example.com", "--ticket", "user-1")
    given = "user-1\nuser-2\nuser-77\n"
    report = people("forget", "-", *why, "--certificate", "c.json", "--json", stdin=given).last
    as_json = (people.folder / "c.json").read_text()
    as_text = (people.folder / "c.txt").read_text()
    content = json.loads(as_json)
    assert content["complete"] is True
    assert content["people"] == {"asked_for": 3, "found": 2, "not_found": 1}
    assert content["erased"] == {"keys": 2, "values": 8, "bodies": 1, "rows": 4}
    assert content["rows_by_table"] == {"public.user_logins": {"rows": 4, "done": "cleared"}}
    assert content["began_at"] <= content["ended_at"]
    assert content["remains"] == report["remains"]
    assert content["audit"] == {"first_act": 1, "anchor": report["anchor"]}
    assert people("verify", "--audit", "--anchor", content["audit"]["anchor"], "--json").last["ok"]
    for line in ("2 data keys destroyed", "public.user_logins: 4 rows cleared", "backups and WAL"):
        assert line in as_text
    assert report["anchor"] in as_text
    references = [subject for (subject,) in query("SELECT subject FROM pii.erasure")]
    ids = [user for (user,) in query("SELECT user_id FROM user_logins")]
    personal = [*ids, *map(str, references), *(one.hex for one in references), "example.com"]
    for text in (as_json, as_text):
        assert [one for one in ("user-1", "user-77", *personal) if one in text] == []
    assert {(people.folder / name).stat().st_mode & 0o777 for name in ("c.json", "c.txt")} == {
        0o600
    }


def test_a_certificate_that_cannot_be_made_is_refused_before_anybody_is_erased(
    people: Shell, query: Query
) -> None:
    (people.folder / "there.json").write_text("{}")
    for name in ("there.json", "there.txt", "no-such-folder/c.json"):
        told = people.error("forget", "user-1", *WHY, "--certificate", name, code=2)
        assert "nobody was erased" in told
    assert (people.folder / "there.json").read_text() == "{}"
    assert not (people.folder / "there.txt").exists()
    assert query("SELECT count(*) FROM sqs2pg.audit") == [(0,)]
    people.error("forget", "user-1", "--reason", "", "--certificate", "c", code=2)
    assert list(people.folder.glob("c*")) == []
    people("forget", "user-1", *WHY, "--delete-rows", "--certificate", "c")
    assert json.loads((people.folder / "c").read_text())["erased"]["rows"] == 2
    assert "2 rows deleted" in (people.folder / "c.txt").read_text()
    people.error("forget", "user-2", *WHY, "--dry-run", "--certificate", "d", code=2)

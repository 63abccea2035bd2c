"""`reveal --all`: everything that is held on one person, on record, and nothing on anybody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.acceptance.test_forget import ALL_LOGGED
from tests.integration.vault_support import login_of
from tests.logins import recurring_login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
WHY = ("--reason", "art. 15", "--ticket", "DSR-1")
REQUEST = "SELECT sequence FROM pii.request_person({subject}, 10, 'why')"
FETCHES = ("pii.fetch_person_rows", "pii.fetch_person_bodies", "pii.fetch_person_acts")
NAME = "INSERT INTO pii.requested_name (request, target, spelling) VALUES (%s, %s, %s)"


@pytest.fixture
def people(shell: Shell, send: Send, migrated_database: str) -> Shell:
    """The shell of a database with ann and bob in it, who share an address, and a bad message."""
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    ann = [
        recurring_login(n, user_id="ann", ip="192.0.2.1", device_id=f"593-{n}") for n in range(2)
    ]
    bob = recurring_login(3, user_id="bob", ip="192.0.2.1", device_id="bobs")
    bad = [json.dumps({"user_id": who, "ip": 5}) for who in ("ann", "bob")]
    send([*ann, bob, *bad])
    shell("run", "--drain")
    return shell


@pytest.fixture
def revealer(people: Shell, database: str) -> Iterator[Shell]:
    """The shell of somebody who may reveal, and nothing else."""
    with login_of(database, "sqs2pg_revealer") as conninfo:
        people.environment["DATABASE_URL"] = conninfo
        yield people


def test_everything_on_one_person_and_nothing_on_another(
    revealer: Shell, query: Query, database: str
) -> None:
    [(token,)] = query("SELECT DISTINCT masked_ip FROM user_logins")
    revealer("reveal", token, "--reason", "abuse")
    found = revealer("reveal", "--user", "ann", "--all", *WHY, "--json").last
    rows = found["rows"]["public.user_logins"]
    assert [row["user_id"] for row in rows] == ["ann", "ann"]
    assert {row["masked_ip"] for row in rows} == {token}
    assert {(one["field"], one["value"]) for one in found["values"]} == {
        *(("ip", "192.0.2.1"), ("device_id", "593-0"), ("device_id", "593-1")),
    }
    [body] = found["quarantine"]
    assert json.loads(body["body"]) == {"user_id": "ann", "ip": 5}
    assert [act["act"] for act in found["acts"]] == ["reveal", "reveal_all"]
    assert (found["unopened"], found["cut_off"], found["erased_at"]) == (0, [], None)
    assert "bob" not in json.dumps(found)

    [(act, subject, reason, ticket)] = query(
        "SELECT act, subject, reason, ticket FROM sqs2pg.audit ORDER BY sequence DESC LIMIT 1"
    )
    assert (act, reason, ticket) == ("reveal_all", "art. 15", "DSR-1")
    assert found["reference"] in subject.replace("-", "")
    assert query("SELECT count(*) FROM pii.requested_name") == [(0,)]

    shown = revealer("reveal", "--user", "-", "--all", *WHY, stdin="\ufeffann\r\n")
    for part in ("rows of public.user_logins: 2", "device_id\t", "quarantined messages: 1"):
        assert part in shown.out
    assert "ann" not in shown.err


def test_one_who_was_erased_and_one_who_was_never_here(
    people: Shell, query: Query, database: str
) -> None:
    people("forget", "ann", "--reason", "art. 17")
    told = people.error("reveal", "--user", "ann", "--all", *WHY, code=1)
    assert "this person was erased on" in told
    ended = people("reveal", "--user", "ann", "--all", *WHY, "--json", code=1)
    acts = [act["act"] for act in ended.last["acts"]]
    assert acts == ["forget", "forget_done", "reveal_all", "reveal_all"]
    told = people.error("reveal", "--user", "nobody", "--all", *WHY, code=1)
    assert "nothing is held on that person" in told
    assert query("SELECT count(*) FROM sqs2pg.audit WHERE act = 'reveal_all'") == [(3,)]


def test_damage_hides_no_other_value(people: Shell, query: Query) -> None:
    query(
        "UPDATE pii.value SET sealed = set_byte(sealed, 20, get_byte(sealed, 20) # 1)"
        " WHERE field = 'ip'; UPDATE sqs2pg.quarantine"
        " SET body = set_byte(body, 30, get_byte(body, 30) # 1)"
    )
    found = people("reveal", "--user", "ann", "--all", *WHY, "--json").last
    assert {one["field"] for one in found["values"]} == {"device_id"}
    assert (found["unopened"], found["quarantine"]) == (2, [])


def test_the_limit_of_people_is_its_own(revealer: Shell, query: Query) -> None:
    query("UPDATE pii.state SET people_per_hour_max = 2, reveals_per_hour_max = 1")
    for who in ("ann", "bob"):
        revealer("reveal", "--user", who, "--all", *WHY)
    told = revealer.error("reveal", "--user", "ann", "--all", *WHY, code=1)
    assert "revealed as many people within the hour" in told
    assert "vault.people_per_hour_max" in told
    revealer("reveal", "--user", "ann", "--limit", "1", *WHY)
    told = revealer.error("reveal", "--user", "ann", "--limit", "1", *WHY, code=1)
    assert "vault.reveals_per_hour_max" in told
    acts = query("SELECT act, count(*) FROM sqs2pg.audit GROUP BY 1 ORDER BY 1")
    assert acts == [("reveal", 1), ("reveal_all", 2), ("reveal_refused", 2)]


def test_the_name_is_not_in_the_servers_log(
    revealer: Shell, database: str, server_logs: Callable[[], str]
) -> None:
    name = database.rpartition("/")[2]
    with psycopg.connect(database, autocommit=True) as owner:
        for setting, value in ALL_LOGGED.items():
            owner.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    before = len(server_logs())
    revealer("reveal", "--user", "ann", "--all", "--reason", "a test")
    logged = server_logs()[before:]
    assert "COPY pii.requested_name" in logged
    assert "'ann'" not in logged
    assert "192.0.2.1" not in logged


@pytest.mark.usefixtures("people")
def test_the_database_gives_nothing_without_a_committed_request_of_ones_own(
    query: Query, database: str
) -> None:
    [(ann,), (bob,)] = query(
        "SELECT v.subject FROM pii.value v JOIN user_logins u ON u.masked_device_id = v.token"
        " GROUP BY 1 ORDER BY min(u.user_id)"
    )
    refused = psycopg.errors.InsufficientPrivilege
    with (
        login_of(database, "sqs2pg_revealer") as one,
        login_of(database, "sqs2pg_revealer") as other,
        psycopg.connect(one, autocommit=True) as mine,
        psycopg.connect(other, autocommit=True) as theirs,
    ):
        [(number,)] = mine.execute(REQUEST.format(subject=f"'{ann}'")).fetchall()
        plain = mine.execute(
            "SELECT sequence FROM pii.request_reveal(NULL, %s, 5, 'why')", [ann]
        ).fetchall()[0][0]
        for fetch in FETCHES:
            with pytest.raises(refused):
                theirs.execute(f"SELECT * FROM {fetch}(%s)", [number])
            with pytest.raises(refused):  # a request for values is none for everything
                mine.execute(f"SELECT * FROM {fetch}(%s)", [plain])
            mine.execute("BEGIN")
            [(open_,)] = mine.execute(REQUEST.format(subject=f"'{ann}'")).fetchall()
            with pytest.raises(refused):
                mine.execute(f"SELECT * FROM {fetch}(%s)", [open_])
            mine.execute("ROLLBACK")
        # Nobody adds a name to the request of another login, or reads what was added.
        theirs.execute(NAME, [number, "public.user_logins", "bob"])
        mine.execute(NAME, [number, "public.user_logins", "ann"])
        found = mine.execute("SELECT found ->> 'user_id' FROM pii.fetch_person_rows(%s)", [number])
        assert found.fetchall() == [("ann",), ("ann",)]
        for attempt in (
            "SELECT * FROM pii.requested_name",
            "DELETE FROM pii.requested_name",
            (
                "INSERT INTO pii.requested_name (request, role, target, spelling)"
                f" VALUES ({number}, 'x', 'y', 'z')"
            ),
            f"SELECT pii.committed_request({number})",
            f"SELECT pii.committed_person({number})",
        ):
            with pytest.raises(refused):
                mine.execute(attempt)
        bodies = mine.execute("SELECT count(*) FROM pii.fetch_person_bodies(%s)", [number])
        assert bodies.fetchall() == [(1,)]
    assert bob != ann


@pytest.mark.parametrize(
    "arguments",
    [
        ("--all",),
        ("v1_" + 32 * "0", "--all"),
        ("v1_" + 32 * "0", "--user", "ann", "--all"),
        ("--user", "ann", "--all", "--limit", "3"),
    ],
)
def test_all_goes_with_a_person_alone(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell.error("reveal", *arguments, *WHY, code=2)

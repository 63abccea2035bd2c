"""Expressions and filters, as users run them: rows, the books, the vault, drift, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
WHY = ("--reason", "a test")

PEOPLE = """
report_unknown = true
[sink]
table = "person"
[vault]
enabled = true
[[route]]
drop = true
when = { expression = "kind == 'ping'" }
[[field]]
source = "user_id"
column = "user_id"
required = true
[[field]]
column = "contact"
expression = "not_null(mail, contact.mail)"
lower = true
mask = "pseudonymize"
domain = "contact"
recover = true
[[field]]
source = "phone"
column = "phone"
mask = "pseudonymize"
recover = true
[[field]]
column = "label"
expression = "join('/', [plan, user_id])"
[[field]]
column = "known_by"
expression = "{id: user_id, plan: plan}"
type = "jsonb"
required = true
[[field]]
column = "plan"
expression = "plan"
"""


def person(number: int, **more: Any) -> str:
    values = {"user_id": f"user-{number}", "plan": "free", "phone": f"+49 30 {number}"}
    return json.dumps({**values, "contact": {"mail": f"User{number}@example.org"}, **more})


@pytest.fixture
def people(shell: Shell, send: Send, query: Query) -> Shell:
    """The shell of a database with three people in it, and two messages that a filter took."""
    (shell.folder / "sqs2pg.toml").write_text(PEOPLE)
    shell("migrate")
    query("ALTER TABLE person ALTER known_by SET NOT NULL")
    pings = [json.dumps({"kind": "ping", "user_id": 7})] * 2
    send([person(0), person(1), person(2, mail="two@example.org"), *pings])
    done = shell("run", "--drain", "--json").last
    assert (done["written"], done["quarantined"]) == (5, 0)
    return shell


def test_the_books_agree_with_what_a_filter_left_out(people: Shell, query: Query) -> None:
    assert query("SELECT count(*) FROM person") == [(3,)]
    assert query("SELECT count(*) FROM sqs2pg.delivery WHERE outcome = 'written'") == [(5,)]
    assert query("SELECT sum(dropped) FROM sqs2pg.tally") == [(2,)]
    assert people("verify", "--json").last["ok"]
    query("DELETE FROM person WHERE user_id = 'user-1'")
    assert not people("verify", "--json", code=1).last["ok"]


def test_a_recoverable_expression_is_revealed_and_rekeyed(people: Shell, query: Query) -> None:
    tokens = dict(query("SELECT user_id, contact FROM person"))
    assert people("reveal", tokens["user-0"], *WHY).out.strip() == "user0@example.org"
    assert people("reveal", tokens["user-2"], *WHY).out.strip() == "two@example.org"
    shown = people("reveal", "--user", "user-0", "--all", *WHY).out
    assert f"contact\t{tokens['user-0']}\tuser0@example.org" in shown
    people("keys", "rotate")
    people("keys", "rekey")
    again = dict(query("SELECT user_id, contact FROM person"))
    assert all(again[name].startswith("v2_") for name in again)
    assert people("reveal", again["user-0"], *WHY).out.strip() == "user0@example.org"
    assert people("verify", "--json").last["ok"]


def test_an_erasure_clears_what_contains_the_persons_id(people: Shell, query: Query) -> None:
    report = people("forget", "user-1", *WHY, "--json").last
    assert (report["found"], report["tables"]) == (1, {"public.person": 1})
    left = query("SELECT t::text FROM person t")
    assert not any("user-1" in row for (row,) in left)
    [erased] = query("SELECT contact, phone, label, known_by, plan FROM person WHERE label IS NULL")
    assert erased == (None, None, None, {}, "free")
    kept = query("SELECT label, known_by FROM person WHERE label IS NOT NULL ORDER BY 1")
    assert kept[0] == ("free/user-0", {"id": "user-0", "plan": "free"})


def test_what_expressions_read_is_no_drift(people: Shell, send: Send) -> None:
    send([person(3, mail="three@example.org", new=1)])
    people("run", "--drain")
    [drift] = [
        one for one in people("check", "--json").last["checks"] if one["name"] == "unknown fields"
    ]
    assert "new number 1" in drift["detail"]
    for name in ("mail", "plan", "kind"):
        assert name not in drift["detail"]


def test_what_fails_is_quarantined_and_replayed_once_the_expression_expects_it(
    people: Shell, send: Send, query: Query
) -> None:
    send([person(4, plan=None), person(5, plan=["free"])])
    done = people("run", "--drain", "--json").last
    assert (done["written"], done["quarantined"]) == (0, 2)
    found = query("SELECT DISTINCT reason, detail FROM sqs2pg.quarantine")
    assert found == [("expression_failed", "label")]
    file = people.folder / "sqs2pg.toml"
    file.write_text(file.read_text().replace("[plan, user_id]", "[to_string(plan), user_id]"))
    replayed = people("quarantine", "replay", "--reason", "expression_failed", "--json").last
    assert replayed["replayed"] == 1  # to a text field goes no array
    labels = query("SELECT label FROM person WHERE user_id IN ('user-4', 'user-5')")
    assert labels == [("null/user-4",)]


ARCHIVED = """
[sink]
table = "item"
[[route]]
drop = true
when = { expression = "to_number(size) < `2`" }
[[field]]
column = "key"
expression = "join('-', [region, number])"
[[field]]
column = "size"
expression = "to_number(size)"
type = "integer"
"""


def test_a_csv_archive_is_read_by_expressions_alone(shell: Shell, query: Query) -> None:
    (shell.folder / "sqs2pg.toml").write_text(ARCHIVED)
    shell("migrate")
    archive = shell.folder / "items.csv"
    archive.write_text("region,number,size\neu,1,7\neu,2,1\nus,3,\nus,,2\n")
    sample = shell("config", "test", "--sample", str(archive), "--json", code=1)
    assert "expression_failed" in sample.out
    done = shell("backfill", str(archive), "--json").last
    assert (done["written"], done["quarantined"]) == (3, 1)
    assert query("SELECT * FROM item ORDER BY 1") == [("eu-1", 7), ("us-3", None)]
    found = query("SELECT reason, detail FROM sqs2pg.quarantine")
    assert found == [("expression_failed", "key")]
    other = shell.folder / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert "no column of its header" in shell("backfill", str(other), code=1).err


def test_check_tells_what_looks_personal_in_a_kept_expression(shell: Shell) -> None:
    (shell.folder / "sqs2pg.toml").write_text(
        ARCHIVED + "[[field]]\ncolumn = 'shown'\nexpression = 'not_null(nick, customer.email)'\n"
    )
    shell("migrate")
    [policy] = [
        one for one in shell("check", "--json").last["checks"] if one["name"] == "masking policy"
    ]
    assert policy["status"] == "warn"
    assert "shown" in policy["detail"]


ERRORS = [
    ("expression = \"join('-', [plan\"", "ends too early"),
    ('expression = "uper(plan)"', "unknown function"),
    ('expression = "contact.mail"', "masks"),
    ('expression = "@"', "the whole record"),
    ('expression = "plan"\nmask = "pseudonymize"', "needs a `domain`"),
    ('expression = "plan"\nsource = "plan"', "a source and an expression"),
]


@pytest.mark.parametrize(("lines", "says"), ERRORS)
def test_an_expression_that_cannot_be_right_is_refused_at_the_start(
    shell: Shell, lines: str, says: str
) -> None:
    wrong = f'[[field]]\ncolumn = "wrong"\n{lines}\n'
    (shell.folder / "sqs2pg.toml").write_text(PEOPLE + wrong)
    for command in (("config", "show"), ("run", "--drain"), ("migrate",)):
        said = shell.error(*command, code=2)
        assert says in said

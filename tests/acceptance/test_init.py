"""`sqs2pg init`: for an unknown table and queue, it proposes a file that `check` accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

TABLE = """CREATE TABLE visit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    visit_id uuid NOT NULL,
    email varchar(200),
    phone varchar(12),
    client_ip inet,
    "homePhone" bigint,
    birthday date,
    seen_at timestamptz NOT NULL,
    pages integer,
    price numeric(10, 2),
    paid boolean,
    extra jsonb,
    noted_at timestamptz DEFAULT now(),
    shouted text GENERATED ALWAYS AS (upper(email)) STORED
)"""
VISITS = [
    {
        "visit_id": f"424cdd21-063a-43a7-b91b-{i:012x}",
        "email": f"user{i}@example.org",
        "user": {"id": f"u{i}", "address": {"city": "Ulm"}},
        "client": {"ip": f"198.51.100.{i}", "appVersion": "2.3.0"},
        "seen_at": "2026-03-01T12:00:00Z",
        "pages": i * 2**28,
        "price": 1.5,
        "paid": i % 2 == 0,
        "tags": ["a", 1],
        "a.b": None,
    }
    for i in range(12)
]


def checked(shell: Shell, text: str) -> dict[str, Any]:
    """Migrate and check with a proposed file; return what check says."""
    (shell.folder / "proposed.toml").write_text(text)
    shell("migrate", "-c", "proposed.toml")
    report: dict[str, Any] = shell("check", "-c", "proposed.toml", "--json").last
    assert report["ok"], report
    return report


def test_init_proposes_a_mapping_from_a_table(shell: Shell, query: Query) -> None:
    query(TABLE)
    text = shell("init", "--from-table", "visit").out
    checked(shell, text)
    for line in (
        'column = "email"',
        'mask = "pseudonymize"',
        'type = "timestamptz"',
        "required = true",
    ):
        assert line in text
    for left_out in ("id", "noted_at", "shouted"):
        assert f'# column = "{left_out}"' in text
    assert 'mask = "redact"' in text  # a pseudonym does not fit twelve characters
    assert 'column = "client_ip"\nkind = "ip"\nmask = "truncate_ip"' in text
    assert 'column = "homePhone"\ntype = "bigint"\nmask = "nullify"' in text
    assert 'column = "birthday"\ntype = "date"\nmask = "nullify"' in text


def test_a_view_is_no_target_that_check_passes(shell: Shell, query: Query) -> None:
    query(TABLE)
    query("CREATE VIEW visit_ids AS SELECT visit_id FROM visit")
    (shell.folder / "proposed.toml").write_text(shell("init", "--from-table", "visit_ids").out)
    assert 'visit_ids" is a view' in shell.error("migrate", "-c", "proposed.toml", code=2)
    report = shell("check", "-c", "proposed.toml", "--json", code=1).last
    [target] = [one for one in report["checks"] if one["name"] == "target visit_ids"]
    assert (target["status"], target["detail"]) == (
        "fail",
        "it is a view: rows cannot be copied into it",
    )


def test_init_proposes_a_mapping_from_messages(
    shell: Shell, query: Query, send: Send, sqs: Any, queue_url: str
) -> None:
    send([json.dumps(visit) for visit in VISITS])
    text = shell("init", "--sample", "50").out
    for canary in ("user3@example.org", "198.51.100.3", "u3", "Ulm"):
        assert canary not in text
    checked(shell, text)
    for line in (
        'source = "client.ip"\ncolumn = "client_ip"\nkind = "ip"\nmask = "pseudonymize"',
        'source = "email"\ncolumn = "email"\nkind = "email"\nmask = "pseudonymize"',
        'source = "user.id"\ncolumn = "user_id"\nmask = "pseudonymize"',
        'source = "user.address.city"\ncolumn = "user_address_city"',
        'source = "pages"\ncolumn = "pages"\ntype = "bigint"',
        'source = "visit_id"\ncolumn = "visit_id"\ntype = "uuid"',
        'source = "tags"\ncolumn = "tags"\ntype = "jsonb"',
        "source = \"['a.b']\"",
    ):
        assert line in text, line
    # Nothing was deleted, and everything is visible again at once.
    waiting = sqs.get_queue_attributes(
        QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages"]
    )["Attributes"]
    assert waiting["ApproximateNumberOfMessages"] == "12"
    done = shell("run", "--drain", "-c", "proposed.toml", "--json").last
    assert (done["written"], done["quarantined"]) == (12, 0)


def test_init_combines_a_table_with_enveloped_messages(
    shell: Shell, query: Query, send: Send
) -> None:
    query(TABLE)
    shell("migrate")
    wrapped = [
        {
            "Type": "Notification",
            "MessageId": str(i),
            "TopicArn": "arn:aws:sns:eu-central-1:1:t",
            "Message": json.dumps(visit),
            "Timestamp": "2026-03-01T12:00:00Z",
        }
        for i, visit in enumerate(VISITS)
    ]
    send([json.dumps(one) for one in wrapped])
    text = shell("init", "--from-table", "visit", "--sample", "20").out
    assert 'layers = ["sns"]' in text
    checked(shell, text)
    done = shell("run", "--drain", "-c", "proposed.toml", "--json").last
    # Four have more pages than the column holds.
    assert (done["written"], done["quarantined"]) == (8, 4)
    assert query("SELECT count(DISTINCT email) FROM visit") == [(8,)]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [((), "--from-table T"), (("--sample", "0"), "'--sample'")],
)
def test_init_refuses_options_that_make_no_sense(
    shell: Shell, arguments: tuple[str, ...], what: str
) -> None:
    assert what in shell.error("init", *arguments, code=2)


def test_a_queue_without_messages_and_a_file_that_is_there(shell: Shell, query: Query) -> None:
    assert "no JSON object" in shell.error("init", "--sample", "5", code=2)
    query(TABLE)
    shell("init", "--from-table", "visit", "-o", "new.toml")
    proposed = (shell.folder / "new.toml").read_text(encoding="utf-8")
    told = shell.error("init", "--from-table", "visit", "-o", "new.toml", code=2)
    assert "new.toml" in told
    assert (shell.folder / "new.toml").read_text(encoding="utf-8") == proposed

"""`sqs2pg config test --sample`: what would become of messages, which stay where they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.shell import Shell

Send = Callable[[list[str]], list[str]]
MAPPING = """
[[field]]
source = "id"
column = "id"
required = true
[[field]]
source = "email"
column = "email"
kind = "email"
mask = "pseudonymize"
[[field]]
source = "n"
column = "n"
type = "integer"
"""
GOOD = [{"id": f"o{i}", "email": f"canary{i}@example.org", "n": i} for i in range(3)]
BAD = ["not json", '{"id": "o4", "n": "canary-number"}', '{"email": "canary5@example.org"}']


@pytest.fixture
def mapped(shell: Shell) -> Shell:
    (shell.folder / "sqs2pg.toml").write_text(f'[sink]\ntable = "orders"\n{MAPPING}')
    return shell


def waiting(sqs: Any, queue_url: str) -> int:
    names = ["ApproximateNumberOfMessages"]
    found = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return int(found["ApproximateNumberOfMessages"])


def test_rows_are_masked_and_each_quarantine_is_named(
    mapped: Shell, send: Send, sqs: Any, queue_url: str
) -> None:
    ids = send([*map(json.dumps, GOOD), *BAD])
    found = mapped("config", "test", "--sample", "10", "--json", code=1).last
    assert (found["ok"], found["messages"], found["without"]) == (False, 6, ["table"])
    assert {row["id"] for row in found["rows"]} == {"o0", "o1", "o2"}
    assert all(row["email"].startswith("v1_") for row in found["rows"])
    assert {(one["message_id"], one["code"], one["field"]) for one in found["quarantined"]} == {
        (ids[3], "not_json", ""),
        (ids[4], "wrong_type", "n"),
        (ids[5], "missing_field", "id"),
    }
    assert found["faults"] == {"not_json": 1, "wrong_type": 1, "missing_field": 1}
    told = mapped("config", "test", "--sample", "10", code=1)
    assert f"QUARANTINE {ids[4]}: wrong_type n" in told.out
    assert "6 messages: 3 rows, 3 would be quarantined" in told.out
    assert "tried without the table" in told.err
    assert "canary" not in told.out + told.err + json.dumps(found)
    assert waiting(sqs, queue_url) == 6
    mapped("migrate")
    found = mapped("config", "test", "--sample", "10", "--json", code=1).last
    assert (found["without"], len(found["rows"])) == ([], 3)


def test_exit_codes(mapped: Shell, send: Send) -> None:
    assert "no message to try" in mapped.error("config", "test", "--sample", "5", code=2)
    assert "--sample" in mapped.error("config", "test", "--sample", "0", code=2)
    assert "nowhere.jsonl" in mapped.error("config", "test", "--sample", "nowhere.jsonl", code=2)
    send([json.dumps(GOOD[0])])
    assert mapped("config", "test", "--sample", "5", "--json").last["ok"]


def test_an_archive_needs_no_queue(mapped: Shell) -> None:
    packed = gzip.compress("\n".join([*map(json.dumps, GOOD), BAD[1]]).encode())
    (mapped.folder / "old.jsonl.gz").write_bytes(packed)
    nowhere = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "DATABASE_URL": "host=127.0.0.1 port=9",
    }
    found = mapped("config", "test", "--sample", "old.jsonl.gz", "--json", code=1, **nowhere).last
    assert (len(found["rows"]), found["without"]) == (3, ["table"])
    assert [(q["message_id"], q["code"]) for q in found["quarantined"]] == [
        ("line 4", "wrong_type")
    ]


@pytest.mark.parametrize("command", ["run", "backfill"])
def test_what_no_field_names_is_reported(mapped: Shell, send: Send, command: str) -> None:
    settings = (mapped.folder / "sqs2pg.toml").read_text()
    (mapped.folder / "sqs2pg.toml").write_text(f"report_unknown = true\n{settings}")
    bodies = [json.dumps({**one, "plan": 1}) for one in GOOD]
    mapped("migrate")
    if command == "run":
        send(bodies)
        mapped("run", "--drain")
    else:
        (mapped.folder / "old.jsonl").write_text("\n".join(bodies))
        mapped("backfill", "old.jsonl")
    report = mapped("check", "--json").last
    [found] = [one for one in report["checks"] if one["name"] == "unknown fields"]
    assert (found["status"], found["detail"]) == (
        "warn",
        "seen, and named by no field: plan number 3",
    )
    assert '[[field]]\nsource = "plan"\ncolumn = "plan"\ntype = "numeric"' in found["remedy"]


def test_a_csv_archive_is_read_by_the_mappings_types(mapped: Shell) -> None:
    (mapped.folder / "old.csv").write_text("id,email,n\no1,a@example.org,7\no2,b@example.org,x\no3")
    found = mapped("config", "test", "--sample", "old.csv", "--json", code=1).last
    assert [row["n"] for row in found["rows"]] == ["7"]
    assert [(q["message_id"], q["code"]) for q in found["quarantined"]] == [
        ("line 2", "wrong_type"),
        ("line 3", "csv_fields"),
    ]


def test_records_that_go_to_no_table_are_counted(mapped: Shell, send: Send) -> None:
    settings = mapped.folder / "sqs2pg.toml"
    settings.write_text(
        '[[route]]\ndrop = true\nwhen = {field = "id", equals = "o1"}\n'
        f'[[route]]\ntable = "orders"\n{MAPPING.replace("[[field]]", "[[route.field]]")}'
    )
    send([json.dumps(one) for one in GOOD])
    found = mapped("config", "test", "--sample", "10", "--json").last
    assert (found["messages"], len(found["rows"]), found["dropped"]) == (3, 2, 1)
    told = mapped("config", "test", "--sample", "10").out
    assert "3 messages: 2 rows, 1 record dropped, 0 would be quarantined" in told
    mapped("migrate")
    [sample] = [
        one
        for one in mapped("check", "--sample", "10", "--json").last["checks"]
        if one["name"] == "sample"
    ]
    assert sample["detail"] == "3 messages would become 2 rows, 1 record dropped"

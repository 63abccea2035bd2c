"""`sqs2pg backfill` of CSV, arrays, Parquet and standard input, and over several processes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.shell import Shell, told_error

Query = Callable[..., list[tuple[Any, ...]]]
PAYMENTS = """
[sink]
table = "payment"

[[field]]
source = "id"
column = "id"
type = "bigint"
required = true

[[field]]
source = "amount"
column = "amount"
type = "numeric"

[[field]]
source = "paid"
column = "paid"
type = "boolean"

[[field]]
source = "at"
column = "at"
type = "timestamptz"

[[field]]
source = "note"
column = "note"

[[field]]
source = "details"
column = "details"
type = "jsonb"
"""
CSV = (
    "\ufeffid,amount,paid,at,note,details\r\n"
    '1,10.50,true,2024-05-06T07:08:09Z,"one, ""two""\r\nthree","{""a"": [1]}"\r\n'
    "2,,false,,,\r\n"
    "3,1\r\n"
    "4,abc,,,,\r\n"
    '5,"1"0,,,,\r\n'
    "0006,+7,TRUE,,x,text\r\n"
)
ROWS = """SELECT id, amount::text, paid, at AT TIME ZONE 'UTC' = '2024-05-06 07:08:09', note,
details::text FROM payment ORDER BY id"""


@pytest.fixture
def payments(shell: Shell) -> Shell:
    (shell.folder / "sqs2pg.toml").write_text(PAYMENTS)
    shell("migrate")
    return shell


def test_csv_is_written_with_the_types_of_the_mapping(
    payments: Shell, query: Query, tmp_path: Path
) -> None:
    archive = tmp_path / "payments.csv.gz"
    archive.write_bytes(gzip.compress(CSV.encode()))
    done = payments("backfill", str(archive), "--json").last
    assert (done["lines"], done["written"], done["quarantined"]) == (6, 3, 3)
    assert query(ROWS) == [
        (1, "10.50", True, True, 'one, "two"\r\nthree', '{"a": [1]}'),
        (2, None, False, None, None, None),
        (6, "7", True, None, "x", '"text"'),
    ]
    assert query("SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1") == [
        ("csv_fields", "line 5 has 2 fields, the header 6"),
        ("csv_quotes", "line 7"),
        ("wrong_type", "amount"),
    ]
    assert payments("verify", "--json").last["ok"]
    assert payments("backfill", str(archive), "--json").last["skipped"] == 1
    # The same file under a name that does not say what it is.
    other = tmp_path / "payments.txt"
    other.write_text(CSV.replace("1,10.50", "7,10.50").replace("0006", "8").replace("2,,", "9,,"))
    assert payments("backfill", str(other), "--format", "csv", "--json").last["written"] == 3


def test_a_document_is_bounded_by_the_settings(
    payments: Shell, query: Query, tmp_path: Path
) -> None:
    settings = payments.folder / "sqs2pg.toml"
    settings.write_text(f"{PAYMENTS}\n[envelope]\ns3_bytes_max = 1024\n")
    records = [{"id": n, "note": "x" * (1024 if n == 500 else 100)} for n in range(600)]
    archive = tmp_path / "array.json"
    archive.write_text(json.dumps(records))
    done = payments("backfill", str(archive), code=1)
    assert "has a document of more than 1,024 bytes" in told_error(done.err)
    assert "envelope.s3_bytes_max" in done.err
    assert query("SELECT count(*), max(id) FROM payment") == [(500, 499)]
    settings.write_text(PAYMENTS)
    result = payments("backfill", str(archive), "--json").last
    assert (result["lines"], result["resumed"], result["quarantined"]) == (100, 500, 0)
    assert query("SELECT count(*), max(id) FROM payment") == [(600, 599)]


def test_arrays_and_parquet_are_written_record_by_record(
    payments: Shell, query: Query, tmp_path: Path
) -> None:
    records = [{"id": n, "amount": n / 4, "note": f"n{n}", "details": {"n": [n]}} for n in range(9)]
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "array.json").write_text(json.dumps(records[:3], indent=2))
    (folder / "pretty.json").write_text("\n".join(json.dumps(r, indent=2) for r in records[3:6]))
    table = pa.Table.from_pylist(records[6:])
    parquet.write_table(table, folder / "rows.parquet", row_group_size=2)
    done = payments("backfill", str(folder), "--json")
    assert (done.last["lines"], done.last["written"]) == (9, 9)
    written = query("SELECT id, amount::float8, note, details FROM payment ORDER BY id")
    assert written == [(n, n / 4, f"n{n}", {"n": [n]}) for n in range(9)]


def test_standard_input_is_written_once(payments: Shell, query: Query, tmp_path: Path) -> None:
    text = "".join(f'{{"id": {number}}}\n' for number in range(20))
    assert payments("backfill", "-", "--json", stdin=text).last["written"] == 20
    again = payments("backfill", "-", "--json", stdin=text).last
    assert (again["written"], again["skipped"]) == (0, 1)
    (tmp_path / "same.jsonl").write_text(text)
    assert payments("backfill", str(tmp_path / "same.jsonl"), "--json").last["skipped"] == 1
    assert query("SELECT count(*), sum(id) FROM payment") == [(20, 190)]
    assert query("SELECT source FROM sqs2pg.backfill") == [(str(tmp_path / "same.jsonl"),)]
    told = payments.error("backfill", "-", "--workers", "2", code=2)
    assert "standard input is one archive" in told


def test_workers_share_the_archives(payments: Shell, query: Query, tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    for number in range(5):
        lines = "".join(f'{{"id": {number * 1000 + n}}}\n' for n in range(100 * (number + 1)))
        (folder / f"{number}.jsonl").write_text(lines)
    (folder / "z.tar").write_bytes(b"PK\x03\x04")
    told = payments("backfill", str(folder), "--workers", "2", "--json", code=1)
    assert f"{folder}/z.tar is not JSON lines but zip" in told.err
    assert "hint: unpack it (unzip FILE)" in told_error(told.err)
    (folder / "z.tar").unlink()
    assert query("SELECT count(*) FROM payment") == [(1500,)]
    done = payments("backfill", str(folder), "--workers", "3", "--json").last
    assert (done["skipped"], done["files"], done["lines"]) == (5, 0, 0)
    assert payments("verify", "--json").last["ok"]
    # A worker that fails ends the run with its exit code.
    failed = payments("backfill", str(folder), "--workers", "2", "-c", "nowhere.toml", code=2)
    assert "nowhere.toml" in failed.err


def test_a_workers_own_error_ends_the_run(payments: Shell, query: Query, tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    (folder / "0.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}\n' * 9)[:-4])
    (folder / "1.jsonl").write_text('{"id": 2}')
    told = payments("backfill", str(folder), "--workers", "2", code=1)
    assert f"{folder}/0.jsonl.gz is damaged or cut off" in told.err
    last = json.loads(told.err.splitlines()[-1])
    assert last["event"] == f"a worker ended with exit code 1 while it wrote {folder}/0.jsonl.gz"


def test_each_record_of_cloudtrail_is_written_once(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    example = Path(__file__).parents[2] / "examples/cloudtrail/sqs2pg.toml"
    (shell.folder / "sqs2pg.toml").write_text(example.read_text())
    shell("migrate")
    events = [
        {
            "eventID": f"5c1e32d4-2b7c-4d4e-9a51-{number:012}",
            "eventTime": "2026-05-01T08:30:00Z",
            "eventSource": "s3.amazonaws.com",
            "eventName": "GetObject",
            "sourceIPAddress": address,
            "userIdentity": {"type": "IAMUser", "userName": "ada"},
        }
        for number, address in enumerate(["203.0.113.7", "cloudtrail.amazonaws.com"] * 3)
    ]
    archive = tmp_path / "123_CloudTrail_eu-central-1_20260501T0835Z_x.json.gz"
    archive.write_bytes(gzip.compress(json.dumps({"Records": events}).encode()))
    # Delivered again, among others, in another file.
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"Records": [events[0], {"eventName": "x"}]}))
    done = shell("backfill", str(archive), "--json").last
    assert (done["lines"], done["written"]) == (6, 6)
    again = shell("backfill", str(other), "--json").last
    assert (again["lines"], again["duplicate"], again["quarantined"]) == (2, 1, 1)
    assert query("SELECT count(*), count(DISTINCT source_ip) FROM cloudtrail_event") == [(6, 2)]
    assert query("SELECT count(*) FROM cloudtrail_event WHERE source_ip LIKE 'v1%%'") == [(6,)]


FLOW = """
[sink]
table = "flow"

[archive]
format = "space"

[[field]]
source = "interface-id"
column = "interface"
required = true

[[field]]
source = "srcaddr"
column = "source"
type = "inet"

[[field]]
source = "bytes"
column = "bytes"
type = "bigint"

[[field]]
source = "start"
column = "began"
type = "timestamptz"
format = "epoch_s"
"""
FLOW_LINES = """\
version interface-id srcaddr bytes start
2 eni-1 172.31.16.139 840 1418530010
2 eni-2 - - 1431280876
2 eni-3
"""
FLOW_ROWS = """SELECT interface, host(source), bytes, extract(epoch FROM began)::bigint FROM flow
ORDER BY 1"""


def test_flow_logs_are_written_with_the_types_of_the_mapping(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    settings = shell.folder / "sqs2pg.toml"
    settings.write_text(FLOW)
    shell("migrate")
    packed = tmp_path / "flow.log.gz"
    packed.write_bytes(gzip.compress(FLOW_LINES.encode()))
    done = shell("backfill", str(packed), "--json").last
    assert (done["lines"], done["written"], done["quarantined"]) == (3, 2, 1)
    rows = [("eni-1", "172.31.16.139", 840, 1418530010), ("eni-2", None, None, 1431280876)]
    assert query(FLOW_ROWS) == rows
    assert query("SELECT reason, detail FROM sqs2pg.quarantine") == [
        ("space_fields", "line 4 has 2 fields, and 5 are named")
    ]
    # Without a declaration it is not guessed, and nothing is quarantined.
    file = tmp_path / "flow.txt"
    file.write_text(FLOW_LINES.replace("eni-", "eno-"))
    refused = shell("backfill", str(file), "--format", "auto", code=1)
    assert "can be read as JSON" in refused.err
    assert "archive.format" in refused.err
    assert query("SELECT count(*) FROM sqs2pg.quarantine") == [(1,)]
    # Lines of a subscription have no header.
    settings.write_text(
        FLOW.replace('"space"', '"space"\ncolumns = ["v", "interface-id", "srcaddr"]')
    )
    events = [{"timestamp": 1, "message": f"2 eni-{n} 10.0.0.{n} 5 6"} for n in (8, 9)]
    batch = {"messageType": "DATA_MESSAGE", "owner": "1", "logEvents": events}
    file.write_bytes(gzip.compress(json.dumps(batch).encode()))
    assert shell("backfill", str(file), "--json").last["written"] == 2
    assert query(FLOW_ROWS)[2:] == [(f"eni-{n}", f"10.0.0.{n}", None, None) for n in (8, 9)]

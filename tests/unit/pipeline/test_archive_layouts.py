"""Layouts of AWS's logs: CloudTrail, subscriptions of CloudWatch, VPC flow logs, load balancers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.pipeline.archive_check import ArchiveRefused
from sqs2pg.pipeline.archive_csv import split_csv
from sqs2pg.pipeline.archive_documents import HEAD_BYTES, split_documents
from sqs2pg.pipeline.archive_lines import Line, LineChunk
from sqs2pg.pipeline.archive_reader import ArchiveForm, find, read
from sqs2pg.pipeline.archive_space import fields_of, split_space

EVENTS: list[Any] = [
    {"eventID": f"e{n}", "userIdentity": {"arn": "a]}{["}, "resources": [{"n": n}, []]}
    for n in range(30)
]


def lines(tmp_path: Path, content: bytes, **form: Any) -> list[Line]:
    file = tmp_path / "x.log"
    file.write_bytes(content)
    [found] = find([str(file)], None)
    return list(read(found, None, ArchiveForm(**form)).lines())


def bodies(tmp_path: Path, content: bytes, **form: Any) -> list[Any]:
    return [json.loads(line.body) for line in lines(tmp_path, content, **form)]


@pytest.mark.parametrize("indent", [None, 2])
def test_each_record_of_cloudtrail_is_a_unit(tmp_path: Path, indent: int | None) -> None:
    whole = json.dumps({"Records": EVENTS}, indent=indent).encode()
    for content in (whole, gzip.compress(whole), b"\xef\xbb\xbf \n" + whole + b"\n"):
        assert bodies(tmp_path, content) == EVENTS
    assert bodies(tmp_path, whole * 2) == EVENTS * 2
    more = whole + b"\n" + json.dumps(EVENTS[0]).encode()
    assert bodies(tmp_path, more) == [*EVENTS, EVENTS[0]]
    assert bodies(tmp_path, b'{"Records": []}') == []
    wrapped = bodies(tmp_path, whole, takes_objects=False)
    assert wrapped == [[event] for event in EVENTS]


def test_a_mapping_that_reads_records_keeps_the_document(tmp_path: Path) -> None:
    whole = json.dumps({"Records": EVENTS}).encode()
    kept = bodies(tmp_path, whole + b"\n" + whole, reads=frozenset({"Records"}))
    assert kept == [{"Records": EVENTS}] * 2


def test_a_cut_off_cloudtrail_file_gives_the_records_before(tmp_path: Path) -> None:
    whole = json.dumps({"Records": EVENTS[:2], "more": {"a": ["x", 1]}}).encode()
    at = whole.index(b'"e1"')
    [first, second] = lines(tmp_path, whole[:at])
    assert json.loads(first.body) == EVENTS[0]
    assert second.body == b'{"eventID":'
    for end in range(whole.index(b'"more"') + 1, len(whole)):
        assert bodies(tmp_path, whole[:end]) == EVENTS[:2]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],: \n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    groups=st.lists(
        st.tuples(
            st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), max_size=4),
            st.dictionaries(st.text("ab", min_size=1, max_size=2), VALUES, max_size=2),
        ),
        max_size=3,
    ),
    indent=st.sampled_from([None, 0, 2]),
    cuts=st.lists(st.integers(0, 500), max_size=8),
)
def test_records_are_found_wherever_the_pieces_end(
    groups: list[tuple[list[Any], dict[str, Any]]], indent: int | None, cuts: list[int]
) -> None:
    whole = "\n".join(json.dumps({"Records": one, **more}, indent=indent) for one, more in groups)
    raw = whole.encode()
    ends = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    pieces = [raw[begin:end] for begin, end in pairwise(ends)]
    chunks = split_documents(iter(pieces), "x", records=True)
    found = [json.loads(one) for chunk in chunks for one in chunk.bodies]
    assert found == [record for one, _ in groups for record in one]


def batch(events: Sequence[tuple[int, str]], kind: str = "DATA_MESSAGE", **more: Any) -> bytes:
    found = [{"id": "3", "timestamp": at, "message": text} for at, text in events]
    return json.dumps({**more, "messageType": kind, "owner": "1", "logEvents": found}).encode()


CONTROL = batch([(1, "CWL CONTROL MESSAGE: Checking health")], "CONTROL_MESSAGE")
EVENT_LINES = [Line(b'{"n": 1}', 1_700_000_000_001), Line(b'{"n": 2}', 1_700_000_000_002)]


def test_events_of_a_subscription_are_units_with_their_times(tmp_path: Path) -> None:
    events = [(line.sent_ms or 0, line.body.decode()) for line in EVENT_LINES]
    one, owned = batch(events), batch(events, owner="1", logGroup="g")
    for content in (one, owned, one + b"\n" + CONTROL, CONTROL + one, CONTROL + b"\n" + owned):
        assert lines(tmp_path, content) == EVENT_LINES
    assert lines(tmp_path, CONTROL) == []
    # As Firehose puts them into one object: each compressed by itself, without line feeds.
    members = b"".join(map(gzip.compress, (CONTROL, one, owned)))
    assert lines(tmp_path, members) == EVENT_LINES * 2
    assert lines(tmp_path, gzip.compress(members)) == EVENT_LINES * 2


def test_a_mapping_that_reads_log_events_keeps_the_batch(tmp_path: Path) -> None:
    content = batch([(1, "{}")])
    for whole in (content, content * 2, content + b"\n" + CONTROL):
        kept = lines(tmp_path, whole, reads=frozenset({"logEvents"}))
        assert b"".join(line.body for line in kept) == whole.replace(b"\n", b"")


def test_a_field_of_that_name_is_no_batch(tmp_path: Path) -> None:
    for document in (
        {"messageType": "DATA_MESSAGE"},
        {"a": {"messageType": "CONTROL_MESSAGE"}},
        {"messageType": "DATA_MESSAGE", "logEvents": [{"message": 1, "timestamp": 2}]},
        {"messageType": "OTHER", "logEvents": []},
    ):
        content = json.dumps(document).encode()
        assert bodies(tmp_path, content + b"\n" + content) == [document] * 2


def test_documents_without_line_feeds_are_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.pipeline.archive_lines.LINE_BYTES_MAX", 2**17)
    event = json.dumps({"n": 1, "text": "x" * 100}).encode()
    count = 3 * 2**19 // len(event)
    assert len(lines(tmp_path, event * count, document_bytes_max=2**17)) == count
    long = batch([(1, "{}")] * (HEAD_BYTES // 40))
    assert HEAD_BYTES < len(long) < 2**17
    packed = gzip.compress(long) * 20
    assert len(lines(tmp_path, packed, document_bytes_max=2**17)) == 20 * (HEAD_BYTES // 40)


FLOW = b"""\
version account-id interface-id srcaddr dstaddr srcport dstport start end action log-status
2 123456789010 eni-1 172.31.16.139 172.31.16.21 20641 22 1418530010 1418530070 ACCEPT OK
2 123456789010 eni-2 - - - - 1431280876 1431280934 - NODATA
2 123456789010 eni-3
"""
KINDS = {"srcport": "number", "start": "number_text", "srcaddr": "string"}


def test_flow_logs_have_their_names_in_the_first_line(tmp_path: Path) -> None:
    for content in (FLOW, FLOW.replace(b"\n", b"\r\n"), gzip.compress(FLOW), FLOW[:-1]):
        first, second, third = lines(tmp_path, content, format="space", kinds=KINDS)
        assert json.loads(first.body) == {
            "version": "2",
            "account-id": "123456789010",
            "interface-id": "eni-1",
            "srcaddr": "172.31.16.139",
            "dstaddr": "172.31.16.21",
            "srcport": 20641,
            "dstport": "22",
            "start": "1418530010",
            "end": "1418530070",
            "action": "ACCEPT",
            "log-status": "OK",
        }
        nothing = json.loads(second.body)
        assert (nothing["srcaddr"], nothing["srcport"], nothing["action"]) == (None, None, None)
        assert third.body == b"2 123456789010 eni-3"


def space(text: str, columns: Sequence[str] = (), **kinds: str) -> list[LineChunk]:
    given = (Line(line, None) for line in text.encode().split(b"\n"))
    return list(split_space(given, "x.log", kinds, columns))


def test_a_line_with_another_number_of_fields_is_quarantined() -> None:
    [chunk] = space("a b\n1 2\n1 2 3\n\n1\n")
    assert [(at, f.code, f.detail) for at, f in chunk.faults.items()] == [
        (1, "space_fields", "line 3 has 3 fields, and 2 are named"),
        (2, "space_fields", "line 5 has 1 fields, and 2 are named"),
    ]
    assert chunk.bodies == [b'{"a":"1","b":"2"}', b"1 2 3", b"1"]
    # AWS adds fields at the end.
    [declared] = space("1 2 3\n1", ["a", "b"])
    assert declared.bodies[0] == b'{"a":"1","b":"2"}'
    assert list(declared.faults) == [1]


ALB = (
    "https 2018-07-02T22:23:00.186641Z app/lb/50dc 192.168.131.39:2817 10.0.0.1:80 0.086 200 "
    '"GET https://www.example.com:443/?a=\\"b c\\" HTTP/1.1" "curl/7.46.0 (x)" "-" "" -\n'
    'h2 2018-07-02T22:23:00.186641Z app/lb/50dc [2001:db8::1]:2817 - -1 - "- - -" "a"b" "-" "" -\n'
)
COLUMNS = [
    *("type", "time", "elb", "client_ip:client_port", "target_ip:target_port", "seconds", "status"),
    *("request", "user_agent", "domain", "reason"),
]


def test_fields_of_a_load_balancer_may_be_quoted() -> None:
    [chunk] = space(ALB, COLUMNS, client_port="number", seconds="number", status="number")
    first, second = map(json.loads, chunk.bodies)
    assert not chunk.faults
    assert first == {
        "type": "https",
        "time": "2018-07-02T22:23:00.186641Z",
        "elb": "app/lb/50dc",
        "client_ip": "192.168.131.39",
        "client_port": 2817,
        "target_ip": "10.0.0.1",
        "target_port": "80",
        "seconds": 0.086,
        "status": 200,
        "request": 'GET https://www.example.com:443/?a="b c" HTTP/1.1',
        "user_agent": "curl/7.46.0 (x)",
        "domain": None,
        "reason": None,
    }
    assert (second["client_ip"], second["client_port"]) == ("2001:db8::1", 2817)
    assert (second["target_ip"], second["target_port"], second["status"]) == (None, None, None)
    assert (second["request"], second["user_agent"]) == ("- - -", 'a"b')


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("a  b\tc ", ["a", "b", "c"]),
        ('a "b c" d', ["a", "b c", "d"]),
        ('"" ""', ["", ""]),
        (r'"a\\" "b\"" c', ["a\\", 'b"', "c"]),
        ("a\u00a0b c", ["a\u00a0b", "c"]),
        ('a"b c', ['a"b', "c"]),
        ('a "b c', None),
        ('a "', None),
        ('"', None),
    ],
)
def test_quotes_hold_a_field_together(line: str, fields: list[str] | None) -> None:
    assert fields_of(line) == fields


@given(st.text('" \\\t-ab', max_size=40))
def test_fields_of_any_line_are_read_or_left(line: str) -> None:
    fields = fields_of(line)
    if '"' not in line:
        assert fields == line.split()
    elif fields is not None:
        assert sum(map(len, fields)) <= len(line)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8)))
def test_what_is_quoted_comes_back(fields: list[str]) -> None:
    escaped = [one.replace("\\", "\\\\").replace('"', '\\"') for one in fields]
    quoted = [f'"{one}"' for one in escaped]
    assert fields_of(" ".join(quoted)) == fields


def test_flow_logs_may_come_through_cloudwatch(tmp_path: Path) -> None:
    rows = FLOW.decode().splitlines()[1:3]
    content = CONTROL + batch([(1_700_000_000_001, rows[0]), (1_700_000_000_002, rows[1])])
    names = tuple(FLOW.decode().splitlines()[0].split())
    found = lines(tmp_path, gzip.compress(content), format="space", columns=names)
    assert [line.sent_ms for line in found] == [1_700_000_000_001, 1_700_000_000_002]
    assert [json.loads(line.body)["interface-id"] for line in found] == ["eni-1", "eni-2"]


def test_a_column_without_a_name_of_its_own_is_refused() -> None:
    with pytest.raises(ArchiveRefused, match="columns 1 and 3 of its header have one name"):
        space("a b a\n1 2 3")
    with pytest.raises(ArchiveRefused, match=r"columns 1 and 2 of archive\.columns have one name"):
        space("1 2", ["a:a"])
    with pytest.raises(ArchiveRefused, match="no column of its header is a `source`"):
        space("a b\n1 2", c="string")
    with pytest.raises(ArchiveRefused, match="its first line names no column"):
        space('"a\nb')
    assert space("") == []


def test_binary_data_is_refused_where_text_is_declared(tmp_path: Path) -> None:
    for content in (b"PK\x03\x04" + bytes(600), b"PAR1" + bytes(600)):
        with pytest.raises(ArchiveRefused):
            lines(tmp_path, content, format="space", columns=("a",))


def test_csv_without_a_header_takes_declared_names() -> None:
    [chunk] = split_csv(iter([b"1,x\n2\n"]), "x.csv", {"id": "number"}, ["id", "name"])
    assert chunk.bodies == [b'{"id":1,"name":"x"}', b"2"]
    assert chunk.faults[1].detail == "line 2 has 1 fields, 2 are named"

"""Archives that are no JSON lines: documents over several lines, arrays, CSV, Parquet, a pipe."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from sqs2pg.errors import Sqs2pgError
from sqs2pg.mapping.text_lines import TextLines
from sqs2pg.pipeline.archive_check import ArchiveRefused
from sqs2pg.pipeline.archive_csv import split_csv
from sqs2pg.pipeline.archive_documents import split_documents
from sqs2pg.pipeline.archive_lines import LineChunk, odd_lines, split_lines, split_usual_lines
from sqs2pg.pipeline.archive_reader import ArchiveForm, Reader, find, find_all, identify, read
from tests.native import extension

LOGINS: list[Any] = [{"id": number, "text": 'a ] } { [ "b" \\ ,\n'} for number in range(40)]
KINDS = {"id": "number", "ok": "boolean", "name": "string", "more": "any"}


def reader(tmp_path: Path, content: bytes, name: str = "x.jsonl", **form: Any) -> Reader:
    file = tmp_path / name
    file.write_bytes(content)
    [found] = find([str(file)], None)
    return read(found, None, ArchiveForm(**form))


def bodies(of: Reader) -> list[bytes]:
    return [line.body for line in of.lines()]


@pytest.mark.parametrize(
    "content",
    [
        *(json.dumps(LOGINS, indent=indent) for indent in (None, 0, 2, "\t")),
        "[\n" + ",\n".join(map(json.dumps, LOGINS)) + "\n]\n",
        " \n".join(json.dumps(login, indent=2) for login in LOGINS),
        "".join(json.dumps(login, indent=2) for login in LOGINS),
        "".join(json.dumps([login, login], indent=2) for login in LOGINS[::2]),
        "\n".join(json.dumps(LOGINS[at : at + 10]) for at in range(0, 40, 10)),
        "\ufeff" + json.dumps(LOGINS, indent=1),
    ],
)
def test_documents_and_elements_of_arrays_are_records(tmp_path: Path, content: str) -> None:
    for packed in (content.encode(), gzip.compress(content.encode())):
        found = [json.loads(one) for one in bodies(reader(tmp_path, packed))]

        assert len(found) == 40
        assert {one["text"] for one in found} == {LOGINS[0]["text"]}


def test_an_array_stays_whole_for_a_mapping_that_reads_arrays(tmp_path: Path) -> None:
    lines = [json.dumps(LOGINS[at : at + 10]).encode() for at in range(0, 40, 10)]
    kept = reader(tmp_path, b"\n".join(lines), keeps_arrays=True, takes_objects=False)
    assert bodies(kept) == lines
    spread = json.dumps(LOGINS, indent=2).encode()
    wrapped = bodies(reader(tmp_path, spread, keeps_arrays=True, takes_objects=False))
    assert [json.loads(one) for one in wrapped] == [[login] for login in LOGINS]


def test_a_line_that_a_crash_has_cut_does_not_make_documents(tmp_path: Path) -> None:
    for content in (b'{"id": 1, "te\n{"id": 2}', b'{"id": 1}\n{"id": 2, "te'):
        assert bodies(reader(tmp_path, content)) == content.split(b"\n")


def test_a_document_that_is_cut_off_is_a_record_too(tmp_path: Path) -> None:
    assert bodies(reader(tmp_path, b'[{"a": 1}, {"a": [2')) == [b'{"a": 1}', b'{"a": [2']
    assert bodies(reader(tmp_path, b'[1, "x", null ,')) == [b"1", b'"x"', b"null"]
    assert bodies(reader(tmp_path, b"[{]")) == [b"{]"]


@pytest.mark.parametrize("size", [1, 37, 600, 10**6])
@pytest.mark.parametrize("end", [b"", b'"}, {}]'])
def test_a_document_is_bounded(size: int, end: bytes) -> None:
    content = b'[{"a": 1}, [2], {"a": "' + b"x" * 6000 + end
    pieces = (content[at : at + size] for at in range(0, len(content), size))
    found: list[bytes] = []

    def read_all() -> None:
        for chunk in split_documents(pieces, "x", bytes_max=1000):
            found.extend(chunk.bodies)

    with pytest.raises(Sqs2pgError, match=r"has a document of more than 1,000 bytes") as caught:
        read_all()
    assert found == [b'{"a": 1}', b"[2]"]
    assert caught.value.code == "archive_line"
    assert "envelope.s3_bytes_max" in caught.value.hint


def test_an_array_of_short_documents_has_no_bound(tmp_path: Path) -> None:
    for indent in (None, 1):
        content = json.dumps(LOGINS * 3, indent=indent).encode()
        kept = bodies(reader(tmp_path, content, document_bytes_max=len(content) // 20))
        assert [json.loads(one) for one in kept] == LOGINS * 3


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    documents=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), max_size=6),
    in_array=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_documents_are_found_wherever_the_pieces_end(
    documents: list[Any], in_array: bool, indent: int | None, cuts: list[int]
) -> None:
    whole = (
        json.dumps(documents, indent=indent)
        if in_array
        else "\n".join(json.dumps(one, indent=indent) for one in documents)
    ).encode()
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[begin:end] for begin, end in pairwise(ends)]
    found = [one for chunk in split_documents(iter(pieces), "x") for one in chunk.bodies]
    assert list(map(json.loads, found)) == documents


def csv_chunks(content: bytes, kinds: dict[str, str] = KINDS) -> list[LineChunk]:
    return list(split_csv(iter([content[:7], content[7:]]), "x.csv", kinds))


def csv_rows(content: bytes) -> list[Any]:
    return [json.loads(one) for chunk in csv_chunks(content) for one in chunk.bodies]


def test_a_csv_record_is_an_object_with_the_types_of_the_mapping() -> None:
    content = (
        b"\xef\xbb\xbfid,ok,name,more,other\r\n"
        b'1,true,"a, ""b""\r\nc","{""x"": [1]}",7\r\n'
        b"+007.50,FALSE,,text,\r\n"
        b"-.5e3,maybe,x,null,\r\n"
        b"\r\n"
        b'12x,,"","",y'
    )
    assert csv_rows(content) == [
        {"id": 1, "ok": True, "name": 'a, "b"\r\nc', "more": {"x": [1]}, "other": "7"},
        {"id": 7.5, "ok": False, "name": None, "more": "text", "other": None},
        {"id": -500, "ok": "maybe", "name": "x", "more": None, "other": None},
        {"id": "12x", "ok": None, "name": None, "more": None, "other": "y"},
    ]


def test_numbers_keep_their_digits() -> None:
    [chunk] = csv_chunks(b"id\n12345678901234567890.12345678901234567890\n")
    assert chunk.bodies == [b'{"id":12345678901234567890.12345678901234567890}']


def test_bad_records_are_set_aside_as_they_stand_with_their_line() -> None:
    content = b'id,name\n1,"a\nb"\n2\n3,c,d\n4,"x"y\n5,\xff\n6,e\n'
    [chunk] = csv_chunks(content)
    assert [chunk.bodies[at] for at in chunk.faults] == [b"2", b"3,c,d", b'4,"x"y', b"5,\xff"]
    assert [(one.code, one.detail) for one in chunk.faults.values()] == [
        ("csv_fields", "line 4 has 1 fields, the header 2"),
        ("csv_fields", "line 5 has 3 fields, the header 2"),
        ("csv_quotes", "line 6"),
        ("bad_unicode", "line 7"),
    ]
    assert [json.loads(chunk.bodies[at])["id"] for at in (0, 5)] == [1, 6]
    [chunk] = csv_chunks(b'id,name\n1,"never closed\n2,b\n')
    assert [(one.code, one.detail) for one in chunk.faults.values()] == [("csv_quotes", "line 2")]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"id,,name", "column 2 of its header has no name"),
        (b"id, \t,name", "column 2 of its header has no name"),
        (b"id,name,id", "columns 1 and 3 of its header have one name"),
        (b"id;name", "no column of its header is a `source` of the mapping"),
        (b"17,secret", "no column of its header is a `source` of the mapping"),
        (b'"id', "its first line names no column"),
        (b"", "its first line names no column"),
    ],
)
def test_a_header_that_does_not_name_the_columns_is_refused(header: bytes, says: str) -> None:
    with pytest.raises(ArchiveRefused) as caught:
        csv_chunks(header + b"\n1,2,3\n")
    assert says in caught.value.what
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    assert "first line" in caught.value.hint
    assert "may be given again" in caught.value.hint


def test_an_empty_csv_file_has_no_records() -> None:
    assert csv_chunks(b"") == []
    assert csv_chunks(b"id,name\n") == []


@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9)] * 2),
        max_size=5,
    )
)
def test_csv_gives_back_what_was_written(rows: list[tuple[str, str]]) -> None:
    text = "".join(
        ",".join('"{}"'.format(one.replace('"', '""')) for one in row) + "\r\n"
        for row in [("a", "name"), *rows]
    )
    assert csv_rows(text.encode()) == [dict(zip(("a", "name"), row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("name", "form", "is_csv"),
    [
        ("x.csv", "auto", True),
        ("x.CSV.gz", "auto", True),
        ("x.csv.zst", "auto", True),
        ("x.txt", "csv", True),
        ("x.txt", "auto", False),
        ("x.csv", "json", False),
        ("x.csv.jsonl", "auto", False),
    ],
)
def test_csv_is_known_by_its_name_or_the_option(
    tmp_path: Path, name: str, form: str, is_csv: bool
) -> None:
    found = bodies(reader(tmp_path, gzip.compress(b"id\n1\n"), name, format=form, kinds=KINDS))
    assert found == ([b'{"id":1}'] if is_csv else [b"id", b"1"])


def test_reading_can_begin_at_any_record(tmp_path: Path) -> None:
    lines = b"\n".join(b'{"id":%d}' % number for number in range(9))
    table = b"id\n" + b"\n".join(b"%d" % number for number in range(9))
    for name, content in (
        ("lines", lines),
        ("array", b"[" + lines.replace(b"\n", b",\n") + b"]"),
        ("x.csv", table),
        ("parquet", parquet_of(pa.table({"id": range(9)}), 4)),
    ):
        for first in (0, 3, 4, 8, 9, 20):
            of = reader(tmp_path, content, name, kinds=KINDS)
            found = [one for chunk in of.chunks(first) for one in chunk.bodies]
            assert found == [b'{"id":%d}' % number for number in range(first, 9)]


def parquet_of(table: Any, rows_per_group: int = 1000) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, row_group_size=rows_per_group)
    return out.getvalue()


def test_parquet_values_are_what_json_has(tmp_path: Path) -> None:
    moment = dt.datetime(2024, 5, 6, 7, 8, 9, 123456)  # noqa: DTZ001  columns say what zone it is of
    columns = {
        "i": pa.array([1, None], pa.int64()),
        "u": pa.array([2**64 - 1, 0], pa.uint64()),
        "f": pa.array([1.5, float("nan")], pa.float64()),
        "ok": pa.array([True, None]),
        "s": pa.array(["é", ""]),
        "enum": pa.array(["a", "b"]).dictionary_encode(),
        "d": pa.array([Decimal("12.340"), None], pa.decimal128(30, 3)),
        "day": pa.array([moment.date(), None]),
        "utc": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "ns": pa.array([moment, None], pa.timestamp("ns", "UTC")),
        "local": pa.array([moment, None], pa.timestamp("ms")),
        "time": pa.array([moment.time(), None], pa.time64("ns")),
        "binary": pa.array([b"\x00\xff", None], pa.binary()),
        "list": pa.array([["a", None], []], pa.list_(pa.string())),
        "nested": pa.array([{"at": moment, "of": [{"x": 1}]}, None]),
    }
    [first, second] = map(json.loads, bodies(reader(tmp_path, parquet_of(pa.table(columns)))))
    assert first == {
        "i": 1,
        "u": 2**64 - 1,
        "f": 1.5,
        "ok": True,
        "s": "é",
        "enum": "a",
        "d": 12.34,
        "day": "2024-05-06",
        "utc": "2024-05-06T07:08:09.123456Z",
        "ns": "2024-05-06T07:08:09.123456Z",
        "local": "2024-05-06T07:08:09.123000",
        "time": "07:08:09.123456",
        "binary": "AP8=",
        "list": ["a", None],
        "nested": {"at": "2024-05-06T07:08:09.123456", "of": [{"x": 1}]},
    }
    assert second == dict.fromkeys(columns) | {"u": 0, "s": "", "enum": "b", "list": []}


def test_parquet_is_read_and_counted_by_row_groups(tmp_path: Path) -> None:
    of = reader(tmp_path, parquet_of(pa.table({"id": range(10_000)}), 2_500))
    seen = [(len(chunk.bodies), of.bytes_read) for chunk in of.chunks()]
    assert [rows for rows, _ in seen] == [2_000, 500] * 4
    read_bytes = [size for _, size in seen]
    assert read_bytes == sorted(read_bytes)
    assert len(set(read_bytes)) == 4
    assert of.bytes_read < of.archive.size


def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    whole = parquet_of(pa.table({"id": range(1000)}))
    doubled = parquet_of(pa.table([pa.array([1]), pa.array([2])], names=["id", "id"]))
    for content in (whole[:-4], whole[:100], b"PARE" + whole[4:], gzip.compress(whole), doubled):
        with pytest.raises(ArchiveRefused) as caught:
            bodies(reader(tmp_path, content))
        assert caught.value.code == "archive_format"
    for form in ("json", "csv"):
        with pytest.raises(ArchiveRefused, match="not JSON lines but Parquet"):
            bodies(reader(tmp_path, whole, format=form))
    with pytest.raises(ArchiveRefused, match="is not Parquet"):
        bodies(reader(tmp_path, b'{"id": 1}', format="parquet"))


def test_without_its_library_parquet_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArchiveRefused, match="pyarrow is not installed") as caught:
        bodies(reader(tmp_path, parquet_of(pa.table({"id": [1]}))))
    assert "pip install 'sqs2pg[parquet]'" in caught.value.hint


def test_standard_input_is_known_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (b'{"id":1}\n{"id":2}', parquet_of(pa.table({"id": [1, 2]}))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        [archive] = find_all(["-"], None)
        file = tmp_path / "x"
        file.write_bytes(content)
        [same] = find_all([str(file)], None)
        assert archive.digest == identify(same).digest
        assert (archive.name, archive.size) == ("-", len(content))
        for _ in range(2):
            assert bodies(read(archive, None)) == [b'{"id":1}', b'{"id":2}']
        assert archive.spool is not None
        archive.spool.close()


@given(
    st.lists(
        st.sampled_from(
            [b"{", b"}", b" ", b"\t", b"\n", b'{"a": 1}', b'{"messageType"', b"\r", b"[1]", b"x"]
        ),
        max_size=12,
    )
)
def test_native_code_and_python_find_the_same_lines(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    count = extension().count_usual_lines(raw)
    python = split_usual_lines(raw) or ()
    assert count == len(python)
    native = TextLines(raw, count, extension().line_starts)
    assert list(native) == [native[at] for at in range(count)] == list(python)
    lines = [one for chunk in split_lines(iter([raw]), "x") for one in chunk.bodies]
    odd = [line.body for line in odd_lines(raw)]
    assert [line.strip() for line in lines] == odd


def test_text_alone_is_no_lines() -> None:
    with pytest.raises(TypeError):
        extension().count_usual_lines("{}")
    with pytest.raises(TypeError):
        extension().line_starts("{}")


def test_lines_of_a_text_are_a_sequence_that_can_be_cut_and_joined() -> None:
    whole = [b"", b"a", b"", b"bc", b"d"]
    for text in (b"\n".join(whole), b"\n".join(whole) + b"\n"):
        lines = TextLines(text, len(whole), extension().line_starts)
        assert list(lines) == whole
        assert lines[-1] == b"d"
        assert list(lines[::2]) == whole[::2]
        with pytest.raises(IndexError):
            lines[5]
        for begin in range(6):
            for end in range(begin, 6):
                part = lines[begin:end]
                assert (list(part), len(part)) == (whole[begin:end], end - begin)
                rest = lines[end:]
                assert isinstance(part, TextLines)
                assert isinstance(rest, TextLines)
                if begin < 5:
                    assert list(TextLines.joined([part, rest])) == whole[begin:]

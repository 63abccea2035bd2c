"""The first lines of an archive decide whether it is one of JSON lines."""

from __future__ import annotations

import json

import pytest

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.json_slices import parse, text_of
from sqs2pg.pipeline import archive_check
from sqs2pg.pipeline.archive_check import ArchiveRefused, check_chunks
from sqs2pg.pipeline.archive_lines import LineChunk, lines_in

LOGINS = [{"id": number, "text": "x"} for number in range(3)]


def is_object(body: bytes) -> bool:
    try:
        return parse(text_of(body)).is_object
    except PermanentFault:
        return False


def checked(content: str) -> list[bytes]:
    chunks = [LineChunk([one.encode()]) for one in content.split("\n") if one.strip()]
    return [line.body for line in lines_in(check_chunks("x", iter(chunks), is_object))]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n".join(map(json.dumps, LOGINS)),
        'not json\n{"id": 1}',
        # Lines that a crash has cut are bad lines, wherever they stand.
        '{"id": 1, "te\n{"id": 2}',
        '{"id": 1}\n{"id": 2, "te',
        "\n".join(["not json"] * 999 + ['{"id": 1}']),
    ],
)
def test_lines_are_passed_on_as_they_are(content: str) -> None:
    assert checked(content) == [one.encode() for one in content.split("\n") if one]


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ("id,name,ip\n1,a,198.51.100.7\n2,b,198.51.100.7", "3"),
        ("17\n18", "2"),
        ("{", "1"),
        ('[{"id": 1}]', "1"),
        ("\n".join(["127.0.0.1 - - GET /"] * 1000 + ['{"id": 1}']), "1,000"),
    ],
)
def test_where_no_line_can_be_read_the_archive_is_refused(content: str, number: str) -> None:
    with pytest.raises(ArchiveRefused, match=f"none of its first {number} lines") as caught:
        checked(content)
    assert "GET" not in f"{caught.value} {caught.value.hint}"


def test_what_is_looked_at_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_check, "BYTES_CHECKED", 100)
    with pytest.raises(ArchiveRefused, match="none of its first 5 lines"):
        checked("\n".join(["x" * 20] * 50))

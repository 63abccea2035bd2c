"""Archives: each layout gives its lines; damage is reported, and sizes are bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import sys
import tarfile
import zipfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.pipeline import archive_lines
from sqs2pg.pipeline.archive_check import ArchiveRefused
from sqs2pg.pipeline.archive_compression import ArchiveDamaged
from sqs2pg.pipeline.archive_lines import Line
from sqs2pg.pipeline.archive_reader import (
    day_ms,
    find,
    find_all,
    identify,
    read,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DOCUMENTS = [json.dumps({"id": i, "text": 'a } { "b" \\ '}).encode() for i in range(5_000)]
LINES = b"\n".join(DOCUMENTS)
SKIPPED = b"\x53\x2a\x4d\x18" + struct.pack("<I", 300) + b"\x00" * 300
"""A skippable frame (RFC 8878, section 3.1.2), as pzstd writes them."""


def lines(tmp_path: Path, content: bytes, name: str = "x.jsonl") -> list[Line]:
    file = tmp_path / name
    file.write_bytes(content)
    [found] = find([str(file)], None)
    reader = read(found, None)
    result = list(reader.lines())
    assert reader.bytes_read == found.size == len(content)
    return result


def bodies(tmp_path: Path, content: bytes) -> list[bytes]:
    return [line.body for line in lines(tmp_path, content)]


@pytest.mark.parametrize(
    "packed",
    [
        LINES,
        LINES + b"\n\n",
        LINES.replace(b"\n", b"\r\n"),
        gzip.compress(LINES),
        gzip.compress(LINES[:70_000]) + gzip.compress(LINES[70_000:]),
        zstd.compress(LINES),
        zstd.compress(LINES[:70_000]) + zstd.compress(LINES[70_000:]),
        SKIPPED + zstd.compress(LINES),
        SKIPPED + zstd.compress(LINES[:70_000]) + SKIPPED * 2 + zstd.compress(LINES[70_000:]),
        gzip.compress(gzip.compress(LINES)),
        gzip.compress(zstd.compress(LINES[:70_000]) + zstd.compress(LINES[70_000:])),
        b"".join(DOCUMENTS),
        gzip.compress(b" ".join(DOCUMENTS)),
    ],
    ids=[
        *("plain", "feeds", "crlf", "gzip", "members", "zstd", "frames", "skippable frame"),
        *("skippable frames", "gzip of gzip", "gzip of zstd", "glued", "glued gzip"),
    ],
)
def test_every_layout_of_json_documents_gives_the_same_lines(tmp_path: Path, packed: bytes) -> None:
    assert bodies(tmp_path, packed) == DOCUMENTS


def tarred(form: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        info = tarfile.TarInfo("logins.jsonl")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    return out.getvalue()


def old_tar() -> bytes:
    """As tar was before POSIX: without a magic, so only the checksum tells it."""
    header = bytearray(tarred(tarfile.USTAR_FORMAT))
    header[257:512] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("logins.jsonl", LINES)
    return out.getvalue()


FOREIGN = {
    "tar": [tarred(tarfile.USTAR_FORMAT), tarred(tarfile.GNU_FORMAT), tarred(tarfile.PAX_FORMAT)],
    "zip": [zipped()],
    "bzip2": [bz2.compress(LINES), bz2.compress(b"")],
    "xz": [lzma.compress(LINES)],
    "Avro": [b"Obj\x01\x04\x16avro.schema\x00"],
    "UTF-16": ['{"a": 1}'.encode("utf-16")],
    "binary data": ['{"a": 1}'.encode("utf-16-le"), b"\x00", b"\x00" * 600],
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [*((kind, one) for kind, several in FOREIGN.items() for one in several), ("tar", old_tar())],
)
def test_another_format_is_refused_by_its_first_bytes(
    tmp_path: Path, kind: str, content: bytes
) -> None:
    for packed in (content, gzip.compress(content), SKIPPED + zstd.compress(content)):
        with pytest.raises(ArchiveRefused, match=f"not JSON lines but {kind}") as caught:
            lines(tmp_path, packed)
        assert caught.value.code == "archive_format"
        assert "may be given again" in caught.value.hint


def test_compression_around_compression_has_an_end(tmp_path: Path) -> None:
    packed = LINES
    for _ in range(5):
        packed = gzip.compress(packed)
    with pytest.raises(ArchiveRefused, match="more than 4 times over"):
        lines(tmp_path, packed)


def test_a_small_archive_that_is_cut_off_gives_its_lines_first(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n')[:-4])
    [found] = find([str(file)], None)
    given = read(found, None).lines()
    assert [next(given).body, next(given).body] == [b'{"a": 1}', b'{"a": 2}']
    with pytest.raises(ArchiveDamaged):
        next(given)


def test_a_file_beside_its_compressed_copy_is_refused(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "c/a.jsonl.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    assert len(find_all([str(tmp_path)], None)) == 3
    for copy in ("a.jsonl.gz", "a.jsonl.zst"):
        (tmp_path / copy).write_bytes(b"{}")
        for paths in ([tmp_path], [tmp_path / "a.jsonl", tmp_path / copy]):
            with pytest.raises(SettingsError, match="seem to hold the same lines"):
                find_all(map(str, paths), None)
        (tmp_path / copy).unlink()


def test_an_empty_archive_has_no_lines(tmp_path: Path) -> None:
    for content in (b"", b"\n\n", gzip.compress(b""), zstd.compress(b"")):
        assert bodies(tmp_path, content) == []


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    marked = b'\xef\xbb\xbf{"v": 1}\r\n\r\n{"v": 2}'
    for content in (marked, gzip.compress(marked)):
        assert bodies(tmp_path, content) == [b'{"v": 1}', b'{"v": 2}']


def test_many_members_are_one_archive(tmp_path: Path) -> None:
    packed = b"".join(gzip.compress(b'{"v": %d}\n' % n) for n in range(3000)) + gzip.compress(b"")
    assert bodies(tmp_path, packed) == [b'{"v": %d}' % n for n in range(3000)]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_a_damaged_archive_is_reported_after_its_lines(tmp_path: Path, pack: Any) -> None:
    packed = pack(os.urandom(300_000).hex().encode() + b"\n" + LINES)
    for damaged in (packed[: len(packed) // 2], packed[:-1], packed[:-20], packed[:100_000] + b"x"):
        with pytest.raises(ArchiveDamaged, match="damaged or cut off"):
            lines(tmp_path, damaged)


def test_a_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_lines, "LINE_BYTES_MAX", 3 * 2**20)
    with pytest.raises(Exception, match="a line of more than 3 MiB"):
        lines(tmp_path, gzip.compress(b" " * 5_000_000))


def test_exported_lines_say_when(tmp_path: Path) -> None:
    content = b'2023-05-06T07:08:09.123Z {"a": 1}\n2023-05-06T07:08:10Z\t[1]\nno time {"a": 2}\n'
    moment = round(datetime(2023, 5, 6, 7, 8, 9, 123_000, UTC).timestamp() * 1000)
    assert lines(tmp_path, content) == [
        (b'{"a": 1}', moment),
        (b"[1]", moment + 877),
        (b'no time {"a": 2}', None),
    ]


@pytest.mark.parametrize("stamp", ["2023-13-45T07:08:09", "0000-01-01T00:00:00"])
def test_an_exported_line_with_an_impossible_time_is_passed_on(tmp_path: Path, stamp: str) -> None:
    line = f'{stamp}Z {{"a": 1}}'.encode()
    assert lines(tmp_path, line + b'\n{"a": 2}') == [(line, None), (b'{"a": 2}', None)]
    for line in (b'1969-12-31T23:59:59Z {"a": 1}', b'2099-05-06T00:00:00Z {"a": 1}'):
        assert lines(tmp_path, line) == [(b'{"a": 1}', None)]


@pytest.mark.parametrize(
    "timestamp", ["-1", "253402300799999", "4102444800000", "1e300", "1" + "0" * 60, '"x"']
)
def test_an_event_with_an_impossible_time_has_none(tmp_path: Path, timestamp: str) -> None:
    event = f'{{"timestamp": {timestamp}, "message": "{{}}"}}'
    content = f'{{"messageType": "DATA_MESSAGE", "logEvents": [{event}]}}'.encode()
    assert lines(tmp_path, content) in ([(b"{}", None)], [(content, None)])
    deep = b'{"messageType": "DATA_MESSAGE", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert lines(tmp_path, deep) == [(deep, None)]


def test_no_line_is_older_than_a_ledger_key_can_say(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"{}")
    os.utime(file, (-86_400 * 400, -86_400 * 400))
    [found] = find([str(file)], None)
    assert day_ms(found.date) == 0
    with pytest.raises(SettingsError, match="before 1970"):
        day_ms(date(1969, 12, 31))


def test_no_day_is_in_the_future(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"{}")
    later = 4_102_444_800  # 2100
    os.utime(file, (later, later))
    [found] = find([str(file)], None)
    assert abs((found.date - datetime.now(UTC).date()).days) <= 1
    assert day_ms(found.date) <= datetime.now(UTC).timestamp() * 1000
    with pytest.raises(SettingsError, match="2099-05-06 is in the future"):
        day_ms(date(2099, 5, 6))


def test_events_of_a_log_subscription_are_lines(tmp_path: Path) -> None:
    def batch(kind: str, *messages: str) -> dict[str, Any]:
        events = [
            {"id": str(i), "timestamp": 1_000 + i, "message": message}
            for i, message in enumerate(messages)
        ]
        return {"messageType": kind, "owner": "1", "logEvents": events}

    documents = [
        batch("CONTROL_MESSAGE", "CWL CONTROL MESSAGE: Checking health"),
        batch("DATA_MESSAGE", '{"a": 1}', '{"a": 2}'),
        batch("DATA_MESSAGE", '{"a": 3}'),
    ]
    expected = [(b'{"a": 1}', 1_000), (b'{"a": 2}', 1_001), (b'{"a": 3}', 1_000)]
    for joint in ("", "\n"):
        content = joint.join(map(json.dumps, documents)).encode()
        assert lines(tmp_path, gzip.compress(content)) == expected
    broken = b'{"messageType": "DATA_MESSAGE", "logEvents": [{"message": 5}]}'
    assert lines(tmp_path, broken) == [(broken, None)]


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("2023/05/06/07/firehose-1-2023-05-06-07-08-09-x", date(2023, 5, 6)),
        ("dt=2023-05-06/part-0.jsonl.gz", date(2023, 5, 6)),
        ("2023/13/45/x", None),
        ("x-12023-05-067", None),
    ],
)
def test_an_archive_is_dated_by_its_path_or_its_modification_time(
    tmp_path: Path, name: str, day: date | None
) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"{}")
    os.utime(file, (0, 0))
    [found] = find([str(file)], None)
    assert found.date == (day or date(1970, 1, 1))


def test_folders_are_walked_in_order_and_equal_content_has_one_digest(tmp_path: Path) -> None:
    for name, content in (("b/2", b"x"), ("a/1", b"y"), ("b/1", b"y")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = list(find([str(tmp_path)], None))
    assert [one.name for one in found] == [str(tmp_path / name) for name in ("a/1", "b/1", "b/2")]
    digests = [identify(one).digest for one in found]
    assert digests[0] == digests[1] != digests[2]
    assert identify(identify(found[0])) == identify(found[0])
    for hidden in (".sqs2pg/dev.keys", "a/.part.crc"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"z")
    assert list(find([str(tmp_path)], None)) == found
    assert len(list(find([str(tmp_path / ".sqs2pg")], None))) == 1  # asked for by its name
    with pytest.raises(SettingsError, match="names no bucket"):
        list(find(["s3://"], None))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(SettingsError):
            list(find([str(path)], None))


def test_a_file_replaced_since_it_was_found_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"{}")
    [found] = find([str(file)], None)
    file.write_bytes(b"{} {}")
    with pytest.raises(SettingsError, match="has 5 bytes, and had 2 when it was found"):
        identify(found)
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        identify(found)

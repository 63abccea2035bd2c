"""Files of lines to send: what is no text is refused, whatever its name."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from pathlib import Path

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.producer import read_lines

TEXT = '\ufeff{"a": 1}\n\n {"a": "ü"} \r\n'.encode()
ZIPPED = gzip.compress(TEXT, mtime=0)
"""Without the time: it would be in the names of tests, and differ between pytest's processes."""


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x"])
@pytest.mark.parametrize("content", [TEXT, ZIPPED], ids=["plain", "gzip"])
def test_lines_are_read_by_the_first_bytes(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert list(read_lines(file)) == ['{"a": 1}', '{"a": "ü"}']


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (tarred(), "not text but tar"),
        (gzip.compress(tarred(), mtime=0), "not text but tar"),
        (bz2.compress(TEXT), "not text but bzip2"),
        ('{"a": 1}'.encode("utf-16"), "not text but UTF-16"),
        (b'{"a": "\xe4"}', "not UTF-8 text"),
        (ZIPPED[:-9], "damaged, or not gzip"),
        (ZIPPED[:20], "damaged, or not gzip"),
        (ZIPPED[:12] + b"x" * 30, "damaged, or not gzip"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=what):
        list(read_lines(file))

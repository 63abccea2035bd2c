"""First bytes: what tells the format of binary data, for bodies of messages and archives alike.

Sources: RFC 1952, section 2.3.1 (gzip); RFC 8878, sections 3.1.1 and 3.1.2 (zstd and its skippable
frames); POSIX pax and the older tar header, whose checksum tells it; the specifications of the
other formats. No I/O.
"""

from __future__ import annotations

import re

ENOUGH = 512
"""So many bytes tell every format: tar's header is the longest."""

_FORMATS = (
    ("gzip", re.compile(rb"\x1f\x8b")),
    # Skippable frames may stand before, between and after others; LZ4 has the same ones.
    ("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
    ("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
    ("7z", re.compile(rb"7z\xbc\xaf\x27\x1c")),
    ("zip", re.compile(rb"PK(?:\x03\x04|\x05\x06|\x07\x08)")),
    ("rar", re.compile(rb"Rar!\x1a\x07")),
    ("lz4", re.compile(rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18")),
    ("snappy", re.compile(rb"\xff\x06\x00\x00sNaPpY")),
    ("compress", re.compile(rb"\x1f\x9d")),
    ("Avro", re.compile(rb"Obj\x01")),
    ("Parquet", re.compile(rb"PAR[1E]")),
    ("ORC", re.compile(rb"ORC")),
    ("Arrow", re.compile(rb"ARROW1\x00\x00")),
    ("UTF-16", re.compile(rb"\xff\xfe|\xfe\xff")),
)
_CHECKSUM = slice(148, 156)  # of a tar header: the sum of its bytes, these eight taken for spaces


def format_of(start: bytes) -> str:
    """Return the format of data that begins so, `gzip` and the like; "" where none is known.

    `start` has at least ENOUGH bytes, or is the whole.
    """
    for name, pattern in _FORMATS:
        if pattern.match(start):
            return name
    return "tar" if _is_tar(start[:ENOUGH]) else ""


def _is_tar(header: bytes) -> bool:
    if len(header) < ENOUGH or not header[0]:
        return False
    noted = header[_CHECKSUM].strip(b" \x00")
    if not re.fullmatch(b"[0-7]+", noted):
        return False
    return int(noted, 8) == sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")

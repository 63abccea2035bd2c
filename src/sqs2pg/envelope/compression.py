"""Compression: gzip, zstd and base64, each bounded: a body of a megabyte may not become a gigabyte.

SQS carries text alone, so what is compressed comes as base64; the base64 is undone by itself
where gzip or zstd was declared and text stands there.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
import zlib

from sqs2pg.errors import PermanentFault

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP = b"\x1f\x8b"  # RFC 1952, section 2.3.1
_ZSTD = b"\x28\xb5\x2f\xfd"  # RFC 8878, section 3.1.1
_BASE64 = re.compile(r"\s*(?:[A-Za-z0-9+/\s]|-|_){4,}={0,2}\s*\Z")
_ZSTD_OPTIONS = {int(zstd.DecompressionParameter.window_log_max): 23}
"""Windows of 8 MiB: what every decoder should take (RFC 8878, 3.1.1.1.2). It bounds memory."""


def decode(name: str, payload: str | bytes, bytes_max: int) -> bytes:
    """Return a payload without one encoding: base64, gzip or zstd.

    Raises PermanentFault: `not_base64`, `not_gzip`, `not_zstd`, `decompressed_too_large`,
    `unknown_encoding`.
    """
    if name == "base64":
        return from_base64(payload)
    if name in ("gzip", "x-gzip", "zstd"):
        packed = from_base64(payload) if isinstance(payload, str) else payload
        return gunzip(packed, bytes_max) if name != "zstd" else unzstd(packed, bytes_max)
    raise PermanentFault("unknown_encoding")


def from_base64(payload: str | bytes) -> bytes:
    """Return the bytes of base64 text, the URL's alphabet and missing padding allowed."""
    try:
        text = payload.encode("ascii") if isinstance(payload, str) else payload
        text = b"".join(text.split()).translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (UnicodeError, binascii.Error):
        pass
    raise PermanentFault("not_base64")


def gunzip(packed: bytes, bytes_max: int) -> bytes:
    """Return what gzip members hold together; at most `bytes_max` bytes."""
    whole = bytearray()
    left = packed
    while left:
        member = zlib.decompressobj(wbits=31)
        try:
            whole += member.decompress(left, bytes_max - len(whole) + 1)
        except zlib.error:
            member = None  # type: ignore[assignment]
        if member is None:
            raise PermanentFault("not_gzip")
        if len(whole) > bytes_max:
            raise PermanentFault("decompressed_too_large")
        if not member.eof:
            raise PermanentFault("not_gzip")  # cut off
        left = member.unused_data
        if left and not left.startswith(_GZIP):
            raise PermanentFault("not_gzip")
    if not packed:
        raise PermanentFault("not_gzip")
    return bytes(whole)


def unzstd(packed: bytes, bytes_max: int) -> bytes:
    """Return what zstd frames hold together; at most `bytes_max` bytes."""
    whole = bytearray()
    left = packed
    while left:
        frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
        try:
            whole += frame.decompress(left, bytes_max - len(whole) + 1)
        except zstd.ZstdError:
            break
        if len(whole) > bytes_max:
            raise PermanentFault("decompressed_too_large")
        if not frame.eof:
            break  # cut off
        left = frame.unused_data
    if left or not packed:
        raise PermanentFault("not_zstd")
    return bytes(whole)


def signature(payload: str | bytes) -> str | None:
    """Return which encoding a payload has; None where it has none that is sure.

    Text is base64 only where what it stands for is compressed, or JSON of an object or array:
    text of that alphabet alone is no JSON, so nothing that could be read is taken for it.
    """
    if isinstance(payload, bytes):
        if payload.startswith(_GZIP):
            return "gzip"
        return "zstd" if payload.startswith(_ZSTD) else None
    head = payload[:64]
    if not _BASE64.match(head if len(payload) > 64 else payload):
        return None
    try:
        start = from_base64(head[: len(head) // 4 * 4])
    except PermanentFault:
        return None
    if start.startswith((_GZIP, _ZSTD)) or start.lstrip()[:1] in (b"{", b"["):
        return "base64"
    return None

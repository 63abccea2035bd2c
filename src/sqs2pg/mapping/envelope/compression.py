"""Compression: gzip, zstd and base64, each bounded: a body of a megabyte may not become a gigabyte.

SQS carries only text, so compressed data comes as base64. Where gzip or zstd is declared and the
payload is text, its base64 is decoded first.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.envelope.first_bytes import ENOUGH, format_of

MEMBERS_MAX = 10_000
"""Most gzip members or zstd frames of a payload: even an empty one costs a decompressor."""
_PIECE = 16 * 1024
_BASE64 = re.compile(r"\s*(?:[A-Za-z0-9+/\s]|-|_){4,}={0,2}\s*\Z")
_SPACE = re.compile(rb"\s")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_JSON = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*[{\[]")  # an object or array, a mark before it
_WINDOW_LOG_MAX = 23
"""Windows of 8 MiB: what every decoder should take (RFC 8878, 3.1.1.1.2). It bounds memory."""


def decode(name: str, payload: str | bytes, bytes_max: int) -> bytes:
    """Return a payload with one encoding undone: base64, gzip or zstd.

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
    """Return the bytes of base64 text; the URL-safe alphabet and missing padding are allowed."""
    try:
        text = payload.encode("ascii") if isinstance(payload, str) else payload
        # One step at a time, and only where there is something to do: each copies the whole text.
        if _SPACE.search(text):
            text = b"".join(text.split())
        if b"-" in text or b"_" in text:
            text = text.translate(_STANDARD)
        if len(text) % 4:
            text += b"=" * (-len(text) % 4)
        return base64.b64decode(text, validate=True)
    except (UnicodeError, binascii.Error):
        pass
    raise PermanentFault("not_base64")


def gunzip(packed: bytes, bytes_max: int) -> bytes:
    """Return the content of all gzip members: at most `bytes_max` bytes of MEMBERS_MAX members.

    Raises PermanentFault `not_gzip` or `decompressed_too_large`.
    """
    return _joined(packed, bytes_max, "not_gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)


def unzstd(packed: bytes, bytes_max: int) -> bytes:
    """Return the content of all zstd frames: at most `bytes_max` bytes of MEMBERS_MAX frames.

    Raises PermanentFault `not_zstd` or `decompressed_too_large`.
    """
    zstd = _zstd()
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG_MAX}
    return _joined(
        packed,
        bytes_max,
        "not_zstd",
        lambda: zstd.ZstdDecompressor(options=options),
        zstd.ZstdError,
    )


@functools.cache
def _zstd() -> Any:
    """Return the module of zstd. Most mappings never need it, so a start does not load it."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _joined(
    packed: bytes,
    bytes_max: int,
    fault: str,
    member: Callable[[], Any],
    damaged: type[Exception],
) -> bytes:
    """Return the content of all members of a payload; each gets a decompressor of its own.
    `damaged` is what a decompressor raises.

    The payload goes in by small pieces, since a decompressor copies what follows its member. Given
    the whole rest each time, a megabyte of empty members would take seconds.
    """
    # Its buffer grows in place and becomes the result: joined pieces would take twice the memory.
    whole = BytesIO()
    size = at = 0
    for _ in range(MEMBERS_MAX):
        one = member()
        while not one.eof:
            piece = packed[at : at + _PIECE]
            if not piece:
                raise PermanentFault(fault)  # empty, or cut off
            at += len(piece)
            grown = _grown(one, piece, bytes_max - size + 1, damaged)
            if grown is None:
                raise PermanentFault(fault)
            size += whole.write(grown)
            if size > bytes_max:
                raise PermanentFault("decompressed_too_large")
        at -= len(one.unused_data)
        if at == len(packed):
            return whole.getvalue()
    raise PermanentFault("decompressed_too_large")


def _grown(one: Any, piece: bytes, room: int, damaged: type[Exception]) -> bytes | None:
    # Returns None instead of raising, so that the caller's fault has no other error as its context.
    try:
        return cast("bytes", one.decompress(piece, room))
    except damaged:
        return None


def signature(payload: str | bytes) -> str | None:
    """Return the encoding of a payload; None where none is certain.

    Raises PermanentFault `unknown_encoding`, with the format's name, for binary data that nobody
    here decodes. Text counts as base64 only if its content is binary of a known format, or the JSON
    of an object or array. Text of the base64 alphabet alone is not JSON, so this never takes
    readable JSON for base64.
    """
    if isinstance(payload, bytes):
        return _known(format_of(payload[:ENOUGH]))
    head = payload[:64]
    if not _BASE64.match(head if len(payload) > 64 else payload):
        return None
    try:
        start = from_base64(head[: len(head) // 4 * 4])
    except PermanentFault:
        return None
    if _known(format_of(start)) or _JSON.match(start):
        return "base64"
    return None


def _known(kind: str) -> str | None:
    if kind and kind not in ("gzip", "zstd"):
        raise PermanentFault("unknown_encoding", kind)
    return kind or None

"""Compression around an archive's content: gzip and zstd, also one inside the other.

A stream may have several members one after the other (Firehose). Bounded: some pieces in memory. No
I/O of its own.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Any

from sqs2pg.errors import Sqs2pgError
from sqs2pg.mapping.envelope.first_bytes import ENOUGH, format_of
from sqs2pg.pipeline.archive_check import LAYERS_MAX, check_format, too_deep

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE = 2**20
_PACKED = 2**15


class ArchiveDamaged(Sqs2pgError):
    """An archive is cut off, or is not what its first bytes say."""


def decompressed(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the content of all compressions around it. Raises ArchiveRefused for another format."""
    for _ in range(LAYERS_MAX + 1):
        start, pieces = begun(pieces)
        kind = format_of(start)
        if kind == "gzip":
            pieces = _unpacked(lambda: zlib.decompressobj(wbits=31), pieces, name)
        elif kind == "zstd":
            pieces = _unpacked(zstd.ZstdDecompressor, pieces, name)
        else:
            check_format(start, name)
            return pieces
    raise too_deep(name)


def begun(pieces: Iterator[bytes], enough: int = ENOUGH) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, enough to tell the format, and all pieces, these bytes included."""
    start = b""
    damage: ArchiveDamaged | None = None
    try:
        while len(start) < enough and (piece := next(pieces, b"")):
            start += piece
    except ArchiveDamaged as found:
        damage = found

    def again() -> Iterator[bytes]:
        if start:
            yield start
        if damage is not None:
            raise damage
        yield from pieces

    return start, again()


def _starts(piece: bytes) -> range:
    return range(0, len(piece), _PACKED)


def _unpacked(make: Any, packed: Iterator[bytes], name: str) -> Iterator[bytes]:
    # In small pieces: what follows a member is copied, and Firehose puts many into one object.
    pieces = (piece[at : at + _PACKED] for piece in packed for at in _starts(piece))
    member: Any = make()
    left = next(pieces)
    while True:
        try:
            out = member.decompress(left, PIECE)
        except (zlib.error, zstd.ZstdError):
            out = None
        if out is None:
            raise _damaged(name)
        if out:
            yield out
        if member.eof:
            left = member.unused_data or next(pieces, b"")
            if not left:
                return
            member = make()
            continue
        # zlib returns the input that it did not use; zstd keeps it, and says if it needs more.
        left = getattr(member, "unconsumed_tail", b"")
        if not left and (not hasattr(member, "needs_input") or member.needs_input):
            left = next(pieces, b"")
            if not left and not out:
                raise _damaged(name)


def _damaged(name: str) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"{name} is damaged or cut off",
        code="archive_damaged",
        hint="its lines up to there are written; replace the file and run the same command again",
    )

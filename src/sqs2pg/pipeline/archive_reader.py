"""Archives: files and S3 objects of JSON lines, read line by line, each line with its time.

The layout is recognised from the content: plain, gzip and zstd; one JSON document per line;
documents one after the other without line feeds (Firehose); `2026-01-02T03:04:05.678Z {…}` lines
(CloudWatch export); CloudWatch subscription envelopes (`DATA_MESSAGE`), whose events become lines.

Bounded: one piece and one line in memory at a time. A line that is no JSON is passed on; the
decoder refuses it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.mapping.ledger_key import DAY_MS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINE_BYTES_MAX = 256 * 2**20
"""The longest line: Firehose makes objects of up to 128 MiB, which may be one line."""
_PIECE = 2**20
_PACKED = 2**15
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"

_EXPORTED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?)Z[ \t](?=\s*[{\[])")
_SUBSCRIPTION = re.compile(rb'\s*\{\s*"messageType"\s*:\s*"(DATA|CONTROL)_MESSAGE"')
_GLUED = re.compile(rb"\}[ \t]*\{")
# What decides where a document ends: braces, and strings, which may contain braces.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)
# As in the names that Firehose, CloudWatch and partitioned tables give: 2026/01/02, 2026-01-02.
_DATED = re.compile(r"(?<!\d)(20\d\d)([-/_])(\d\d)\2(\d\d)(?!\d)")


class Line(NamedTuple):
    """One record, as it was archived."""

    body: bytes
    sent_ms: int | None
    """When it was sent, in milliseconds since the epoch; None where the archive does not say."""

    def __repr__(self) -> str:
        return "Line(…)"


class Archive(NamedTuple):
    """One file or object."""

    name: str
    digest: str
    """Digest of its content, the same for the same lines. Empty until `identify` has read it."""
    size: int
    """Stored bytes."""
    date: date
    """The date in its name, else the date of its last change."""


class ArchiveDamaged(Sqs2pgError):
    """An archive is cut off, or is not what its first bytes say."""


class _Stored(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def etag(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def modified(self) -> datetime: ...


class Objects(Protocol):
    """What archives need of an object store. Both methods block."""

    def listing(self, bucket: str, prefix: str, /) -> Iterable[_Stored]:
        """Yield the objects under a prefix."""

    def pieces(self, bucket: str, key: str, etag: str, /) -> Iterator[bytes]:
        """Yield the bytes of one object."""


class Reader:
    """Reads one archive; knows how many of its stored bytes have been read."""

    def __init__(self, archive: Archive, pieces: Iterator[bytes]) -> None:
        self.archive = archive
        self.bytes_read = 0
        self._pieces = pieces

    def lines(self) -> Iterator[Line]:
        """Yield each line that is not empty. Raises Sqs2pgError `archive_damaged`."""
        name = self.archive.name
        raws = _physical(_decompressed(self._counted(), name), name)
        for raw in chain([next(raws, b"").removeprefix(BOM_UTF8)], raws):
            line = raw.strip()
            if line[:1] == b"{" and not _GLUED.search(line) and not _SUBSCRIPTION.match(line):
                yield Line(line, None)  # the usual case
            elif line:
                yield from _records(line)

    def _counted(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.bytes_read += len(piece)
            yield piece


def find(paths: Iterable[str], store: Objects | None) -> Iterator[Archive]:
    """Yield the archives that paths name, in order: files, folders, and s3:// prefixes.

    Files are not read yet, so they have no digest. Blocking. Raises SettingsError for a path that
    names nothing.
    """
    for path in paths:
        found = False
        for archive in _in_s3(path, store) if path.startswith("s3://") else _in_files(Path(path)):
            found = True
            yield archive
        if not found:
            raise SettingsError(f"{path} names no file or object", hint="check the path or prefix")


def find_all(paths: Iterable[str], store: Objects | None) -> list[Archive]:
    """Return all that `find` yields."""
    return list(find(paths, store))


def identify(archive: Archive) -> Archive:
    """Return an archive that `find` found, with its digest. A file is read from start to end.

    Blocking. Raises SettingsError where it cannot be read, or has changed since it was found.
    """
    if archive.digest:
        return archive
    digest = hashlib.sha256()
    size = 0
    for piece in _file_pieces(Path(archive.name)):
        digest.update(piece)
        size += len(piece)
    if size != archive.size:
        raise SettingsError(
            f"{archive.name} has {size:,} bytes, and had {archive.size:,} when it was found",
            hint="backfill files that nobody writes to any more, the same ones on every node",
        )
    return archive._replace(digest=f"sha256:{digest.hexdigest()}")


def read(archive: Archive, store: Objects | None) -> Reader:
    """Return a reader of an archive that `find` has found."""
    if archive.name.startswith("s3://"):
        assert store is not None
        bucket, _, key = archive.name.removeprefix("s3://").partition("/")
        etag = archive.digest.removeprefix("etag:").partition(":")[0]
        return Reader(archive, store.pieces(bucket, key, etag))
    return Reader(archive, _file_pieces(Path(archive.name)))


def _in_files(path: Path) -> Iterator[Archive]:
    files = sorted(p for p in path.rglob("*") if _is_meant(p, path)) if path.is_dir() else [path]
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise _unreadable(file, error) from None
        own = _date_in(str(file)) or datetime.fromtimestamp(status.st_mtime, UTC).date()
        yield Archive(str(file), "", status.st_size, own)


def _is_meant(file: Path, folder: Path) -> bool:
    """Whether a folder's name includes a file. Hidden files may hold keys or settings."""
    inside = file.relative_to(folder).parts
    return not any(part.startswith(".") for part in inside) and file.is_file()


def _in_s3(url: str, store: Objects | None) -> Iterator[Archive]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise SettingsError(f"{url} names no bucket", hint="write s3://BUCKET/PREFIX")
    assert store is not None
    for stored in store.listing(bucket, prefix):
        if stored.size:
            name = f"s3://{bucket}/{stored.key}"
            own = _date_in(stored.key) or stored.modified.astimezone(UTC).date()
            # The ETag of an upload in parts is no digest of the content, so the key is added.
            yield Archive(name, f"etag:{stored.etag}:{bucket}/{stored.key}", stored.size, own)


def _date_in(name: str) -> date | None:
    for year, _, month, day in reversed(_DATED.findall(name)):
        try:
            return date(int(year), int(month), int(day))
        except ValueError:
            continue
    return None


def _file_pieces(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                yield piece
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{file} cannot be read: {error.strerror}", hint="check the path and its permissions"
    )


def _decompressed(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    first = next(pieces, b"")
    if first.startswith(_GZIP):
        make: Any = lambda: zlib.decompressobj(wbits=31)  # noqa: E731
    elif first.startswith(_ZSTD):
        make = zstd.ZstdDecompressor
    else:
        yield first
        yield from pieces
        return
    # In small pieces: what follows a member is copied, and Firehose puts many into one object.
    cut = (piece[at : at + _PACKED] for piece in chain([first], pieces) for at in _starts(piece))
    yield from _unpacked(make, next(cut), cut, name)


def _starts(piece: bytes) -> range:
    return range(0, len(piece), _PACKED)


def _unpacked(make: Any, first: bytes, pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    member: Any = make()
    left = first
    while True:
        try:
            out = member.decompress(left, _PIECE)
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


def _physical(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield lines without their line feeds."""
    rest: list[bytes] = []
    size = 0
    for piece in pieces:
        head, feed, tail = piece.partition(b"\n")
        rest.append(head)
        size += len(head)
        if size > LINE_BYTES_MAX:
            raise Sqs2pgError(
                f"{name} has a line of more than {LINE_BYTES_MAX // 2**20} MiB",
                code="archive_line",
                hint="is it JSON lines?",
            )
        if not feed:
            continue
        yield b"".join(rest)
        *whole, last = tail.split(b"\n")
        yield from whole
        rest, size = [last], len(last)
    yield b"".join(rest)


def _records(line: bytes) -> Iterator[Line]:
    if exported := _EXPORTED.match(line):
        stamp = datetime.fromisoformat(exported[1].decode()[:26] + "+00:00")
        yield Line(line[exported.end() :], round(stamp.timestamp() * 1000))
    elif _GLUED.search(line):
        for document in _split(line):
            yield from _of_subscription(document)
    else:
        yield from _of_subscription(line)


def _of_subscription(line: bytes) -> Iterator[Line]:
    kind = _SUBSCRIPTION.match(line)
    if kind is None:
        yield Line(line, None)
        return
    if kind[1] == b"CONTROL":
        return
    try:
        events = msgspec.json.decode(line)["logEvents"]
        found = [Line(event["message"].encode(), int(event["timestamp"])) for event in events]
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, AttributeError, ValueError):
        found = [Line(line, None)]  # the decoder will say what is wrong with it
    yield from found


def _split(line: bytes) -> Iterator[bytes]:
    """Yield the documents of a line that has several, one after the other."""
    depth = start = 0
    for token in _TOKEN.finditer(line):
        if token[0] == b"{":
            depth += 1
        elif token[0] == b"}":
            depth -= 1
            if depth == 0:
                yield line[start : token.end()].strip()
                start = token.end()
    if rest := line[start:].strip():
        yield rest


def day_ms(day: date) -> int:
    """Return the first millisecond of a UTC day, since the epoch."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def _damaged(name: str) -> ArchiveDamaged:
    return ArchiveDamaged(
        f"{name} is damaged or cut off",
        code="archive_damaged",
        hint="its lines up to there are written; replace the file and run the same command again",
    )

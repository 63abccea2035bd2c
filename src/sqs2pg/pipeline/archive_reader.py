"""Archives: files, S3 objects and standard input, read record by record, each with its time.

The format is recognised from the content: plain, gzip and zstd around it; one JSON document per
line; documents one after the other without line feeds (Firehose) or over several lines; arrays;
`2026-01-02T03:04:05.678Z {…}` lines (CloudWatch export); CloudWatch subscription envelopes
(`DATA_MESSAGE`), whose events become lines; CloudTrail's `Records`; Parquet. CSV is known by its
name, space-separated text has to be declared.

Bounded: some pieces and one record in memory at a time. A record that is no JSON is passed on; the
decoder refuses it.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple

from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.envelope.first_bytes import format_of
from sqs2pg.mapping.ledger_key import AHEAD_S, DAY_MS, today
from sqs2pg.message import MessageAttribute
from sqs2pg.pipeline.archive_check import format_refusal
from sqs2pg.pipeline.archive_compression import PIECE, begun, decompressed
from sqs2pg.pipeline.archive_csv import split_csv
from sqs2pg.pipeline.archive_documents import (
    HEAD_BYTES,
    are_documents,
    are_glued,
    are_records,
    split_documents,
)
from sqs2pg.pipeline.archive_identity import (
    EPOCH,
    date_in,
    day_of_change,
    object_attributes,
    object_digest,
    object_sent_ms,
)
from sqs2pg.pipeline.archive_lines import (
    LINE_BYTES_MAX,
    Line,
    LineChunk,
    is_batch,
    lines_in,
    physical_lines,
    split_lines,
)
from sqs2pg.pipeline.archive_objects import Objects
from sqs2pg.pipeline.archive_parquet import split_parquet
from sqs2pg.pipeline.archive_space import split_space
from sqs2pg.pipeline.archive_stdin import NAME as STDIN
from sqs2pg.pipeline.archive_stdin import Spool
from sqs2pg.settings import ArchiveFormat

_COPIES = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4", ".zip")
"""What compressors append to the name of the file that they leave or replace."""


class Archive(NamedTuple):
    """One file or object."""

    name: str
    digest: str
    """Digest of its content, the same for the same lines. Empty until `identify` has read it."""
    size: int
    """Stored bytes."""
    date: date
    """The date in its name, else the date of its last change."""
    spool: Spool | None = None
    """The content, where it came over a pipe."""
    sent_ms: int | None = None
    """When an object's lines that have no time were sent; None: at the start of `date`."""
    etag: str = ""
    """Of an object."""
    version: str = ""
    """The version id of an object, in a bucket that keeps versions."""


class ArchiveForm(NamedTuple):
    """What settings and command line say about archives."""

    format: ArchiveFormat = "auto"
    """`auto`: by the first bytes, CSV by its name."""
    keeps_arrays: bool = False
    """The mapping reads an array as one message: a line that is one stays whole."""
    takes_objects: bool = True
    """The mapping reads an object as a message. Without it each gets an array around it."""
    kinds: Mapping[str, str] = MappingProxyType({})
    """What the mapping takes from columns (`archive_columns.Columns`)."""
    columns: tuple[str, ...] = ()
    """Their names, where the first line of CSV or space-separated text does not have them."""
    reads: frozenset[str] = frozenset()
    """Names at the top of a document that the mapping reads. What it reads by itself is not opened:
    `Records` of CloudTrail, `logEvents` of CloudWatch."""
    bytes_max: int = 0
    """Bytes of an array, of documents over several lines, of `Records` and of Parquet,
    decompressed; 0: no bound."""
    document_bytes_max: int = LINE_BYTES_MAX
    """Bytes of one document in an array, in `Records` or over several lines. A document that is a
    line has LINE_BYTES_MAX."""


ANY_FORM = ArchiveForm()


def form_for(
    is_readable: Callable[[bytes], bool],
    form: ArchiveForm,
    *,
    format: ArchiveFormat | None = None,  # noqa: A002  as the option is called
    bytes_max: int = 0,
) -> ArchiveForm:
    """Return how archives are read for a mapping. `is_readable`: whether it can read the form of a
    line; `form`: what the settings say; a `format` wins over theirs. A backfill and the
    notifications of S3 both read their objects so.
    """
    return form._replace(
        format=format or form.format,
        keeps_arrays=is_readable(b"[{}]"),
        takes_objects=is_readable(b"{}"),
        bytes_max=bytes_max,
    )


class Reader:
    """Reads one archive; knows how many of its stored bytes have been read."""

    def __init__(
        self, archive: Archive, pieces: Iterator[bytes], form: ArchiveForm = ANY_FORM
    ) -> None:
        self.archive = archive
        self.bytes_read = 0
        self.is_lines = True
        """Whether its records are lines, as far as it was read."""
        self._pieces = pieces
        self._form = form

    def lines(self) -> Iterator[Line]:
        """Yield each record, without white space around it. Raises as `chunks`."""
        for body, sent_ms in lines_in(self.chunks()):
            yield Line(body.strip(), sent_ms)

    def chunks(self, first: int = 0) -> Iterator[LineChunk]:
        """Yield the records from number `first` on, many at once; none is empty.

        Raises ArchiveDamaged, ArchiveRefused for a format that is not read, and PermanentFault
        `payload_too_large` beyond the form's bound.
        """
        name = self.archive.name
        start, pieces = begun(self._counted())
        asked = self._form.format
        if format_of(start) == "Parquet" and start[:4] == b"PAR1" and asked in ("auto", "parquet"):
            self.is_lines = False
            with self._seekable(self._bounded(pieces)) as file:
                yield from split_parquet(file, name, first, self._note)
            return
        if asked == "parquet":
            raise format_refusal(
                f"{name} is not Parquet", "leave --format away, or give Parquet files"
            )
        content = decompressed(pieces, name)
        if asked == "csv" or (asked == "auto" and _is_csv(name)):
            self.is_lines = False
            chunks = split_csv(content, name, self._form.kinds, self._form.columns)
        elif asked == "space":
            chunks = self._of_text(content)
        else:
            chunks = self._of_json(content)
        yield from _after(chunks, first)

    def _of_json(self, content: Iterator[bytes]) -> Iterator[LineChunk]:
        name, form = self.archive.name, self._form
        head, content = begun(content, HEAD_BYTES)
        head = head[:HEAD_BYTES]  # the same at every reading, wherever the pieces end
        opens_batches = "logEvents" not in form.reads
        records = "Records" not in form.reads and are_records(head)
        self.is_lines = not (records or are_documents(head, keeps_arrays=form.keeps_arrays))
        if self.is_lines and not are_glued(head):
            return split_lines(content, name, opens_batches=opens_batches)
        return split_documents(
            content if self.is_lines else self._bounded(content),
            name,
            wrapped=not form.takes_objects,
            records=records,
            opens_batches=opens_batches,
            bytes_max=form.document_bytes_max,
        )

    def _of_text(self, content: Iterator[bytes]) -> Iterator[LineChunk]:
        """Yield records of space-separated text, also from batches of a subscription."""
        name, form = self.archive.name, self._form
        head, content = begun(content, HEAD_BYTES)
        lines = (
            lines_in(split_documents(content, name))
            if is_batch(head[:HEAD_BYTES])
            else physical_lines(content, name)
        )
        return split_space(lines, name, form.kinds, form.columns)

    def _bounded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        left = self._form.bytes_max
        for piece in pieces:
            left -= len(piece)
            if left < 0 < self._form.bytes_max:
                raise PermanentFault("payload_too_large")
            yield piece

    def _counted(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.bytes_read += len(piece)
            yield piece

    def _note(self, size: int) -> None:
        self.bytes_read += size

    @contextmanager
    def _seekable(self, pieces: Iterator[bytes]) -> Iterator[IO[bytes]]:
        """Give the archive as a file that can seek. Bytes count as read from there."""
        archive = self.archive
        with ExitStack() as stack:
            if archive.spool is not None:
                file = archive.spool.file
            elif archive.name.startswith("s3://"):
                file = stack.enter_context(tempfile.TemporaryFile())
                for piece in pieces:
                    file.write(piece)
            else:
                file = stack.enter_context(Path(archive.name).open("rb"))
            file.seek(0)
            self.bytes_read = 0
            yield file


def _is_csv(name: str) -> bool:
    """Whether a name ends in .csv, or in that and what compressors append."""
    lower = name.lower()
    for suffix in _COPIES:
        lower = lower.removesuffix(suffix)
    return lower.endswith(".csv")


def _after(chunks: Iterator[LineChunk], skipped: int) -> Iterator[LineChunk]:
    for chunk in chunks:
        if skipped >= len(chunk.bodies):
            skipped -= len(chunk.bodies)
        else:
            yield chunk.part(skipped, len(chunk.bodies))
            skipped = 0


def find(paths: Iterable[str], store: Objects | None) -> Iterator[Archive]:
    """Yield the archives that paths name, in order: files, folders, and s3:// prefixes.

    Files are not read yet, so they have no digest. Blocking. Raises SettingsError for a path that
    names nothing.
    """
    for path in paths:
        found = False
        for archive in _archives_of(path, store):
            found = True
            yield archive
        if not found:
            raise SettingsError(f"{path} names no file or object", hint="check the path or prefix")


def _archives_of(path: str, store: Objects | None) -> Iterator[Archive]:
    if path == STDIN:
        spool = Spool(sys.stdin.buffer)
        return iter([Archive(STDIN, spool.digest, spool.size, today(), spool=spool)])
    return _in_s3(path, store) if path.startswith("s3://") else _in_files(Path(path))


def find_all(paths: Iterable[str], store: Objects | None) -> list[Archive]:
    """Return all that `find` yields.

    Raises SettingsError also where a file and its compressed copy are both among them: their lines
    would be written twice.
    """
    found = list(find(paths, store))
    names = {archive.name for archive in found}
    for name in sorted(names):
        for suffix in _COPIES:
            if name + suffix in names:
                raise SettingsError(
                    f"{name} and {name}{suffix} seem to hold the same lines",
                    hint="backfill one of them, or rename one if they differ",
                )
    return found


def identify(archive: Archive, store: Objects | None = None) -> Archive:
    """Return an archive that `find` found, with its digest. A file is read from start to end.

    Blocking. Raises SettingsError where it cannot be read, or has changed since it was found;
    PermanentFault `object_changed` or `payload_missing` for an object.
    """
    if archive.digest:
        return archive
    if archive.name.startswith("s3://"):
        assert store is not None
        bucket, key = _place(archive)
        version, etag = store.identify(bucket, key, archive.etag)
        digest = object_digest(bucket, key, version=version, etag=etag)
        return archive._replace(digest=digest, version=version, etag=etag)
    content = hashlib.sha256()
    size = 0
    for piece in _file_pieces(Path(archive.name)):
        content.update(piece)
        size += len(piece)
    if size != archive.size:
        raise SettingsError(
            f"{archive.name} has {size:,} bytes, and had {archive.size:,} when it was found",
            hint="backfill files that nobody writes to any more, the same ones on every node",
        )
    return archive._replace(digest=f"sha256:{content.hexdigest()}")


def read(archive: Archive, store: Objects | None, form: ArchiveForm = ANY_FORM) -> Reader:
    """Return a reader of an archive that `find` has found."""
    if archive.spool is not None:
        return Reader(archive, archive.spool.pieces(), form)
    if archive.name.startswith("s3://"):
        assert store is not None
        opened = store.open(*_place(archive), version=archive.version, etag=archive.etag)
        return Reader(archive, opened.pieces, form)
    return Reader(archive, _file_pieces(Path(archive.name)), form)


def _place(archive: Archive) -> tuple[str, str]:
    bucket, _, key = archive.name.removeprefix("s3://").partition("/")
    return bucket, key


def _in_files(path: Path) -> Iterator[Archive]:
    files = sorted(p for p in path.rglob("*") if _is_meant(p, path)) if path.is_dir() else [path]
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise _unreadable(file, error) from None
        own = date_in(str(file)) or day_of_change(status.st_mtime)
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
            own = date_in(stored.key) or stored.modified.astimezone(UTC).date()
            sent_ms = object_sent_ms(stored.key, stored.modified)
            yield Archive(name, "", stored.size, own, sent_ms=sent_ms, etag=stored.etag)


def _file_pieces(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"{file} cannot be read: {error.strerror}", hint="check the path and its permissions"
    )


def line_ms(archive: Archive, day: date | None) -> int:
    """Return when lines of an archive that have no time were sent, milliseconds since the epoch.

    `day`: the one that was given for them. Raises as `day_ms`.
    """
    return day_ms(day or archive.date) if day or archive.sent_ms is None else archive.sent_ms


def attributes_of(archive: Archive) -> Mapping[str, MessageAttribute] | None:
    """Return the attributes of an archive's lines: what names an object; a file has none."""
    return object_attributes(*_place(archive)) if archive.name.startswith("s3://") else None


def day_ms(day: date) -> int:
    """Return the first millisecond of a UTC day, since the epoch.

    Raises SettingsError for a day before 1970, which no ledger key has, and for one in the future,
    which the ledger does not have yet.
    """
    if day < EPOCH:
        raise SettingsError(
            f"the day {day.isoformat()} is before 1970", hint="give a later one with --date"
        )
    if day > today() + timedelta(seconds=AHEAD_S):
        raise SettingsError(
            f"the day {day.isoformat()} is in the future",
            hint="give an earlier one with --date: it dates the lines that have no time",
        )
    return (day - EPOCH).days * DAY_MS

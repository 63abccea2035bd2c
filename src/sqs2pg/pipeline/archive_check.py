"""Whether an archive has what a backfill can read, before anything of it is written.

Place in the flow: between the archive's bytes and its first batch. An archive of another format
would be quarantined line by line, and then count as done. So it is refused: nothing of it is
written, and the same archive may be given again, to other settings, say.

No I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from sqs2pg.errors import PermanentFault, Sqs2pgError
from sqs2pg.mapping.compile import MessageMapping
from sqs2pg.mapping.envelope.first_bytes import ENOUGH, format_of
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.pipeline.archive_lines import LineChunk

LAYERS_MAX = 4
"""Compressions around one another that are undone. CloudWatch through Firehose makes two."""
LINES_CHECKED = 1_000
"""If none of so many first lines can be read, the archive is refused."""
BYTES_CHECKED = 32 * 2**20
"""The same for so many bytes of lines."""

_UNPACK = {
    "tar": "tar -xf",
    "zip": "unzip",
    "bzip2": "bzip2 -dk",
    "xz": "xz -dk",
    "7z": "7z x",
    "rar": "unrar x",
    "lz4": "lz4 -d",
    "compress": "uncompress -k",
    "UTF-16": "iconv -f UTF-16 -t UTF-8",
}


_OTHER_FORMS = {
    *("not_json", "bad_unicode", "not_an_object", "not_an_array", "not_base64", "not_gzip"),
    *("not_zstd", "unknown_encoding", "not_sns", "not_eventbridge"),
}
"""Faults of a line that is not what the settings say lines are."""


class ArchiveRefused(Sqs2pgError):
    """An archive is of a format that is not read. Nothing of it was written."""


def check_format(start: bytes, name: str) -> None:
    """Refuse an archive whose content, decompressed, begins with bytes that no JSON begins with.

    `start` has at least ENOUGH bytes, or is the whole. Raises ArchiveRefused.
    """
    kind = format_of(start)
    if not kind and b"\0" not in start[:ENOUGH]:
        return
    if command := _UNPACK.get(kind):
        hint = f"unpack it ({command} FILE), then backfill what is inside"
    else:
        hint = "convert it to JSON lines, one document per line, then backfill those"
    raise format_refusal(f"{name} is not JSON lines but {kind or 'binary data'}", hint)


def too_deep(name: str) -> ArchiveRefused:
    """Return the refusal of an archive that is compressed too many times over."""
    return format_refusal(
        f"{name} is compressed more than {LAYERS_MAX} times over", "unpack it once"
    )


def refusal_of(refused: Sequence[ArchiveRefused]) -> ArchiveRefused:
    """Return the refusal of several archives, by the first of them."""
    first, *others = refused
    more = f"; archives refused besides: {len(others):,}, which the log names" if others else ""
    return ArchiveRefused(f"{first.what}{more}", code="archive_format", hint=first.hint)


def has_form(mapping: MessageMapping, body: bytes) -> bool:
    """Whether a mapping can read a line's form, whatever is in it."""
    message = Message("", "", body.decode("utf-8", "surrogateescape"), SystemAttributes(0))
    try:
        mapping.decode(message)
    except PermanentFault as fault:
        return fault.code not in _OTHER_FORMS
    return True


def check_chunks(
    name: str, chunks: Iterator[LineChunk], is_readable: Callable[[bytes], bool]
) -> Iterator[LineChunk]:
    """Return the lines, after the first of them have been looked at: as a rule that is one.

    `is_readable` tells whether the mapping can read the form of a line. Raises ArchiveRefused where
    none of the first lines can be read.
    """
    head: list[LineChunk] = []
    lines = size = 0
    for chunk in chunks:
        head.append(chunk)
        for index, body in enumerate(chunk.bodies):
            if index not in chunk.faults and is_readable(body.strip()):
                return chain(head, chunks)
            lines += 1
            size += len(body)
            if lines == LINES_CHECKED or size >= BYTES_CHECKED:
                raise _unreadable(name, lines)
    if not lines:
        return iter(())
    raise _unreadable(name, lines)


def _unreadable(name: str, lines: int) -> ArchiveRefused:
    return format_refusal(
        f"{name}: none of its first {lines:,} lines can be read as JSON",
        "backfill reads one JSON document per line; check the file, envelope.layers, and for text "
        "in columns archive.format",
    )


def format_refusal(what: str, hint: str) -> ArchiveRefused:
    """Return the refusal of an archive; `hint` says what to do."""
    return ArchiveRefused(
        what,
        code="archive_format",
        hint=f"{hint}; nothing of it was written, so it may be given again",
    )

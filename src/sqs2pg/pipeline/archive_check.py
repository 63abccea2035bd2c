"""Whether an archive has what a backfill can read, before anything of it is written.

Place in the flow: between the archive's bytes and its first batch. An archive of another format
would be quarantined line by line, and then count as done. So it is refused: nothing of it is
written, and the same archive may be given again, to other settings, say.

No I/O of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import msgspec

from sqs2pg.errors import Sqs2pgError
from sqs2pg.mapping.envelope.first_bytes import ENOUGH, format_of
from sqs2pg.pipeline.archive_lines import Line

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
    raise _refused(f"{name} is not JSON lines but {kind or 'binary data'}", hint)


def too_deep(name: str) -> ArchiveRefused:
    """Return the refusal of an archive that is compressed too many times over."""
    return _refused(f"{name} is compressed more than {LAYERS_MAX} times over", "unpack it once")


def refusal_of(refused: Sequence[ArchiveRefused]) -> ArchiveRefused:
    """Return the refusal of several archives, by the first of them."""
    first, *others = refused
    more = f"; archives refused besides: {len(others):,}, which the log names" if others else ""
    return ArchiveRefused(f"{first.what}{more}", code="archive_format", hint=first.hint)


def check_lines(
    name: str, lines: Iterator[Line], is_readable: Callable[[bytes], bool]
) -> Iterator[Line]:
    """Return the lines, after the first of them have been looked at: as a rule that is one.

    `is_readable` tells whether the mapping can read the form of a line. Raises ArchiveRefused where
    the archive is one document over many lines, or none of its first lines can be read.
    """
    head: list[Line] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line.body)
        readable = is_readable(line.body)
        first = head[0].body
        # A first line that a crash has cut is a bad line, and the next is a whole one.
        if len(head) == 2 and _is_cut(first) and (_is_bare(first) or not readable):
            raise _refused(
                f"{name} is one JSON document over many lines, not one document per line",
                "write each record on a line of its own: jq -c . FILE, or jq -c '.[]' FILE for an "
                "array",
            )
        if readable:
            return chain(head, lines)
        if len(head) == LINES_CHECKED or size >= BYTES_CHECKED:
            break
    if not head:
        return iter(())
    raise _refused(
        f"{name}: none of its first {len(head):,} lines can be read as JSON",
        "backfill reads one JSON document per line; check the file, and envelope.layers",
    )


def _is_bare(body: bytes) -> bool:
    """Whether a line has nothing but opening brackets."""
    return not body.strip(b"[{ \t\r")


def _is_cut(body: bytes) -> bool:
    """Whether a line is the beginning of an array or object."""
    if not body.lstrip().startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return "truncated" in str(error)
    return False


def _refused(what: str, hint: str) -> ArchiveRefused:
    return ArchiveRefused(
        what,
        code="archive_format",
        hint=f"{hint}; nothing of it was written, so it may be given again",
    )

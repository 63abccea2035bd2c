"""Documents over several lines: arrays, whose elements are the records, and pretty-printed JSON.

The text is cut where brackets balance, so a document may have line feeds and a file may be one
array, or documents one after the other. Of CloudTrail's `{"Records": […]}` the elements are the
records, too. What is in a document is left to the decoder. Bounded: one document in memory. No I/O
of its own.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from enum import Enum

import msgspec

from sqs2pg.pipeline.archive_lines import (
    GLUED,
    LINE_BYTES_MAX,
    LineChunk,
    chunk_of,
    document_too_long,
    is_batch,
    lines_of,
)

HEAD_BYTES = 2**16
"""So many bytes tell whether the content is lines or documents."""

_SPACE = re.compile(rb"[\s,]*")
_RECORDS = re.compile(rb'\s*+\{\s*+"Records"\s*+:\s*+\[')
# Up to the next bracket; strings may contain brackets. The possessive quantifiers bound the search.
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])', re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]+|[\]}]')


def are_records(head: bytes) -> bool:
    """Whether content that begins so is an object whose first member is the array `Records`."""
    return _RECORDS.match(head.removeprefix(BOM_UTF8)) is not None


def are_documents(head: bytes, *, keeps_arrays: bool) -> bool:
    """Whether content that begins so is documents over several lines, or arrays to be opened.

    `head` has at least HEAD_BYTES bytes, or is the whole. `keeps_arrays`: the mapping reads an
    array as one message, so a line that is one stays whole.
    """
    text = head.removeprefix(BOM_UTF8).lstrip()
    first, feed, rest = text.partition(b"\n")
    if text[:1] == b"[" and not keeps_arrays:
        return True
    if text[:1] not in (b"{", b"[") or not feed or not _is_cut(first):
        return False
    # A first line that a crash has cut is a bad line, and the next is a whole one.
    second = rest.lstrip().partition(b"\n")[0]
    return not first.strip(b"[{ \t\r") or not _is_document(second)


def are_glued(head: bytes) -> bool:
    """Whether content that begins so is documents one after the other, without a line feed.

    As one line they could be as long as the file.
    """
    text = head.removeprefix(BOM_UTF8).lstrip()
    if text[:1] != b"{" or b"\n" in text or len(head) < HEAD_BYTES:
        return False
    return GLUED.search(text) is not None or is_batch(head)


def _is_cut(line: bytes) -> bool:
    """Whether a line is the beginning of an array or object."""
    try:
        msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return "truncated" in str(error)
    return False


def _is_document(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict | list)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


def split_documents(
    pieces: Iterator[bytes],
    name: str,
    *,
    wrapped: bool = False,
    records: bool = False,
    opens_batches: bool = True,
    bytes_max: int = LINE_BYTES_MAX,
) -> Iterator[LineChunk]:
    """Yield the documents, those inside a top-level array included, by chunks.

    `wrapped`: each in an array of its own, for a mapping that reads arrays. `records`: of an object
    that begins with the array `Records` its elements. `opens_batches`: as for `split_lines`.
    `bytes_max`: of one document. Raises Sqs2pgError `archive_line`, after the documents before it.
    """
    for documents in _documents_in(pieces, name, bytes_max, records=records):
        short, is_long = _before_long(documents, bytes_max)
        if short:
            yield from _chunks(short, wrapped=wrapped, opens_batches=opens_batches)
        if is_long:
            raise document_too_long(name, bytes_max)


def _documents_in(
    pieces: Iterator[bytes], name: str, bytes_max: int, *, records: bool
) -> Iterator[list[bytes]]:
    """Yield the documents as they become complete, many at once."""
    splitter = _Splitter(records=records)
    parts: list[bytes] = []
    size = wanted = 0
    mark = BOM_UTF8
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size < min(wanted, bytes_max + 1):
            continue
        text, mark = b"".join(parts).removeprefix(mark), b""
        parts.clear()
        documents, rest = splitter.feed(text, last=False)
        del text  # it may be large, and `rest` is a copy of a part of it
        yield documents
        size = len(rest)
        if size > bytes_max:
            raise document_too_long(name, bytes_max)
        parts.append(rest)
        # What is not complete yet is looked at again once it has doubled.
        wanted = 2 * size
    documents, rest = splitter.feed(b"".join(parts).removeprefix(mark), last=True)
    if rest.strip():
        documents.append(rest.strip())
    yield documents


def _before_long(documents: list[bytes], bytes_max: int) -> tuple[list[bytes], bool]:
    """Return the documents before the first that is too long, and whether there is such a one."""
    for at, one in enumerate(documents):
        if len(one) > bytes_max:
            return documents[:at], True
    return documents, False


def _chunks(documents: list[bytes], *, wrapped: bool, opens_batches: bool) -> Iterator[LineChunk]:
    if wrapped:
        yield LineChunk([b"[%b]" % one for one in documents])
        return
    plain: list[bytes] = []
    for one in documents:
        # One batch at a time: what is in it may be much longer than in a line.
        if opens_batches and b'"messageType"' in one:
            if plain:
                yield LineChunk(plain)
                plain = []
            chunk = chunk_of(lines_of(one))
            if chunk.bodies:
                yield chunk
        else:
            plain.append(one)
    if plain:
        yield LineChunk(plain)


class _In(Enum):
    """Where the text is, between two documents."""

    NOTHING = 0
    ARRAY = 1
    RECORDS = 2
    REST = 3
    """In the object that had the records, behind them."""


class _Splitter:
    """Finds where documents end; knows what is around them."""

    def __init__(self, *, records: bool) -> None:
        self._opens_records = records
        self._in = _In.NOTHING

    def feed(self, text: bytes, *, last: bool) -> tuple[list[bytes], bytes]:
        """Return the documents that are complete, and the rest. `last`: no text follows."""
        documents: list[bytes] = []
        at = 0
        while True:
            space = _SPACE.match(text, at)
            assert space is not None
            at = space.end()
            if at == len(text):
                return documents, b""
            if (bracket := self._bracket(text, at)) is not None:
                at = bracket
                continue
            end = _end_of(text, at, last=last)
            if self._in is _In.REST:
                if end < 0:
                    return documents, b"" if last else text[at:]
            elif end < 0:
                return documents, text[at:]
            else:
                documents.append(text[at:end])
            at = end

    def _bracket(self, text: bytes, at: int) -> int | None:
        """Return where what opens or closes around documents ends; None where a value begins."""
        first, inside = text[at : at + 1], self._in
        if inside is _In.NOTHING:
            if self._opens_records and (opened := _RECORDS.match(text, at)):
                self._in = _In.RECORDS
                return opened.end()
            if first != b"[":
                return None
            self._in = _In.ARRAY
        elif inside is _In.REST:
            if first not in (b"}", b":"):
                return None
            if first == b"}":
                self._in = _In.NOTHING
        elif first != b"]":
            return None
        else:
            self._in = _In.NOTHING if inside is _In.ARRAY else _In.REST
        return at + 1


def _end_of(text: bytes, at: int, *, last: bool) -> int:
    """Return where the value that begins here ends; -1 where the text ends before that."""
    first = text[at : at + 1]
    if first not in (b"{", b"["):
        found = (_STRING if first == b'"' else _SCALAR).match(text, at)
        is_whole = found is not None and (last or first == b'"' or found.end() < len(text))
        return found.end() if found is not None and is_whole else -1
    depth = 0
    while bracket := _BRACKET.match(text, at):
        depth += 1 if bracket[1] in (b"{", b"[") else -1
        at = bracket.end()
        if depth == 0:
            return at
    return -1

"""Documents over several lines: arrays, whose elements are the records, and pretty-printed JSON.

The text is cut where brackets balance, so a document may have line feeds and a file may be one
array, or documents one after the other. What is in a document is left to the decoder. Bounded: one
document in memory, LINE_BYTES_MAX at most. No I/O of its own.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator

import msgspec

from sqs2pg.pipeline.archive_lines import LINE_BYTES_MAX, LineChunk, chunk_of, lines_of, too_long

HEAD_BYTES = 2**16
"""So many bytes tell whether the content is lines or documents."""

_SPACE = re.compile(rb"[\s,]*")
# Up to the next bracket; strings may contain brackets. The possessive quantifiers bound the search.
_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])', re.DOTALL)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]+|[\]}]')


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
    pieces: Iterator[bytes], name: str, *, wrapped: bool = False
) -> Iterator[LineChunk]:
    """Yield the documents, those inside a top-level array included, by chunks.

    `wrapped`: each in an array of its own, for a mapping that reads arrays. Raises Sqs2pgError
    `archive_line`.
    """
    splitter = _Splitter()
    rest, wanted = b"", 0
    mark = BOM_UTF8
    for piece in pieces:
        rest += piece
        if len(rest) < wanted:
            continue
        rest, mark = rest.removeprefix(mark), b""
        documents, rest = splitter.feed(rest, last=False)
        # What is not complete yet is looked at again once it has doubled.
        wanted = 2 * len(rest)
        if len(rest) > LINE_BYTES_MAX:
            raise too_long(name)
        if documents:
            yield _chunk(documents, wrapped=wrapped)
    documents, rest = splitter.feed(rest.removeprefix(mark), last=True)
    if rest.strip():
        documents.append(rest.strip())
    if documents:
        yield _chunk(documents, wrapped=wrapped)


def _chunk(documents: list[bytes], *, wrapped: bool) -> LineChunk:
    if wrapped:
        return LineChunk([b"[%b]" % one for one in documents])
    if any(b'"messageType"' in one for one in documents):
        return chunk_of(line for one in documents for line in lines_of(one))
    return LineChunk(documents)


class _Splitter:
    """Finds where documents end; knows whether it is inside a top-level array."""

    def __init__(self) -> None:
        self._in_array = False

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
            first = text[at : at + 1]
            if first == b"[" and not self._in_array:
                self._in_array, at = True, at + 1
                continue
            if first == b"]" and self._in_array:
                self._in_array, at = False, at + 1
                continue
            end = _end_of(text, at, last=last)
            if end < 0:
                return documents, text[at:]
            documents.append(text[at:end])
            at = end


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

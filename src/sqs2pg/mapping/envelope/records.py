"""Records: one JSON document, an array of them, or one per line."""

from __future__ import annotations

from typing import NamedTuple

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.json_slices import parse, raw_text, text_of

RECORDS_MAX = 100_000
"""Most records of one message: a megabyte of `1,1,1,…` must not become a million rows."""


class Records(NamedTuple):
    """The records of a payload, each a text that is yet to be read."""

    texts: list[str]
    several: bool
    """Any number of them is allowed, not just this one."""
    lines: bool = False
    """Each is a line of the payload: only one of them may be unreadable."""


def read_records(payload: str | bytes, how: str) -> Records:
    """Return the records of a payload.

    `how` is `one`, `array`, `lines` or `auto`. `auto` takes an array for one, and reads lines if
    the whole payload is no document and has several lines.

    Raises PermanentFault: `bad_unicode`, `not_an_array`, `too_many_records`, for arrays those of
    `parse`. One document, and lines, are only checked when they are read.
    """
    if how == "lines":
        return _lines(payload)
    text = text_of(payload)
    payload = text  # bytes are freed
    if how == "one":
        return Records([text], several=False)
    if how == "auto":
        try:
            whole = parse(text)
        except PermanentFault as fault:
            if fault.code != "not_json" or "\n" not in text.strip():
                raise
            whole = None
        if whole is None:
            return _lines(payload)
        if not whole.is_array:
            return Records([whole.text], several=False)
    else:
        whole = parse(text)
        if not whole.is_array:
            raise PermanentFault("not_an_array")
    if len(whole.elements()) > RECORDS_MAX:
        raise PermanentFault("too_many_records")
    return Records(list(map(raw_text, whole.elements())), several=True)


def _lines(payload: str | bytes) -> Records:
    # Split at line feeds only: splitlines also splits at U+2028, which JSON may hold.
    pieces = payload.split("\n") if isinstance(payload, str) else payload.split(b"\n")
    texts: list[str] = []
    for piece in pieces:
        if not piece.strip():
            continue
        if len(texts) == RECORDS_MAX:
            raise PermanentFault("too_many_records")
        text = _line(piece)
        if text is None:
            raise PermanentFault("bad_unicode", f"record {len(texts)}")
        texts.append(text)
    return Records(texts, several=True, lines=True)


def _line(piece: str | bytes) -> str | None:
    # Returns None, so that the fault that the caller raises has no other one as its context.
    try:
        return text_of(piece)
    except PermanentFault:
        return None

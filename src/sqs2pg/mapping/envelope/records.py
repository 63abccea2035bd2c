"""Records: one JSON document, an array of them, or one per line."""

from __future__ import annotations

from typing import Any

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.documents import RECORDS_MAX, parse


def read_records(payload: str | bytes, how: str) -> tuple[list[Any], bool]:
    """Return the documents of a payload, and whether `how` allows any number of them.

    `how` is `one`, `array`, `lines` or `auto`. `auto` takes an array for one, and reads lines if
    the whole payload is no document and has several lines.

    Raises PermanentFault: those of `parse`, with the record's index if there are lines,
    `not_an_array`, `too_many_records`.
    """
    if how == "lines":
        return _lines(payload), True
    if how == "auto":
        try:
            whole = parse(payload)
        except PermanentFault as fault:
            if fault.code != "not_json" or _line_count(payload) < 2:
                raise
            whole = None
        if whole is None:
            return _lines(payload), True
        if type(whole) is not list:
            return [whole], False
    else:
        whole = parse(payload)
        if how == "one":
            return [whole], False
        if type(whole) is not list:
            raise PermanentFault("not_an_array")
    if len(whole) > RECORDS_MAX:
        raise PermanentFault("too_many_records")
    return whole, True


def _line_count(payload: str | bytes) -> int:
    lines: Any = payload.splitlines() if len(payload) < 2**16 else payload.split()[:2]
    return len(lines)


def _lines(payload: str | bytes) -> list[Any]:
    documents: list[Any] = []
    # Split at line feeds only: splitlines also splits at U+2028, which JSON may hold.
    pieces: Any = payload.split("\n") if isinstance(payload, str) else payload.split(b"\n")
    for piece in pieces:
        if piece.strip():
            if len(documents) == RECORDS_MAX:
                raise PermanentFault("too_many_records")
            document = _line(piece)
            if isinstance(document, PermanentFault):
                raise PermanentFault(document.code, f"record {len(documents)}")
            documents.append(document)
    return documents


def _line(piece: str | bytes) -> Any:
    # Returns the fault, so that the one that the caller raises has no other one as its context.
    try:
        return parse(piece)
    except PermanentFault as fault:
        return fault.with_traceback(None)

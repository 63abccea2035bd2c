"""COPY's text format: NULL, escapes, and the cells of a line.

Place in the flow: what every line for a target, the ledger and the quarantine is written in, and
what tests of a mapping read lines by. A line has its cells joined by tabs and ends in a newline.
Source: PostgreSQL documentation, COPY, "Text Format". No I/O here.
"""

from __future__ import annotations

NULL = r"\N"
"""The cell of a missing value."""

# Backslash, newline, carriage return and the delimiter must be escaped.
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"})
_ESCAPED = str.maketrans({"n": "\n", "r": "\r", "t": "\t"})


def escaped(text: str) -> str:
    """Return the cell of a text. The text must have no NUL: PostgreSQL stores none."""
    return text.translate(_ESCAPES)


def unescaped(cell: str) -> str:
    """Return the text that a cell stands for, where it is not NULL."""
    text, *rest = cell.split("\\")
    pieces = iter(rest)
    for piece in pieces:
        # A backslash escapes itself or a letter; two in a row leave an empty piece between them.
        text += piece[:1].translate(_ESCAPED) + piece[1:] if piece else "\\" + next(pieces, "")
    return text


def values(line: str) -> list[str | None]:
    """Return the texts in a line, given without its newline; None for NULL."""
    return [None if cell == NULL else unescaped(cell) for cell in line.split("\t")]

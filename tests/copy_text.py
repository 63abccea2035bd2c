"""A reader of COPY's text format, written from PostgreSQL's documentation alone, not from our code.

Source: PostgreSQL documentation, COPY, "Text Format".
"""

from __future__ import annotations

import re
from typing import Any


def read_copy(line: Any) -> list[str | None]:
    """The cells of one line, None for NULL. Fails if it is not one line of UTF-8."""
    assert isinstance(line, str), line
    assert line.endswith("\n")
    assert not re.search(r"[\n\r\x00]", line[:-1])
    line.encode()
    return [None if cell == r"\N" else unescape(cell) for cell in line[:-1].split("\t")]


def unescape(cell: str) -> str:
    named = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

    def meaning(found: re.Match[str]) -> str:
        octal, hexadecimal, other = found.groups()
        if octal or hexadecimal:
            return chr(int(octal, 8) if octal else int(hexadecimal, 16))
        return named.get(other, other)

    assert not re.search(r"(?<!\\)(\\\\)*\\\Z", cell)  # it would swallow the delimiter
    return re.sub(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", meaning, cell, flags=re.DOTALL)

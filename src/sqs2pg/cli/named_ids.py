"""The ids of people, as an operator gives them: one argument, or stdin with one per line.

What comes from a spreadsheet or another system is seldom just ids. Line ends of Windows and a byte
order mark are removed. Quotes, white space around an id and a header are refused by line number:
with them nobody would be found.

Must never do: put an id into an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqs2pg.cli.options import stdin_lines
from sqs2pg.errors import SettingsError

PEOPLE_MAX = 100_000
"""The most ids that are read from stdin."""

_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"


def ids_of(argument: str, headers: Iterable[str], *, exact: bool) -> list[str]:
    """Return the ids in order: the argument, or the lines of stdin where it is `-`.

    `headers` are the words that a header line may have, such as the field's name. `exact`: every
    line is an id as it stands. Raises SettingsError.
    """
    if argument != "-":
        ids = [argument]
    elif exact:
        ids = stdin_lines(most=PEOPLE_MAX)
    else:
        ids = stdin_ids(most=PEOPLE_MAX)
    if not all(ids):
        raise SettingsError("a user id is empty", hint="give one id per line")
    if not exact:
        _refuse_what_is_no_id(ids, {header.casefold() for header in headers})
    return ids


def stdin_ids(*, most: int) -> list[str]:
    """Return stdin's lines, 1 to `most`, without line ends of Windows and a byte order mark.

    Raises SettingsError, which quotes none of them.
    """
    lines = stdin_lines(most=most)
    lines[0] = lines[0].removeprefix("\ufeff")
    return [line.removesuffix("\r") for line in lines]


def _refuse_what_is_no_id(ids: list[str], headers: set[str]) -> None:
    for number, id_ in enumerate(ids, 1):
        where = f"the id on line {number:,}" if len(ids) > 1 else "the id"
        hint = "nobody was erased. Correct it; if it really is so, add --exact"
        if id_ != id_.strip():
            raise SettingsError(
                f"{where} begins or ends with white space", code="not_an_id", hint=hint
            )
        if id_[0] in _QUOTES or id_[-1] in _QUOTES:
            raise SettingsError(f"{where} is in quotes", code="not_an_id", hint=hint)
        if not id_.isprintable():
            raise SettingsError(f"{where} has control characters", code="not_an_id", hint=hint)
        if number == 1 and id_.casefold() in headers:
            raise SettingsError(f"{where} is a header, not an id", code="not_an_id", hint=hint)

"""Tables of `sqs2pg quarantine list`: one line per row, two on a terminal that is too narrow."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

from sqs2pg.cli.options import aligned, terminal_text

_INDENT = "    "


def print_table(
    wide: Sequence[Sequence[str]], narrow: Sequence[Sequence[str]], below: Sequence[str]
) -> None:
    """Print a table, whose first row has the names of its columns.

    In a pipe, and where it fits, that is `wide`, nothing cut or wrapped. Else it is `narrow`, with
    the text of `below` under each row but the first one.
    """
    lines = list(aligned([list(map(terminal_text, row)) for row in wide]))
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or max(map(len, lines)) <= width:
        print("\n".join(lines))
        return
    head, *rows = aligned([list(map(terminal_text, row)) for row in narrow])
    print(head)
    for row, text in zip(rows, below, strict=True):
        print(row)
        if text:
            shown = terminal_text(text)
            wrap = textwrap.TextWrapper(
                max(20, width), initial_indent=_INDENT, subsequent_indent=_INDENT
            )
            print(wrap.fill(shown))


def whole_time(instant: datetime | None) -> str:
    """Return a time to the second, with its zone; `-` for none."""
    return f"{instant:%Y-%m-%dT%H:%M:%S%z}" if instant else "-"


def short_time(instant: datetime) -> str:
    """Return a time of UTC to the minute, without its year: 11 columns."""
    return f"{instant.astimezone(UTC):%m-%d %H:%M}"

"""The native short cut: body -> masked line in C, for the messages that nothing is odd about.

Place in the flow: before decode and transform, which do whatever it leaves. It is compiled for a
mapping at start, or there is none: no extension in this installation, or a mapping that it does
not know by heart. Promises: a line it gives is the line that `FlatMapping` would have given, byte
for byte; of everything else it says None. So it knows no faults, and nothing depends on it.
No I/O here; the code is in native/ of the source tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Protocol, cast

from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import is_flat
from sqs2pg.mapping.field_types import FIELD_TYPES, INTEGER_RANGES
from sqs2pg.mask.operator import Mask, Operator
from sqs2pg.mask.pseudonymize import TOKEN_HEX_DIGITS
from sqs2pg.message import Message
from sqs2pg.settings import Field, Settings


class Lines(Protocol):
    """The short cut of one mapping."""

    def of(self, messages: Sequence[Message], /) -> list[str | None]:
        """Return each message's COPY line, newline included, or None where it is Python's."""

    def pack(self, messages: Sequence[Message], tail: bytes, /) -> tuple[bytes, bytes, int] | None:
        """Return the texts of a whole batch's COPYs, by key: the ledger's, whose lines end in
        `tail`, and the target's; and the oldest SentTimestamp, ms. None where any is Python's.
        """


# As `enum operation` in native/line.h.
_TEXT, _VERSION, _DATE, _TOKEN_IP, _TOKEN_TEXT = range(5)
_SOURCES_MAX, _COLUMNS_MAX = 64, 128
_VERSION_DIGITS_MAX = 10
_Column = tuple[int, int, bool, bool, int, bytes, bytes]


def compile_lines(
    settings: Settings,
    columns: Sequence[Column],
    masks: Sequence[Operator | Mask | None],
    extension: ModuleType | None,
) -> Lines | None:
    """Return the short cut of a mapping; None where there is no extension or it does not fit.

    `columns` and `masks` are those of the one target's fields, in their order.
    """
    if extension is None or not is_flat(settings):
        return None
    if settings.ledger.dedupe_key or settings.dropped:
        return None  # what they need of a record, only the decoded one has
    [target] = settings.targets
    required: dict[str, bool] = {}
    for field in target.fields:
        required[field.source] = required.get(field.source, False) or field.required
    places = {source: place for place, source in enumerate(required)}
    compiled = [
        _column(field, column, mask, places[field.source])
        for field, column, mask in zip(target.fields, columns, masks, strict=True)
    ]
    if None in compiled or len(compiled) > _COLUMNS_MAX or len(required) > _SOURCES_MAX:
        return None
    sources = tuple((source.encode(), must) for source, must in required.items())
    lines = extension.Lines(sources, tuple(compiled), settings.unknown_fields == "quarantine")
    return cast("Lines", lines)


def _column(
    field: Field, column: Column, mask: Operator | Mask | None, place: int
) -> _Column | None:
    """Return one column as the extension takes it; None where it does not know such a one."""
    dated = field.type == "date" and field.default == "sent_date"
    if not field.source or (field.default is not None and not dated):
        return None
    whole_number = column.type in INTEGER_RANGES
    limits = [limit for limit in (field.length_max, column.length_max) if limit]
    length_max = -1 if whole_number or not limits else min(limits)
    prefix = key = b""
    if mask is not None:
        token = mask.token if isinstance(mask, Operator) else None
        operation = {"ip": _TOKEN_IP, "text": _TOKEN_TEXT}.get(field.kind)
        if token is None or operation is None or field.type != "text" or whole_number:
            return None
        prefix, key = token.prefix.encode(), token.key
        least = len(prefix) + TOKEN_HEX_DIGITS
    elif field.type == "text" and not whole_number:
        operation, least = _TEXT, 0
    elif field.type == "version" and column.type in ("int4", "int8", "numeric"):
        operation, least = _VERSION, _VERSION_DIGITS_MAX
    elif field.type == "date" and not whole_number:
        operation, least = _DATE, FIELD_TYPES["date"].length
    else:
        return None
    if 0 <= length_max < least:
        return None
    return place, operation, dated, column.nullable, length_max, prefix, key

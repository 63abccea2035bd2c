"""The fast path: body -> masked line in C, for ordinary messages.

Place in the flow: before decode and transform, which do the messages that it leaves. It is compiled
for a mapping at start. There is none if this installation lacks the extension, or if the mapping
has something that the C code cannot do. No I/O here; the code is in native/ of the source tree.

Promises: its lines are those that `FlatMapping` would give, byte for byte; for every other message
it returns None. So it raises no faults, and nothing depends on it.
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
from sqs2pg.settings import Field, Settings, required_sources


class FastPath(Protocol):
    """The fast path of one mapping."""

    def lines(self, messages: Sequence[Message], /) -> list[str | None]:
        """Return each message's COPY line, newline included, or None where Python must do it."""

    def pack(self, messages: Sequence[Message], tail: bytes, /) -> tuple[bytes, bytes, int] | None:
        """Return the texts of a whole batch's COPYs and the oldest SentTimestamp in milliseconds.

        The first text is the ledger's, each of its lines ending in `tail`, the second the target's;
        both are sorted by key. None where Python must do any of the messages.
        """


# As `enum operation` in native/line.h.
_TEXT, _VERSION, _DATE, _TOKEN_IP, _TOKEN_TEXT = range(5)
_SOURCES_MAX, _COLUMNS_MAX = 64, 128
_VERSION_DIGITS_MAX = 10
_NativeColumn = tuple[int, int, bool, bool, int, bytes, bytes]


def compile_fast_path(
    settings: Settings,
    columns: Sequence[Column],
    masks: Sequence[Operator | Mask | None],
    extension: ModuleType | None,
) -> FastPath | None:
    """Return the fast path of a mapping; None without the extension, or where it cannot do it.

    `columns` and `masks` are those of the one target's fields, in their order.
    """
    if extension is None or not is_flat(settings):
        return None
    if settings.ledger.dedupe_key or settings.dropped:
        return None  # both need a decoded record
    [target] = settings.targets
    required = required_sources(target.fields)
    places = {source: place for place, source in enumerate(required)}
    compiled = [
        _column(field, column, mask, places[field.source])
        for field, column, mask in zip(target.fields, columns, masks, strict=True)
    ]
    if None in compiled or len(compiled) > _COLUMNS_MAX or len(required) > _SOURCES_MAX:
        return None
    sources = tuple((source.encode(), must) for source, must in required.items())
    made = extension.FastPath(sources, tuple(compiled), settings.unknown_fields == "quarantine")
    return cast("FastPath", made)


def _column(
    field: Field, column: Column, mask: Operator | Mask | None, place: int
) -> _NativeColumn | None:
    """Return one column as the extension takes it; None where the C code cannot do it."""
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

"""Parquet: each row becomes a JSON object, as the mapping sees values of a message.

| Parquet | JSON |
|---|---|
| integers, floating point, decimal | number; NaN and the infinities: null |
| boolean | true, false |
| string, enum, UUID as text | string |
| binary | string: base64 |
| date, time | string: YYYY-MM-DD, HH:MM:SS.ffffff |
| timestamp of UTC | string: RFC 3339 with Z; nanoseconds are cut to microseconds |
| timestamp without a zone | string: the same without an offset |
| duration | string: ISO 8601 |
| list, struct, map | array, object, array of [key, value] |
| null | null |

One row group is open at a time, and read by batches of rows. It needs `pyarrow` (the extra
`parquet`) and a file that can seek.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from sqs2pg.pipeline.archive_check import format_refusal
from sqs2pg.pipeline.archive_lines import LineChunk

ROWS_AT_ONCE = 2_000

_encode = msgspec.json.Encoder(decimal_format="number").encode


def split_parquet(
    file: IO[bytes], name: str, first: int, note: Callable[[int], None]
) -> Iterator[LineChunk]:
    """Yield the rows from number `first` on, by chunks; blocking.

    `note` is called with the stored bytes of each row group that is done. Raises ArchiveRefused
    without pyarrow, and for a file that it does not read.
    """
    arrow, parquet = _libraries(name)
    try:
        opened = parquet.ParquetFile(file, coerce_int96_timestamp_unit="us", pre_buffer=False)
    except (arrow.ArrowException, OSError):
        opened = None
    if opened is None:
        raise format_refusal(
            f"{name} begins as Parquet, and pyarrow cannot read it",
            "check that it is whole and not encrypted",
        )
    with opened:
        names = opened.schema_arrow.names
        if len(set(names)) < len(names):
            raise format_refusal(f"{name} has two columns of one name", "rename one of them")
        schema = arrow.schema([(one.name, _plain(arrow, one.type)) for one in opened.schema_arrow])
        for number in range(opened.num_row_groups):
            group = opened.metadata.row_group(number)
            if group.num_rows <= first:
                first -= group.num_rows
            else:
                for chunk in _rows(opened, arrow, number, schema, name):
                    if first < len(chunk.bodies):
                        yield chunk.part(first, len(chunk.bodies))
                    first = max(0, first - len(chunk.bodies))
            note(sum(group.column(at).total_compressed_size for at in range(group.num_columns)))


def _libraries(name: str) -> tuple[Any, Any]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise format_refusal(
            f"{name} is Parquet, and pyarrow is not installed", "pip install 'sqs2pg[parquet]'"
        ) from None
    return arrow, parquet


def _rows(opened: Any, arrow: Any, group: int, schema: Any, name: str) -> Iterator[LineChunk]:
    batches = opened.iter_batches(ROWS_AT_ONCE, row_groups=[group], use_threads=False)
    while True:
        rows: list[dict[str, Any]] | None = None
        try:
            batch = next(batches, None)
            if batch is None:
                return
            rows = batch.cast(schema, safe=False).to_pylist()
            bodies = [_encode(row) for row in rows]
        except (arrow.ArrowException, OSError, ValueError, OverflowError, TypeError):
            bodies = []
        if not bodies:
            raise format_refusal(
                f"{name}: row group {group + 1} cannot be read",
                "replace the file, or write it again with columns that JSON can express",
            )
        yield LineChunk(bodies)


def _plain(arrow: Any, type_: Any) -> Any:
    """Return a type that Python has a value for: nanoseconds become microseconds."""
    types = arrow.types
    if types.is_timestamp(type_) and type_.unit == "ns":
        return arrow.timestamp("us", type_.tz)
    if types.is_time64(type_) and type_.unit == "ns":
        return arrow.time64("us")
    if types.is_duration(type_) and type_.unit == "ns":
        return arrow.duration("us")
    if types.is_dictionary(type_):
        return _plain(arrow, type_.value_type)
    if types.is_large_list(type_) or types.is_list(type_) or types.is_fixed_size_list(type_):
        return arrow.list_(_plain(arrow, type_.value_type))
    if types.is_struct(type_):
        return arrow.struct([(one.name, _plain(arrow, one.type)) for one in type_])
    return type_

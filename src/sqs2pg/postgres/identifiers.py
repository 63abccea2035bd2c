"""Quoting: names and texts as SQL spells them, where a statement takes no parameter.

The only place that quotes for SQL. A parameter is better wherever PostgreSQL takes one: names of
tables and columns never are parameters, and neither are values in several statements sent as one.
"""

from __future__ import annotations

import functools
import hashlib

from psycopg import sql

NAME_BYTES_MAX = 63
"""PostgreSQL cuts a longer name short without an error (NAMEDATALEN - 1)."""


@functools.lru_cache(1024)  # the driver takes long, and each batch's statements name the same
def quote_identifier(*names: str) -> str:
    """Return one name quoted, or a qualified one: `"a"."b"`."""
    return sql.Identifier(*names).as_string()


def quote_table(name: str) -> str:
    """Return `schema.table` or `table`, as the settings have it, quoted.

    The first dot separates the schema; a table's name may have dots of its own after that.
    """
    return quote_identifier(*name.split(".", 1))


def shortened(name: str, size: int) -> str:
    """Return a name in at most `size` bytes, 10 or more: itself, or its start and its hash's.

    Two long names that begin alike stay apart. The schema's function `sqs2pg.stem` does the same
    with 50 bytes.
    """
    encoded = name.encode()
    if len(encoded) <= size:
        return name
    start = encoded[: size - 9].decode("utf-8", "ignore")
    return f"{start}_{hashlib.sha256(encoded).hexdigest()[:8]}"


def partition_stem(table: str) -> str:
    """Return what the names of a table's partitions begin with. `table` has no schema."""
    return shortened(table, 50)


def quote_literal(text: str) -> str:
    """Return a text as an SQL literal that every `standard_conforming_strings` reads the same."""
    return sql.Literal(text).as_string()

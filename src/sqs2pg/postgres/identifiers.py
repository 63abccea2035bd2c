"""Quoting: names and texts as SQL spells them, where a statement takes no parameter.

The only place that quotes for SQL. A parameter is better wherever PostgreSQL takes one: names of
tables and columns never are parameters, and neither are values in several statements sent as one.
"""

from __future__ import annotations

from psycopg import sql


def quote_identifier(*names: str) -> str:
    """Return one name quoted, or a qualified one: `"a"."b"`."""
    return sql.Identifier(*names).as_string()


def quote_table(name: str) -> str:
    """Return `schema.table` or `table`, as the settings have it, quoted.

    The first dot separates the schema; a table's name may have dots of its own after that.
    """
    return quote_identifier(*name.split(".", 1))


def quote_literal(text: str) -> str:
    """Return a text as an SQL literal that every `standard_conforming_strings` reads the same."""
    return sql.Literal(text).as_string()

"""What PostgreSQL's catalog says of a table: its name, its kind, its columns."""

from __future__ import annotations

from contextlib import AbstractContextManager

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.columns import Column
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import retryable

OF_COLUMNS = """FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (
    WITH RECURSIVE inside AS (
        SELECT t.oid, t.typname, t.typtype, t.typbasetype, t.typelem, t.typtypmod,
               a.atttypmod AS typmod, t.typnotnull AS not_null,
               t.typdefault IS NOT NULL AS has_default, false AS is_array, 1 AS depth
        UNION ALL
        SELECT b.oid, b.typname, b.typtype, b.typbasetype, b.typelem, b.typtypmod,
               CASE i.typtype WHEN 'd' THEN i.typtypmod ELSE i.typmod END,
               i.not_null OR (b.typnotnull AND i.typtype = 'd' AND NOT i.is_array),
               i.has_default, i.is_array OR i.typtype <> 'd', i.depth + 1
        FROM inside i JOIN pg_catalog.pg_type b
        ON b.oid = CASE i.typtype WHEN 'd' THEN i.typbasetype ELSE i.typelem END
        WHERE i.typtype = 'd' OR (b.typarray = i.oid AND NOT i.is_array))
    SELECT i.oid, CASE WHEN i.is_array THEN '_' ELSE '' END || i.typname AS type,
           i.typname, i.typmod, i.not_null, i.has_default, i.typtype = 'e' AS is_enum
    FROM inside i ORDER BY i.depth DESC LIMIT 1) m
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""
"""The columns of a table, for a SELECT: each column as `a`, its type as `t`. `m` is the type that
its values are written as: that below a domain, and below a domain of that; of an array it is that
of the elements, and `m.type` says so. One parameter: the table, quoted for SQL."""
COLUMN_TYPE = "m.type"
"""The type of a column of OF_COLUMNS, as in `mapping.columns.Column`."""
COLUMN_LENGTH = """CASE WHEN m.typname IN ('varchar', 'bpchar') AND m.typmod > 4
            THEN m.typmod - 4 END"""
"""How many characters a column of OF_COLUMNS takes, or an element; NULL: it has no bound."""
COLUMN_SCALE = """CASE
    WHEN m.typname = 'numeric' AND m.typmod > 4
        THEN (((m.typmod - 4) & 2047) # 1024) - 1024
    WHEN m.typname IN ('timestamp', 'timestamptz') AND m.typmod >= 0 THEN m.typmod END"""
"""How many digits after the point a column of OF_COLUMNS keeps; NULL: as many as there are."""
COLUMN_NOT_NULL = "a.attnotnull OR m.not_null"
"""Whether a column of OF_COLUMNS, or a domain that it is of, refuses NULL."""

WITH_PARTITIONS = """SELECT pg_catalog.to_regclass(%s)::oid AS oid
    UNION SELECT t.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) t"""
"""The oid of a table and those of its partitions, at all levels; of another relation its own. Two
parameters: the table, quoted for SQL, twice."""

_COLUMNS = f"""SELECT a.attname, {COLUMN_TYPE}, {COLUMN_LENGTH}, NOT ({COLUMN_NOT_NULL}),
       a.atthasdef OR a.attidentity <> '' OR m.has_default,
       a.attgenerated <> '' OR a.attidentity = 'a',
       CASE WHEN m.is_enum THEN ARRAY(
           SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
           WHERE e.enumtypid = m.oid ORDER BY e.enumsortorder) END,
       {COLUMN_SCALE},
       has_table_privilege(a.attrelid, 'INSERT') OR has_any_column_privilege(a.attrelid, 'INSERT')
{OF_COLUMNS} ORDER BY a.attnum"""
_NAME = "format('%%I.%%I', n.nspname, c.relname)"
_OF_TABLE = """FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(%s)"""

NO_TABLES = {
    "v": "a view",
    "m": "a materialized view",
    "S": "a sequence",
    "c": "a type",
    "f": "a foreign table whose server takes no rows",
}
"""What rows cannot be written to, by pg_class.relkind, unless TAKES_ROWS says otherwise."""
TAKES_ROWS = """CASE c.relkind
    WHEN 'v' THEN EXISTS (SELECT FROM pg_catalog.pg_trigger t
                          WHERE t.tgrelid = c.oid AND t.tgtype & 68 = 68)
        OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r
                   WHERE r.ev_class = c.oid AND r.ev_type = '3' AND r.is_instead)
    WHEN 'f' THEN (SELECT CASE WHEN w.fdwhandler <> 0
                   THEN pg_catalog.pg_relation_is_updatable(c.oid, true) & 8 <> 0 ELSE false END
                   FROM pg_catalog.pg_foreign_table f
                   JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver
                   JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
                   WHERE f.ftrelid = c.oid)
    ELSE false END"""
"""Whether the pg_class row `c` of such a kind takes rows: a view by an INSTEAD OF INSERT trigger or
a rule, a foreign table by its server."""
NO_TABLE_HINT = "name a table in sink.table, or give the view an INSTEAD OF INSERT trigger"
_KIND = f"SELECT c.relkind, {TAKES_ROWS}, {_NAME} {_OF_TABLE}"


async def read_columns(session: Session, table: str) -> dict[str, Column]:
    """Return the target's columns by name, in table order. `table` is quoted for SQL.

    Raises SettingsError where there is no such table, or the role may not insert into it.
    """
    with readable(table):
        rows = await session.execute(_COLUMNS, [table])
    if not rows:
        raise SettingsError(
            f"table {table} does not exist",
            code="target_table",
            hint="create it with `sqs2pg migrate`, or correct sink.table",
        )
    if not rows[0][-1]:
        raise SettingsError(
            f"this role may not insert into {table}",
            code="target_privilege",
            hint=f"GRANT INSERT ON {table} TO the role of sink.dsn",
        )
    return {
        name: Column(
            name, type_, length_max, nullable, filled, generated, labels and tuple(labels), scale
        )
        for name, type_, length_max, nullable, filled, generated, labels, scale, _ in rows
    }


async def require_table(session: Session, table: str) -> str:
    """Return the name of a table as `resolve_table` does; "" where there is none.

    `table` is quoted for SQL. Raises SettingsError where rows cannot be written to it.
    """
    with readable(table):
        rows = await session.execute(_KIND, [table])
    for kind, takes_rows, _ in rows:
        if kind in NO_TABLES and not takes_rows:
            raise SettingsError(
                f"{table} is {NO_TABLES[kind]}: rows cannot be copied into it",
                code="target_table",
                hint=NO_TABLE_HINT,
            )
    return str(rows[0][-1]) if rows else ""


def readable(table: str) -> AbstractContextManager[None]:
    """Raise TransientFault where the database does not describe a target."""
    return retryable(f"the columns of {table} cannot be read")


async def resolve_table(session: Session, table: str) -> str | None:
    """Return `schema.table` for a quoted name, as the search path finds it; quoted where needed.

    None where there is no such table. Raises psycopg.Error.
    """
    rows = await session.execute(f"SELECT {_NAME} {_OF_TABLE}", [table])
    return str(rows[0][0]) if rows else None

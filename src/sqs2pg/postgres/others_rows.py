"""What others may do to a target's rows, and so what `verify` cannot answer for.

`verify` counts rows. Who inserts or deletes rows beside the pipelines makes a difference; who
updates them makes none. What the trigger of a view does with a row is known to nobody here.
"""

from __future__ import annotations

from sqs2pg.postgres.connection import Session

ACCEPT = "`sqs2pg verify --accept --reason TEXT`"
_VIEW = "it is a view, whose trigger decides what becomes of a row: verify does not count its rows"

# Roles that were granted something on the table or a partition, or on a column. Whoever writes the
# books is a pipeline or the owner of the schema; the owner of a table is `table_owners`' matter.
_GRANTED = """WITH tables AS (
    SELECT pg_catalog.to_regclass(%s)::oid AS oid
    UNION SELECT t.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) t),
granted AS (
    SELECT a.grantee, a.privilege_type, c.relowner
    FROM tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid, aclexplode(c.relacl) a
    UNION
    SELECT a.grantee, a.privilege_type, c.relowner
    FROM tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid
    JOIN pg_catalog.pg_attribute k ON k.attrelid = t.oid AND NOT k.attisdropped,
    aclexplode(k.attacl) a),
tally AS (
    SELECT c.oid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'sqs2pg' AND c.relname = 'tally')
SELECT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(g.grantee)::text END,
       bool_or(g.privilege_type = 'UPDATE'), bool_or(g.privilege_type <> 'UPDATE')
FROM granted g, tally
WHERE g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') AND g.grantee <> g.relowner
AND (g.grantee = 0 OR NOT has_table_privilege(g.grantee, tally.oid, 'INSERT'))
GROUP BY g.grantee ORDER BY 1"""
_IS_VIEW = """SELECT c.relkind = 'v' FROM pg_catalog.pg_class c
WHERE c.oid = pg_catalog.to_regclass(%s)"""


async def is_view(session: Session, table: str) -> bool:
    """Return whether a target is a view. `table` is quoted for SQL. Raises psycopg.Error."""
    rows = await session.execute(_IS_VIEW, [table])
    return rows == [(True,)]


async def not_seen(session: Session, table: str) -> list[str]:
    """Return what `verify` does not see in a target: sentences about it, without a full stop.

    `table` is quoted for SQL. Raises psycopg.Error.
    """
    if await is_view(session, table):
        return [_VIEW]
    names = [name for name, updates, _ in await _granted(session, table) if updates]
    if not names:
        return []
    return [f"others may update its rows ({', '.join(names)}), and verify does not see changes"]


async def makes_differences(session: Session, table: str) -> list[str]:
    """Return the roles beside us that may insert or delete rows of a target, by name.

    `table` is quoted for SQL. Raises psycopg.Error.
    """
    if await is_view(session, table):
        return []
    return [name for name, _, counts in await _granted(session, table) if counts]


async def _granted(session: Session, table: str) -> list[tuple[str, bool, bool]]:
    rows = await session.execute(_GRANTED, [table, table])
    return [(name, updates, counts) for name, updates, counts in rows]

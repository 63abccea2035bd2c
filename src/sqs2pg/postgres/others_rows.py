"""What others may do to a target's rows, and so what `verify` cannot answer for.

`verify` counts rows. Who inserts or deletes rows beside the pipelines makes a difference; who
updates them makes none. What the trigger of a view does with a row is known to nobody here.
"""

from __future__ import annotations

from typing import NamedTuple

from sqs2pg.postgres.catalog import WITH_PARTITIONS
from sqs2pg.postgres.connection import Session

ACCEPT = "`sqs2pg verify --accept --reason TEXT`"
ROW_SECURITY = "row-level security applies to this login, and may hide rows from it"
_VIEW = "it is a view, which decides what becomes of a row: verify does not count its rows"
_FOREIGN = "it is a foreign table: its rows are counted at another moment than the books are read"

# Roles that were granted something on the table or a partition, or on a column. Whoever writes the
# books is a pipeline or the owner of the schema; the owner of a table is `table_owners`' matter.
_GRANTED = f"""WITH tables AS ({WITH_PARTITIONS}),
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
_KIND = """SELECT c.relkind = 'v', c.relkind = 'f', row_security_active(c.oid)
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""


class Counting(NamedTuple):
    """What a count of a target's rows means, for the session's role."""

    view: bool
    """It means nothing: a trigger or a rule decides what becomes of a row."""
    foreign: bool
    """It is of another server, and so of another moment than the books."""
    row_security: bool
    """It may lack rows that policies hide from the role."""
    gone: bool = False
    """There is no such table any more."""

    def of(self, table: str) -> str:
        """Return the count as an expression of SQL. `table` is quoted for SQL."""
        return "0::bigint" if self.gone else f"(SELECT count(*) FROM {table})"


async def read_counting(session: Session, table: str) -> Counting:
    """Return what a count of a target means. `table` is quoted for SQL. Raises psycopg.Error."""
    rows = await session.execute(_KIND, [table])
    return Counting(*rows[0]) if rows else Counting(False, False, False, gone=True)


async def not_seen(session: Session, table: str) -> list[str]:
    """Return what `verify` does not see in a target: sentences about it, without a full stop.

    `table` is quoted for SQL. Raises psycopg.Error.
    """
    counting = await read_counting(session, table)
    if counting.view:
        return [_VIEW]
    names = [name for name, updates, _ in await _granted(session, table) if updates]
    found = [_FOREIGN] if counting.foreign else []
    if names:
        found.append(
            f"others may update its rows ({', '.join(names)}), and verify does not see changes"
        )
    return found


async def makes_differences(session: Session, table: str) -> list[str]:
    """Return the roles beside us that may insert or delete rows of a target, by name.

    `table` is quoted for SQL. Raises psycopg.Error.
    """
    if (await read_counting(session, table)).view:
        return []
    return [name for name, _, counts in await _granted(session, table) if counts]


async def _granted(session: Session, table: str) -> list[tuple[str, bool, bool]]:
    rows = await session.execute(_GRANTED, [table, table])
    return [(name, updates, counts) for name, updates, counts in rows]

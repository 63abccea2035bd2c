"""What a role lacks to write rows into a target: asked of the catalog, with the GRANT for each.

PostgreSQL's own error names the object only in its text, in the server's language. And an empty
COPY meets neither the functions of CHECK constraints and indexes nor the sequences of defaults:
those are needed when a row comes.
"""

from __future__ import annotations

import msgspec

from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.target_copy import TargetTable

# `target`: its name, quoted for SQL, and the columns that rows are copied into; all others are
# filled by their defaults. `needed`: a privilege and one column, per row.
_MISSING = """WITH given AS (SELECT %s::text AS name, %s::text[] AS copied),
needed AS (SELECT * FROM unnest(%s::text[], %s::text[]) AS n (privilege, attname)),
target AS (SELECT pg_catalog.to_regclass(g.name)::oid AS oid, g.* FROM given g),
columns AS (
    SELECT a.attname, a.attnum, a.atttypid, a.attname = ANY (t.copied) AS copied,
           a.attgenerated <> '' AS generated
    FROM pg_catalog.pg_attribute a JOIN target t ON a.attrelid = t.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped),
refused AS (
    SELECT n.privilege, c.attname, c.attnum, t.name FROM columns c, target t, needed n
    WHERE c.attname = n.attname AND NOT has_column_privilege(t.oid, c.attnum, n.privilege)),
defaults AS (
    SELECT d.oid, c.attname FROM pg_catalog.pg_attrdef d
    JOIN target t ON d.adrelid = t.oid JOIN columns c ON c.attnum = d.adnum
    WHERE c.generated OR NOT c.copied),
users AS (
    SELECT 'the default of ' || quote_ident(attname) AS name,
           'pg_catalog.pg_attrdef'::regclass AS class, oid FROM defaults
    UNION ALL
    SELECT 'the constraint ' || quote_ident(o.conname), 'pg_catalog.pg_constraint'::regclass, o.oid
    FROM pg_catalog.pg_constraint o, target t
    WHERE o.contype = 'c'
      AND (o.conrelid = t.oid OR o.contypid IN (SELECT c.atttypid FROM columns c))
    UNION ALL
    SELECT 'the index ' || i.indexrelid::regclass::text, 'pg_catalog.pg_class'::regclass,
           i.indexrelid
    FROM pg_catalog.pg_index i JOIN target t ON i.indrelid = t.oid)
SELECT privilege || ' on ' || string_agg(quote_ident(attname), ', ' ORDER BY attnum),
       format('GRANT %%s (%%s) ON %%s TO %%I', privilege,
              string_agg(quote_ident(attname), ', ' ORDER BY attnum), name, current_user)
FROM refused GROUP BY name, privilege
UNION ALL
SELECT 'DELETE', format('GRANT DELETE ON %%s TO %%I', t.name, current_user) FROM target t
WHERE %s AND NOT has_table_privilege(t.oid, 'DELETE')
UNION ALL
SELECT 'EXECUTE on ' || p.oid::regprocedure::text || ', which ' || min(u.name) || ' calls',
       format('GRANT EXECUTE ON FUNCTION %%s TO %%I', p.oid::regprocedure, current_user)
FROM users u
JOIN pg_catalog.pg_depend d ON d.classid = u.class AND d.objid = u.oid
JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::regclass AND p.oid = d.refobjid
WHERE NOT has_function_privilege(p.oid, 'EXECUTE') GROUP BY p.oid
UNION ALL
SELECT 'USAGE on sequence ' || s.oid::regclass::text || ', which the default of '
           || quote_ident(f.attname) || ' takes numbers from',
       format('GRANT USAGE ON SEQUENCE %%s TO %%I', s.oid::regclass, current_user)
FROM defaults f
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
JOIN pg_catalog.pg_class s ON d.refclassid = 'pg_catalog.pg_class'::regclass
                          AND s.oid = d.refobjid
WHERE CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END"""

_SCHEMAS = """SELECT 'USAGE on schema ' || quote_ident(nspname),
       format('GRANT USAGE ON SCHEMA %%I TO %%I', nspname, current_user)
FROM pg_catalog.pg_namespace
WHERE nspname = ANY (%s) AND NOT has_schema_privilege(oid, 'USAGE') ORDER BY 1"""


class MissingRight(msgspec.Struct, frozen=True):
    """One right that a role lacks."""

    what: str
    """As in `INSERT on a, b`; names of the catalog only."""
    grant: str
    """The statement that gives it, for the object's owner to run."""


async def missing_rights(session: Session, target: TargetTable) -> list[MissingRight]:
    """Return what the session's role lacks to write rows into a target. Raises psycopg.Error."""
    needed = [(right, name) for right, names in target.rights.items() for name in names]
    given = [[right for right, _ in needed], [name for _, name in needed]]
    values = [target.table, list(target.columns), *given, "DELETE" in target.rights]
    rows = await session.execute(_MISSING, values)
    return [MissingRight(*row) for row in rows]


async def missing_schemas(session: Session, schemas: list[str]) -> list[MissingRight]:
    """Return the schemas, of those with these names, that the session's role may not use.

    Raises psycopg.Error.
    """
    return [MissingRight(*row) for row in await session.execute(_SCHEMAS, [schemas])]

"""What the catalog says for staging: the types of rows, and the indexes of a state table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqs2pg.errors import SettingsError
from sqs2pg.mapping.key_marks import mark_form
from sqs2pg.postgres.catalog import read_columns, readable
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_identifier, quote_table
from sqs2pg.postgres.sqlstate import retryable
from sqs2pg.postgres.state_table import Merge
from sqs2pg.postgres.tombstones import Tombstones
from sqs2pg.settings import Target
from sqs2pg.settings.staged_fields import DELETES, person_mark, staged_fields

# Without their lengths: the table itself checks them, and they may change while we run. `character`
# and `bit` would mean a length of one then. But keys and versions are compared as staged, so they
# are rounded as the table rounds them.
_TYPES = """SELECT a.attname,
    CASE WHEN a.attname = ANY (%s)
             AND t.typname IN ('numeric', 'timestamp', 'timestamptz', 'time', 'timetz')
         THEN pg_catalog.format_type(a.atttypid, a.atttypmod) ELSE
    CASE t.typname WHEN 'bpchar' THEN 'bpchar' WHEN '_bpchar' THEN 'bpchar[]'
         WHEN 'bit' THEN 'bit varying' WHEN '_bit' THEN 'bit varying[]'
         ELSE pg_catalog.format_type(a.atttypid, NULL) END END
    || CASE WHEN a.attcollation <> t.typcollation THEN
       (SELECT format(' COLLATE %%I.%%I', n.nspname, l.collname) FROM pg_catalog.pg_collation l
        JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation)
       ELSE '' END
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""

# What ON CONFLICT accepts for these columns: unique, valid, checked at once, of all rows and of
# plain columns, and of these alone.
_UNIQUE = """SELECT EXISTS (
    SELECT FROM pg_catalog.pg_index x
    WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate
    AND x.indpred IS NULL AND x.indexprs IS NULL
    AND ARRAY(SELECT a.attname::text FROM unnest(x.indkey::smallint[]) WITH ORDINALITY k (num, at)
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.num
              WHERE k.at <= x.indnkeyatts ORDER BY a.attname::text COLLATE "C") = %s::text[]),
    c.relkind = 'p',
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_partitioned_table p
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (p.partattrs)
          WHERE p.partrelid = c.oid ORDER BY 1),
    current_setting('server_version_num')::integer, current_setting('track_counts')::boolean,
    EXISTS (
        SELECT FROM pg_catalog.pg_trigger t
        WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 7 = 7 AND (t.tgrelid = c.oid
        OR t.tgrelid IN (SELECT r.relid FROM pg_catalog.pg_partition_tree(c.oid) r)))
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"""


# A nondeterministic collation takes different texts for one.
_FOLDING = """SELECT a.attname, format('%%I.%%I', n.nspname, l.collname)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = ANY (%s)
AND NOT l.collisdeterministic ORDER BY 1"""
_KNOWS_OLD = 180_000
"""The first server_version_num with RETURNING old."""


async def read_merge(session: Session, target: Target, name: str) -> Merge | None:
    """Return how rows are merged into a target; None where it takes every row.

    `name` is the table's in the books. The table is there, and the mapping fits it. Raises
    SettingsError `target_key` where its key has no unique index, or may not be remembered when its
    row is deleted; TransientFault where the database does not describe it.
    """
    write = target.write
    if not write.keeps_state:
        return None
    table = quote_table(target.table)
    types = await read_types(session, table, [*write.key, write.newer])
    with retryable(f"the indexes of {table} cannot be read"):
        [(unique, partitioned, partitioned_by, version, counts, triggers)] = await session.execute(
            _UNIQUE, [sorted(write.key), table]
        )
    knows_old = version >= _KNOWS_OLD
    if not (knows_old or counts):
        raise SettingsError(
            "track_counts is off, by which PostgreSQL before 18 tells an insert from an update",
            code="target_key",
            hint="set track_counts = on in postgresql.conf, which is its default",
        )
    if not unique:
        raise _not_unique(target, partitioned=partitioned, partitioned_by=partitioned_by)
    if write.delete_when:
        await _check_marks(session, target, table)
    columns = tuple(field.column for field in target.fields)
    return Merge(
        table,
        columns,
        tuple(types[column] for column in columns),
        write.key,
        target.updated_columns if write.mode == "upsert" else (),
        write.newer,
        write.keep_if_null,
        knows_old,
        _tombstones(target, types, name),
        triggers,
        tuple(field.column for field in target.fields if field.recover and target.seals),
    )


async def _check_marks(session: Session, target: Target, table: str) -> None:
    """Refuse a key whose equal values have several spellings: a deleted row is known by one."""
    columns = await read_columns(session, table)
    kept = {field.column: field for field in target.fields if field.column in target.write.key}
    for name, field in kept.items():
        mark_form(field, columns[name], target.table)
    texts = [name for name, field in kept.items() if field.mask == "keep"]
    for name, collation in (await read_folding(session, table, texts)).items():
        raise SettingsError(
            f"key column {name!r} of table {target.table} has the collation {collation}, by which "
            "different texts are equal: with delete_when a key has one spelling",
            code="target_key",
            table=target.table,
            column=name,
            hint=f"ALTER TABLE {table} ALTER COLUMN {quote_identifier(name)} TYPE text COLLATE "
            '"C", or another collation that is deterministic',
        )


async def read_folding(session: Session, table: str, columns: Sequence[str]) -> dict[str, str]:
    """Return the collations of columns in which different texts may be equal, by column.

    `table` is quoted for SQL. Raises TransientFault where the database does not describe it.
    """
    with readable(table):
        return dict(await session.execute(_FOLDING, [table, list(columns)]))


async def read_types(session: Session, table: str, compared: Sequence[str] = ()) -> dict[str, str]:
    """Return the SQL types that a target's rows are staged in, by column.

    `table` is quoted for SQL; values of the columns `compared` are rounded as in the table. Raises
    TransientFault where the database does not describe it.
    """
    with readable(table):
        return dict(await session.execute(_TYPES, [list(compared), table]))


def _tombstones(target: Target, types: Mapping[str, str], name: str) -> Tombstones | None:
    staged = [field.column for field in staged_fields(target)]
    if not staged:
        return None
    newer = target.write.newer
    flag = DELETES if DELETES in staged else ""
    marks = tuple(column for column in staged if column != DELETES)
    return Tombstones(
        name,
        marks if len(marks) == len(target.write.key) else (),
        person_mark(target),
        flag,
        # Without the collation, which no cast takes.
        types[newer].partition(" COLLATE ")[0] if newer else "",
    )


def _not_unique(target: Target, *, partitioned: bool, partitioned_by: list[str]) -> SettingsError:
    key = target.write.key
    names = ", ".join(key)
    if missing := [column for column in partitioned_by if column not in key]:
        return SettingsError(
            f"key = ({names}) of table {target.table} lacks {', '.join(missing)}, by which the "
            "table is partitioned: no unique index can be without it",
            code="target_key",
            hint=f"add {', '.join(missing)} to key, with a unique index of all its columns",
        )
    columns = ", ".join(map(quote_identifier, key))
    how = "CREATE UNIQUE INDEX" if partitioned else "CREATE UNIQUE INDEX CONCURRENTLY"
    return SettingsError(
        f"key = ({names}) of table {target.table} is not unique: no valid unique index, or primary "
        "key, has exactly these columns",
        code="target_key",
        hint=f"{how} ON {quote_table(target.table)} ({columns}); remove rows of equal keys first",
    )

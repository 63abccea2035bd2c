"""Partitions of a target: attach periods ahead, drop old ones, and turn an existing plain table
into a partitioned one while rows are written to it.

Each step is one transaction of a definer function (`sql/migrations`), so that the ingest role can
do the upkeep without owning anything, and a run that was killed goes on where it ended. The rows
that retention drops are counted in the tally, so that `verify` finds no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from sqs2pg.errors import SettingsError, TransientFault
from sqs2pg.postgres.catalog import resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import (
    NAME_BYTES_MAX,
    partition_stem,
    quote_identifier,
    quote_literal,
    quote_table,
    shortened,
)
from sqs2pg.postgres.migrate import check_partition_column, note_partitions
from sqs2pg.postgres.sqlstate import explained, retryable
from sqs2pg.postgres.table_owners import refuse_as_superuser
from sqs2pg.settings import Index, Settings

_ALL = """SELECT target FROM sqs2pg.partitioned
WHERE pg_catalog.to_regclass(target) IS NOT NULL"""
_KIND = "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)"
# What a plain table may have that would not move with its name, or that partitions cannot have.
# Without this check row security or a foreign key would be lost without a message.
_OBSTACLES = """SELECT 'foreign key ' || conname || ' refers to it' FROM pg_catalog.pg_constraint
  WHERE confrelid = %s::regclass AND contype = 'f'
UNION ALL SELECT 'its ' || CASE contype WHEN 'p' THEN 'primary key ' ELSE 'unique constraint ' END
    || conname || ' lacks the column ' || %s FROM pg_catalog.pg_constraint
  WHERE conrelid = %s::regclass AND contype IN ('p', 'u') AND NOT (
    SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = conrelid
        AND attname = %s) = ANY (conkey)
UNION ALL SELECT 'unique index ' || i.indexrelid::regclass || ' lacks the column ' || %s
  FROM pg_catalog.pg_index i WHERE i.indrelid = %s::regclass AND i.indisunique AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_constraint c WHERE c.conindid = i.indexrelid)
UNION ALL SELECT 'trigger ' || tgname FROM pg_catalog.pg_trigger
  WHERE tgrelid = %s::regclass AND NOT tgisinternal
    AND tgfoid <> 'sqs2pg.note_digest'::regproc
UNION ALL SELECT 'identity column ' || attname FROM pg_catalog.pg_attribute
  WHERE attrelid = %s::regclass AND attidentity <> '' AND NOT attisdropped
UNION ALL SELECT 'view ' || v.oid::regclass FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
  WHERE d.refobjid = %s::regclass AND d.classid = 'pg_catalog.pg_rewrite'::regclass
    AND v.oid <> d.refobjid
UNION ALL SELECT CASE contype WHEN 'f' THEN 'foreign key ' ELSE 'exclusion constraint ' END
    || conname FROM pg_catalog.pg_constraint WHERE conrelid = %s::regclass AND contype IN ('f', 'x')
UNION ALL SELECT 'row security' FROM pg_catalog.pg_class c WHERE c.oid = %s::regclass
  AND (relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy WHERE polrelid = c.oid))
UNION ALL SELECT 'rule ' || rulename FROM pg_catalog.pg_rewrite WHERE ev_class = %s::regclass
UNION ALL SELECT 'publication ' || pubname FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid WHERE prrelid = %s::regclass
UNION ALL SELECT 'grants on column ' || attname FROM pg_catalog.pg_attribute
  WHERE attrelid = %s::regclass AND attacl IS NOT NULL
UNION ALL SELECT 'inheritance, of or by ' || CASE inhrelid WHEN %s::regclass THEN inhparent
    ELSE inhrelid END::regclass FROM pg_catalog.pg_inherits
  WHERE %s::regclass IN (inhrelid, inhparent)"""
_GRANTS = """SELECT a.privilege_type,
       CASE a.grantee WHEN 0 THEN NULL ELSE r.rolname END
FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE c.oid = %s::regclass AND a.grantee <> c.relowner"""
_DEFAULT = """SELECT partdefid::regclass::text FROM pg_catalog.pg_partitioned_table
WHERE partrelid = %s::regclass AND partdefid <> 0"""
_KIND_AND_NAMES = """SELECT c.relkind, n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass"""
_HAS_INDEX = """SELECT EXISTS (SELECT FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid = %s::regclass AND x.relname = %s AND i.indisvalid)"""
_SWAP = """ALTER TABLE {table} RENAME TO {fallback};
CREATE TABLE {table} (LIKE {schema}.{fallback} INCLUDING ALL) PARTITION BY RANGE ({column});
ALTER TABLE {table} OWNER TO {owner};
ALTER TABLE {table} ATTACH PARTITION {schema}.{fallback} DEFAULT"""


class Converted(msgspec.Struct):
    """What a conversion has done so far."""

    periods: int = 0
    rows: int = 0
    """Rows that moved to a period of their own."""
    left: int = 0
    """Rows that stay in the default partition: without a date, or of a year outside 1 to 9999."""


class Extended(msgspec.Struct):
    """What the upkeep of the partitions did."""

    attached: int = 0
    """Periods."""
    dropped: int = 0
    """Periods."""
    rows_removed: int = 0
    """Rows of the default partitions that were past their retention."""


async def extend(session: Session) -> Extended:
    """Attach the periods ahead of every partitioned target; drop what is past its retention.

    What is on record counts (`migrate` records it), not the settings of this process. A target that
    fails stops no other. Raises the first one's TransientFault at the end.
    """
    done = Extended()
    faults: list[TransientFault] = []
    with _upkeep():
        targets = await session.execute(_ALL)
    for (target,) in targets:
        try:
            with _upkeep():
                await _extend_target(session, target, done)
        except TransientFault as fault:
            faults.append(fault)
    if faults:
        raise faults[0]
    return done


def _upkeep() -> AbstractContextManager[None]:
    return retryable(
        "upkeep of the partitions failed",
        hint="run `sqs2pg partition` as the owner of the tables, and see the server's log",
    )


async def _extend_target(session: Session, target: str, done: Extended) -> None:
    while (await session.execute("SELECT sqs2pg.attach_next_period(%s)", [target]))[0][0]:
        done.attached += 1
    while await _count(session, "SELECT sqs2pg.drop_period(%s)", target) is not None:
        done.dropped += 1
    while rows := await _count(session, "SELECT sqs2pg.trim_default(%s)", target):
        done.rows_removed += rows


async def _count(session: Session, statement: str, target: str) -> int | None:
    rows: int | None
    [(rows,)] = await session.execute(statement, [target])
    return rows


async def convert(
    session: Session, settings: Settings, table: str, report: Callable[[Converted], None]
) -> Converted:
    """Turn a plain table into a partitioned one while rows are written; return what was done.

    First the table becomes the default partition of a new table with its name. Then the rows of one
    period after the other, the newest first, move to a partition of their own, each period in one
    transaction. May be repeated, and goes on where it ended. Raises SettingsError where the table
    has something that stands in the way, FatalFault where we are a superuser and it is another
    role's.
    """
    check_partition_column(settings)
    by, done = settings.sink.partition_by, Converted()
    name = quote_table(table)
    resolved = await resolve_table(session, name)
    if resolved is None:
        raise SettingsError(f"table {table} does not exist", hint="`sqs2pg migrate` makes it")
    with explained():
        await refuse_as_superuser(session, [name])
        [(kind,)] = await session.execute(_KIND, [name])
        if kind == "r":
            await _swap(session, resolved, by)
        async with session.transaction():
            await note_partitions(session, settings, resolved)
        await _move(session, resolved, by, done, report)
        await extend(session)
    return done


async def _swap(session: Session, table: str, by: str) -> None:
    obstacles = [
        what
        for (what,) in await session.execute(_OBSTACLES, [table, by, table, by, by, *[table] * 11])
    ]
    if obstacles:
        raise SettingsError(
            f"table {table} cannot be converted: {'; '.join(map(str, obstacles))}",
            code="partition_obstacle",
            hint="drop them, convert, and make them again on the partitioned table",
        )
    rows = await session.execute(
        "SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner)"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = %s::regclass",
        [table],
    )
    [(schema, relname, owner)] = rows
    fallback = quote_identifier(f"{partition_stem(relname)}_default")
    statement = _SWAP.format(
        table=table,
        fallback=fallback,
        schema=quote_identifier(schema),
        owner=quote_identifier(owner),
        column=quote_identifier(by),
    )
    grants = [
        f"GRANT {privilege} ON {table} TO {quote_identifier(role) if role else 'PUBLIC'}"
        for privilege, role in await session.execute(_GRANTS, [table])
    ]
    # Writers wait for this one transaction, which moves no row.
    async with session.transaction("SET LOCAL lock_timeout = '10s'") as transaction:
        watch = f"SELECT sqs2pg.watch_all({quote_literal(table)})"
        await transaction.commit(
            f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", statement, *grants, watch
        )


async def _move(
    session: Session, table: str, by: str, done: Converted, report: Callable[[Converted], None]
) -> None:
    [(fallback,)] = await session.execute(_DEFAULT, [table])
    column = quote_identifier(by)
    while True:
        # The newest first: once the present period has moved, new rows no longer go to the default
        # partition, and nobody waits while older periods move.
        # As text, and of the years with four digits: the driver has no date for others.
        [(day,)] = await session.execute(
            f"SELECT max({column})::date::text FROM ONLY {fallback}"
            f" WHERE {column} >= '0001-01-01' AND {column} < '10000-01-01'"
        )
        if day is None:
            break
        [(moved,)] = await session.execute(
            "SELECT sqs2pg.attach_period(%s, %s::date)", [table, day]
        )
        if moved is None:
            # A table with the period's name is there, and rows of the period are in the default
            # partition: it was detached, or has other bounds.
            raise SettingsError(
                f"the table for {day} of {table} is there, but not as the partition of that period",
                hint="detach or rename it, then run the same command again",
            )
        done.periods += 1
        done.rows += moved
        report(done)
    [(done.left,)] = await session.execute(f"SELECT count(*) FROM ONLY {fallback}")


async def build_indexes(session: Session, settings: Settings) -> list[str]:
    """Build the declared indexes that are missing, without blocking writers; return their names.

    CREATE INDEX CONCURRENTLY cannot run in a transaction. On a partitioned table each partition's
    index is built this way and then attached to the parent's. Raises FatalFault.
    """
    built: list[str] = []
    with explained():
        for index in settings.index:
            built += await _build(session, settings, index)
    return built


async def _build(session: Session, settings: Settings, index: Index) -> list[str]:
    table = quote_table(index.table or settings.targets[0].table)
    resolved = await resolve_table(session, table)
    if resolved is None:
        raise SettingsError(
            f"[[index]] names table {index.table!r}, which does not exist", hint="correct `table`"
        )
    [(kind, schema, plain)] = await session.execute(_KIND_AND_NAMES, [resolved])
    columns = "_".join(index.columns)
    name = index.name or shortened(f"{plain}_{columns}_{index.method}", NAME_BYTES_MAX)
    [(there,)] = await session.execute(_HAS_INDEX, [resolved, name])
    if there:
        return []
    using = f"USING {index.method} ({', '.join(map(quote_identifier, index.columns))})"
    quoted = quote_identifier(name)
    if kind != "p":
        # An invalid one, that an interrupted build has left, would be in the way.
        await session.execute(f"DROP INDEX IF EXISTS {quote_identifier(schema, name)}")
        await session.execute(f"CREATE INDEX CONCURRENTLY {quoted} ON {resolved} {using}")
        return [name]
    await session.execute(f"CREATE INDEX IF NOT EXISTS {quoted} ON ONLY {resolved} {using}")
    parts = await session.execute(
        "SELECT i.inhrelid::regclass::text, c.relname FROM pg_catalog.pg_inherits i"
        " JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = %s::regclass",
        [resolved],
    )
    for part, relname in parts:
        inner = shortened(f"{relname}_{columns}_{index.method}", NAME_BYTES_MAX)
        await session.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {quote_identifier(inner)} ON {part} {using}"
        )
        await session.execute(
            f"ALTER INDEX {quote_identifier(schema, name)}"
            f" ATTACH PARTITION {quote_identifier(schema, inner)}"
        )
    return [name]

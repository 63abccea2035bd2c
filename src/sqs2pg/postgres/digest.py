"""The digest of a target's rows: which rows they are, by key and version, and not only how many.

`sql/migrations` has the tables and the triggers. A statement of ours changes the digest in its own
transaction, which `sqs2pg.batch` marks: batches, replays, erasures, rekeys and retention do so. A
statement of others changes nothing, and shows in `verify --deep`.

One is kept where the target's key is named and the login of `migrate` may make the triggers. It
costs nothing where none is: then the target has no trigger of ours.
"""

from __future__ import annotations

from sqs2pg.errors import SettingsError
from sqs2pg.postgres.catalog import WITH_PARTITIONS
from sqs2pg.postgres.connection import Session
from sqs2pg.settings import Target

START = "SELECT sqs2pg.start_digest(%s, %s::text[], %s)"
STOP = "SELECT sqs2pg.stop_digest(%s)"
_EXTEND = """SELECT sqs2pg.watch_all(d.target) FROM sqs2pg.digest d
WHERE pg_catalog.to_regclass(d.target) IS NOT NULL"""
# A trigger with the rows of a statement cannot be made on such tables, nor above such partitions.
_NO_TABLE = """SELECT CASE WHEN c.relkind NOT IN ('r', 'p') THEN 'it is no plain table'
    ELSE 'its partition ' || p.oid::regclass || ' is on another server' END
FROM pg_catalog.pg_class c LEFT JOIN (
    SELECT f.oid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) t
    JOIN pg_catalog.pg_class f ON f.oid = t.relid AND f.relkind = 'f') p ON true
WHERE c.oid = pg_catalog.to_regclass(%s)
AND (c.relkind NOT IN ('r', 'p') OR p.oid IS NOT NULL)"""
_NO_RIGHT = f"""SELECT 'this login may make no triggers on ' || c.oid::regclass
    || ', which belongs to ' || pg_catalog.pg_get_userbyid(c.relowner)
FROM ({WITH_PARTITIONS}) tables
JOIN pg_catalog.pg_class c ON c.oid = tables.oid
WHERE c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, 'TRIGGER') AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger g
    WHERE g.tgrelid = c.oid AND g.tgname = 'sqs2pg_digest_update')"""
START_WHERE_POSSIBLE = f"""{START}
WHERE NOT EXISTS ({_NO_TABLE}) AND NOT EXISTS ({_NO_RIGHT})"""
"""As START; its parameters, and then the target's name four times."""
_TRIGGERED = """SELECT EXISTS (
    SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE t.tgrelid = pg_catalog.to_regclass(%s) AND t.tgenabled <> 'D'
    AND n.nspname = 'sqs2pg' AND p.proname = 'note_digest')"""
_CHANGED = """coalesce((
    SELECT sum(c.change) FROM sqs2pg.digest_change c WHERE c.target = d.target), 0)"""
_AGREES = f"""SELECT sqs2pg.digest_of(d.target, d.target) = d.baseline + {_CHANGED}
FROM sqs2pg.digest d WHERE d.target = %s"""
_MOVE_BASELINE = f"""WITH read AS MATERIALIZED (
    SELECT d.target, sqs2pg.digest_of(d.target, d.target) - {_CHANGED} AS baseline
    FROM sqs2pg.digest d WHERE d.target = %s)
UPDATE sqs2pg.digest d SET baseline = read.baseline FROM read
WHERE d.target = read.target AND d.baseline <> read.baseline RETURNING 1"""


async def record_digest(
    session: Session, target: Target, resolved: str, *, anew: bool
) -> list[str]:
    """Keep a digest of a target, or none, as the settings say; return what was done.

    `resolved` is the target's name in the books. `anew`: read the rows even where a digest is kept.
    Part of the caller's transaction. Raises SettingsError where the settings ask for one by name
    and none can be kept, psycopg.Error.
    """
    write = target.write
    no_table = await hindrance(session, resolved) if write.keeps_digest else ""
    if not write.keeps_digest or no_table:
        [(stopped,)] = await session.execute(STOP, [resolved])
        if not write.keeps_digest:
            return [f"keeps no digest of {target.table} any more"] if stopped else []
    rights = await session.execute(_NO_RIGHT, [resolved, resolved])
    if why := no_table or next((why for (why,) in rights), ""):
        if write.digest:
            raise SettingsError(
                f"no digest of {target.table} can be kept: {why}",
                code="target_digest",
                hint=f"remove digest = true from {target.route or 'sink'}"
                + ("" if no_table else ", or migrate as a role that has TRIGGER on the table"),
            )
        return [f"look: keeps no digest of {target.table} for verify --deep: {why}"]
    columns = digest_columns(target)
    [(read,)] = await session.execute(START, [resolved, columns, anew])
    return [f"keeps a digest of {target.table} by {', '.join(columns)}"] if read else []


async def hindrance(session: Session, table: str) -> str:
    """Return why no digest can be kept of such a table, whoever asks; empty where one can.

    `table` is quoted for SQL. Raises psycopg.Error.
    """
    return next((why for (why,) in await session.execute(_NO_TABLE, [table, table])), "")


def digest_columns(target: Target) -> list[str]:
    """Return the columns that a digest is over: the key, and what orders versions."""
    return [*target.write.key, *filter(None, [target.write.newer])]


async def keeps_digest(session: Session, table: str) -> bool:
    """Return whether a table has the triggers that keep a digest; any role may ask.

    `table` is quoted for SQL. Raises psycopg.Error.
    """
    [(kept,)] = await session.execute(_TRIGGERED, [table])
    return bool(kept)


async def extend_digests(session: Session) -> None:
    """Watch the partitions that others have attached, before their rows are changed.

    Needs the owner of the tables where there are any. Raises psycopg.Error.
    """
    await session.execute(_EXTEND)


async def digest_agrees(session: Session, target: str) -> bool | None:
    """Return whether a target's rows are those that the books say; None where no digest is kept.

    `target` is the name in the books, of a table that is there. Raises psycopg.Error.
    """
    rows = await session.execute(_AGREES, [target])
    return bool(rows[0][0]) if rows else None


async def accept_digest(session: Session, target: str) -> bool:
    """Let a target's digest be that of the rows it holds; return whether that changed anything.

    Part of the caller's transaction. Raises psycopg.Error.
    """
    return bool(await session.execute(_MOVE_BASELINE, [target]))

"""The write mode of each target, on record: a filled table changes it only on purpose.

What a table held before counts in `verify`. Somebody who makes one row per key of a log deletes
rows, and a pipeline that went on with the old baseline would call that a difference for ever. So a
pipeline with another mode than the one on record is refused, until `migrate --change-mode` has
counted the table anew.
"""

from __future__ import annotations

from sqs2pg.errors import SettingsError
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_literal, quote_table
from sqs2pg.postgres.tally import rows_added
from sqs2pg.settings import Settings, Target

_RECORDED = """SELECT t.mode FROM sqs2pg.target t JOIN sqs2pg.pipeline p ON p.id = t.pipeline
WHERE p.name = %s AND t.target = %s"""
_FILLED = "SELECT EXISTS (SELECT FROM {table})"
# Each %s stands for a value: `migrate_script` fills them without a connection.
RECORD = """UPDATE sqs2pg.target t SET mode = %s FROM sqs2pg.pipeline p
WHERE p.id = t.pipeline AND p.name = %s AND t.target = %s"""
# Every pipeline of the table has one baseline: that of the first counts.
COUNT_ANEW = f"""WITH counted AS (
    SELECT (SELECT count(*) FROM {{table}}) - {rows_added()} AS baseline),
of_pipelines AS (
    UPDATE sqs2pg.pipeline p SET baseline_rows = c.baseline FROM counted c WHERE p.target = %s)
UPDATE sqs2pg.target t SET baseline_rows = c.baseline FROM counted c WHERE t.target = %s"""
RECORD_RETENTION = """UPDATE sqs2pg.target t
SET tombstone_retention_days = %s, row_retention_days = %s, retention_column = %s
FROM sqs2pg.pipeline p WHERE p.id = t.pipeline AND p.name = %s AND t.target = %s
AND (t.tombstone_retention_days, t.row_retention_days, t.retention_column) <> (%s, %s, %s)"""
_TYPE = """SELECT a.atttypid::regtype::text FROM pg_catalog.pg_attribute a
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s AND NOT a.attisdropped"""
_MOMENTS = ("date", "timestamp without time zone", "timestamp with time zone")
_KEEP = """DO $keep$ BEGIN
    IF (SELECT relkind FROM pg_catalog.pg_class WHERE oid = {name}::regclass) <> 'f' THEN
        LOCK TABLE {table} IN SHARE MODE;
    END IF;
END $keep$"""
_ACT = "SELECT FROM sqs2pg.record_act('change_mode', %s, 'migrate --change-mode')"


def keep_rows(table: str) -> str:
    """Return what keeps others from writing to a table until the transaction ends.

    A foreign table cannot be locked. `table` is quoted for SQL.
    """
    return _KEEP.format(table=table, name=quote_literal(table))


async def record_mode(
    session: Session, settings: Settings, target: Target, resolved: str, *, change: bool
) -> list[str]:
    """Bring a target's mode on record in line with the settings; return what was done.

    `resolved` is the target's name in the books. `change`: also of a filled table, whose rows
    become the new baseline. Part of the caller's transaction. Raises SettingsError `target_mode`
    where it would be needed, and psycopg.Error.
    """
    name, mode = settings.pipeline_name, target.write.mode
    table = quote_table(target.table)
    await _check_retention(session, target, table)
    days = retentions(settings, target)
    await session.execute(RECORD_RETENTION, [*days, name, resolved, *days])
    recorded = await session.execute(_RECORDED, [name, resolved])
    if not recorded or recorded[0][0] == mode:
        return []
    before = recorded[0][0]
    [(filled,)] = await session.execute(_FILLED.format(table=table))
    if filled and not change:
        raise changed_mode(target, before)
    await session.execute(keep_rows(table))
    if filled:
        escaped = table.replace("%", "%%")
        await session.execute(COUNT_ANEW.format(table=escaped), [resolved] * 3)
        await session.execute(_ACT, [f"{resolved}: from {before} to {mode}, counted anew"])
    await session.execute(RECORD, [mode, name, resolved])
    counted = "; its rows were counted anew for verify" if filled else ""
    return [f"changed mode of {target.table} from {before} to {mode}{counted}"]


def retentions(settings: Settings, target: Target) -> tuple[int, int, str]:
    """Return how many days tombstones and rows are kept (0: for ever), and by which column."""
    days = target.write.retention_days
    return settings.sink.tombstone_retention_days, days, target.write.newer if days else ""


async def _check_retention(session: Session, target: Target, table: str) -> None:
    """Refuse a retention by a column that has no age. Raises SettingsError, psycopg.Error."""
    newer = target.write.newer
    if not target.write.retention_days:
        return
    for (type_,) in await session.execute(_TYPE, [table, newer]):
        if type_ not in _MOMENTS:
            raise SettingsError(
                f"retention_days of table {target.table} is by {newer!r}, which is {type_}: a row "
                "has no age by it",
                code="target_column",
                table=target.table,
                column=newer,
                hint="set newer to a column of type date, timestamp or timestamptz, or remove "
                "retention_days",
            )


def changed_mode(target: Target, before: str) -> SettingsError:
    """Return the refusal of a mode that is not the one on record."""
    mode = target.write.mode
    return SettingsError(
        f'table {target.table} is on record with mode = "{before}", and the settings have '
        f'mode = "{mode}"',
        code="target_mode",
        hint="stop its pipelines, bring the table's rows into the form that you want, and run "
        "`sqs2pg migrate --change-mode`: it records the mode, and counts the rows anew as the "
        "baseline of verify",
    )

"""Create or upgrade our tables, the target table and the ledger's days.

Each file of `sql/migrations` is applied once, in order, in one transaction, and recorded with its
checksum. Never drops or alters a target, except to add columns on request: a table that exists
already is only compared with the mapping.
"""

from __future__ import annotations

import psycopg

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.mapping import columns
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.subject import subject_column
from sqs2pg.postgres.catalog import read_columns, require_table, resolve_table
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.digest import record_digest
from sqs2pg.postgres.identifiers import partition_stem, quote_identifier, quote_table
from sqs2pg.postgres.ledger import attach_coming_days
from sqs2pg.postgres.migrations import SQL, check_record, is_migrated, migrations, read_record
from sqs2pg.postgres.schema_guard import check_schemas
from sqs2pg.postgres.sqlstate import INSUFFICIENT_PRIVILEGE, explained
from sqs2pg.postgres.table_owners import check_owner
from sqs2pg.postgres.tally import rows_added
from sqs2pg.postgres.target_copy import TargetTable
from sqs2pg.postgres.target_grants import target_grants, temporary_grant
from sqs2pg.postgres.target_modes import changed_mode, keep_rows, record_mode
from sqs2pg.postgres.write_path import read_write_path
from sqs2pg.settings import Settings, Target

ROLES = ("sqs2pg_ingest", "sqs2pg_analyst", "sqs2pg_revealer", "sqs2pg_auditor")
"""They belong to the whole cluster; sql/roles.sql says what each may do."""

# One migration at a time. A first one has no table to lock yet: CREATE SCHEMA makes the second of
# two wait for the first, and then fails.
_LOCK = "LOCK TABLE sqs2pg.migration IN SHARE ROW EXCLUSIVE MODE"
_ANOTHER_WAS_FIRST = (psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation)
# Each %s stands for a value: `migrate_script` fills them without a connection.
REGISTER = f"""INSERT INTO sqs2pg.pipeline (name, target, baseline_rows)
SELECT %s, %s, (SELECT count(*) FROM {{table}}) - {rows_added()}
ON CONFLICT (name) DO NOTHING"""
REGISTER_TARGET = f"""INSERT INTO sqs2pg.target (pipeline, position, target, mode, baseline_rows)
SELECT p.id, %s, %s, %s, CASE WHEN p.target = %s THEN p.baseline_rows ELSE
    (SELECT count(*) FROM {{table}}) - {rows_added()} END
FROM sqs2pg.pipeline p WHERE p.name = %s
ON CONFLICT (pipeline, target) DO NOTHING"""
NOTE_PARTITIONS = """INSERT INTO sqs2pg.partitioned
    (target, column_name, every, ahead, retention_days)
SELECT %s, %s, %s, %s, %s
WHERE (SELECT relkind FROM pg_catalog.pg_class WHERE oid = %s::regclass) = 'p'
ON CONFLICT (target) DO UPDATE SET column_name = excluded.column_name, every = excluded.every,
    ahead = excluded.ahead, retention_days = excluded.retention_days"""
_REGISTERED = """SELECT p.id, t.target, t.mode
FROM sqs2pg.pipeline p JOIN sqs2pg.target t ON t.pipeline = p.id
WHERE p.name = %s ORDER BY t.position, t.registered_at"""
RECORD_RETENTION = """UPDATE sqs2pg.pipeline
SET ledger_retention_days = %s, quarantine_retention_days = %s
WHERE name = %s AND (ledger_retention_days, quarantine_retention_days) <> (%s, %s) RETURNING 1"""
LIMIT_REVEALS = """UPDATE pii.state SET reveals_per_hour_max = %s, people_per_hour_max = %s
WHERE (reveals_per_hour_max, people_per_hour_max) <> (%s, %s) RETURNING 1"""
_MIGRATE = "run `sqs2pg migrate` with the same settings, as the owner of the tables"
# For requests for all that is held on a person: only this column of a target is searched.
RECORD_SUBJECT = """UPDATE sqs2pg.target t SET subject_column = %s FROM sqs2pg.pipeline p
WHERE p.id = t.pipeline AND p.name = %s AND t.target = %s
AND t.subject_column IS DISTINCT FROM %s"""


def table_ddl(target: Target, settings: Settings | None = None) -> str:
    """Return CREATE TABLE of one target as the mapping implies it."""
    lines = ",\n".join(
        f"    {quote_identifier(f.column)} {columns.sql_type(f)}" for f in target.fields
    )
    table = quote_table(target.table)
    made = f"CREATE TABLE {table} (\n{lines}\n)"
    by = settings.sink.partition_by if settings else ""
    if not by:
        return made
    schema, dot, name = target.table.rpartition(".")
    fallback = quote_table(f"{schema}{dot}{partition_stem(name)}_default")
    return (
        f"{made} PARTITION BY RANGE ({quote_identifier(by)});\n"
        f"CREATE TABLE {fallback} PARTITION OF {table} DEFAULT"
    )


async def _add_columns(session: Session, target: Target, *, apply: bool) -> list[str]:
    """Add the columns that the mapping has and the table lacks; without `apply` say how to."""
    found = await read_columns(session, quote_table(target.table))
    missing = [field for field in target.fields if field.column not in found]
    if not missing:
        return []
    adds = ", ".join(
        f"ADD COLUMN {quote_identifier(f.column)} {columns.sql_type(f)}" for f in missing
    )
    statement = f"ALTER TABLE {quote_table(target.table)} {adds}"
    if not apply:
        first = missing[0]
        raise SettingsError(
            f"table {target.table} has no column {first.column!r}, "
            f"which field {first.name!r} goes to",
            code="target_column",
            hint=f"run {statement}; or migrate again with --apply-additive, which does",
        )
    await session.execute(statement)
    return [f"added {', '.join(field.column for field in missing)} to {target.table}"]


async def migrate(
    session: Session, settings: Settings, *, additive: bool = False, change_mode: bool = False
) -> list[str]:
    """Bring the database to this version; return one line for each thing that was done.

    `additive`: columns that the mapping has and a target lacks are added to it. `change_mode`: a
    filled target may get another mode, and its rows become the new baseline.

    Safe to repeat, and to run from several places at once. Raises SettingsError where the target
    does not fit the mapping, FatalFault where the role may not create what is missing.
    """
    with explained():
        migrated = await is_migrated(session)
        try:
            async with session.transaction(*[_LOCK][:migrated]):
                return await _apply(session, settings, additive, change_mode)
        except _ANOTHER_WAS_FIRST:
            if migrated or not await is_migrated(session):
                raise
        async with session.transaction(_LOCK):
            return await _apply(session, settings, additive, change_mode)


async def _apply(
    session: Session,
    settings: Settings,
    additive: bool,
    change_mode: bool,
) -> list[str]:
    done: list[str] = []
    applied = await read_record(session)
    check_record(applied)
    await check_schemas(session, applied)
    for migration in migrations():
        if migration.version in applied:
            continue
        await session.execute(migration.text)
        await session.execute(
            "INSERT INTO sqs2pg.migration (version, name, checksum) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.checksum],
        )
        done.append(f"applied migration {migration.version:04} {migration.name}")
    if unknown := set(applied) - {migration.version for migration in migrations()}:
        raise FatalFault(
            f"the database has migration {max(unknown):04}, which this version does not know",
            code="database_newer",
            hint="upgrade sqs2pg",
        )
    done += await _attach_days(session)
    done += await _targets(session, settings, additive=additive, change_mode=change_mode)
    done += await _grant(session, settings)
    done += await _record_retention(session, settings)
    return done + await _limit_reveals(session, settings)


async def _attach_days(session: Session) -> list[str]:
    count, last = await attach_coming_days(session)
    return [f"attached {count} ledger days, up to {last}"] if count else []


async def _targets(
    session: Session, settings: Settings, *, additive: bool, change_mode: bool
) -> list[str]:
    done: list[str] = []
    check_partition_column(settings)
    rows = await session.execute(_REGISTERED, [settings.pipeline_name])
    registered = [target for _, target, _ in rows]
    for position, target in enumerate(settings.targets):
        table = quote_table(target.table)
        [(exists,)] = await session.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
        if not exists:
            await session.execute(table_ddl(target, settings if position == 0 else None))
            done.append(f"created table {target.table}")
        resolved = await resolve_table(session, table)
        assert resolved is not None
        if position == 0 and registered and registered[0] != resolved:
            raise _other_table(settings, registered[0], resolved)
        if exists:
            done += await _add_columns(session, target, apply=additive)
        found = await read_columns(session, table)
        await require_table(session, table)
        columns.match(target.fields, found, target.table)
        columns.check_subject(settings, target, found)
        if warning := await check_owner(session, resolved):
            done.append(f"look: {warning}")
        if position == 0 and settings.sink.partition_by:
            await note_partitions(session, settings, resolved)
        if resolved not in registered:
            await _register(session, settings, position, resolved)
            done.append(f"registered pipeline {settings.pipeline_name} for {resolved}")
        changed = await record_mode(session, settings, target, resolved, change=change_mode)
        done += changed
        done += await record_digest(session, target, resolved, anew=bool(changed))
        whose = subject_column(target.fields, settings.vault.subject)
        values = [whose, settings.pipeline_name, resolved, whose]
        await session.execute(RECORD_SUBJECT, values)
    return done


async def _register(session: Session, settings: Settings, position: int, resolved: str) -> None:
    name, target = settings.pipeline_name, settings.targets[position]
    table = quote_table(target.table)
    # Counted while nobody can write: no book would account for rows that come in between.
    await session.execute(keep_rows(table))
    escaped = table.replace("%", "%%")  # for a query with parameters
    if position == 0:
        await session.execute(REGISTER.format(table=escaped), [name, resolved, resolved])
    values = [position, resolved, target.write.mode, resolved, resolved, name]
    await session.execute(REGISTER_TARGET.format(table=escaped), values)


def roles_sql() -> str:
    """Return the SQL that makes our roles and grants them what they need of our own tables."""
    return (SQL / "roles.sql").read_text(encoding="utf-8")


# The sequences of a target's defaults: an insert needs a privilege on them, too.
_SEQUENCES = """SELECT DISTINCT s.oid::regclass::text FROM pg_catalog.pg_attrdef a
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = a.oid
JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND a.adrelid = pg_catalog.to_regclass(%s)"""


async def _grant(session: Session, settings: Settings) -> list[str]:
    """Create roles and grant privileges; return one line for each thing done or not possible."""
    before = await _missing_roles(session)
    await session.execute(roles_sql())
    missing = await _missing_roles(session)
    done = [f"created role {role}" for role in ROLES if role in before - missing]
    done += await _try_grant(session, temporary_grant(settings))
    for statement in target_grants(settings):
        if statement.rpartition(" ")[2] not in missing:
            done += await _try_grant(session, statement)
    if "sqs2pg_ingest" not in missing:
        for target in settings.targets:
            rows = await session.execute(_SEQUENCES, [quote_table(target.table)])
            for (sequence,) in rows:
                done += await _try_grant(
                    session, f"GRANT USAGE ON SEQUENCE {sequence} TO sqs2pg_ingest"
                )
    if missing:
        names = ", ".join(role for role in ROLES if role in missing)
        done.append(
            f"could not create {names}: this login lacks CREATEROLE; have one that has it run what "
            "`sqs2pg migrate --sql` prints, then migrate again"
        )
    return done


async def _record_retention(session: Session, settings: Settings) -> list[str]:
    days = [settings.ledger.retention_days, settings.quarantine.retention_days]
    changed = await session.execute(RECORD_RETENTION, [*days, settings.pipeline_name, *days])
    return [
        f"recorded retention: ledger {days[0]} days, quarantine {days[1]} days" for _ in changed
    ]


async def _limit_reveals(session: Session, settings: Settings) -> list[str]:
    vault = settings.vault
    limits = [vault.reveals_per_hour_max, vault.people_per_hour_max]
    changed = await session.execute(LIMIT_REVEALS, limits * 2)
    if not changed:
        return []
    return [
        f"a login may reveal {vault.reveals_per_hour_max:,} values an hour",
        f"a login may reveal all that is held on {vault.people_per_hour_max:,} people an hour",
    ]


async def _try_grant(session: Session, statement: str) -> list[str]:
    """Grant, or say that the owner of the target has to."""
    await session.execute("SAVEPOINT sqs2pg_grant")
    try:
        await session.execute(statement)
    except psycopg.Error as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        await session.execute("ROLLBACK TO SAVEPOINT sqs2pg_grant")
        return [f"could not grant, the table is another role's; its owner can: {statement}"]
    await session.execute("RELEASE SAVEPOINT sqs2pg_grant")
    return []


async def _missing_roles(session: Session) -> set[str]:
    rows = await session.execute(
        "SELECT name FROM unnest(%s::text[]) name"
        " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = name)",
        [list(ROLES)],
    )
    return {name for (name,) in rows}


def check_partition_column(settings: Settings) -> None:
    """Raise SettingsError where no field goes to the partition column of the first target."""
    by, first = settings.sink.partition_by, settings.targets[0]
    if by and by not in {field.column for field in first.fields}:
        raise SettingsError(
            f"sink.partition_by names {by!r}, a column of {first.table} that no field goes to",
            hint="name the column of a date, such as create_date",
        )


async def note_partitions(session: Session, settings: Settings, target: str) -> None:
    """Note how a target is partitioned. A plain table is not noted until `partition --convert`."""
    sink = settings.sink
    how = [sink.partition_by, sink.partition_every, sink.partitions_ahead]
    await session.execute(NOTE_PARTITIONS, [target, *how, sink.partition_retention_days, target])


async def pipeline_id(session: Session, settings: Settings) -> int:
    """Return the pipeline's number in the books.

    Raises as `require_migrated` and `registered_id`.
    """
    await require_migrated(session)
    return await registered_id(session, settings)


async def require_migrated(session: Session) -> None:
    """Raise SettingsError where `migrate` has not been run by this version; FatalFault where the
    schema is not this package's, or a part of it is gone.
    """
    with explained():
        applied = await read_record(session)
        check_record(applied)
        await check_schemas(session, applied)
    if len(applied) < len(migrations()):
        raise SettingsError(
            "the database has not been migrated to this version", code="migrate", hint=_MIGRATE
        )


async def registered_id(session: Session, settings: Settings) -> int:
    """Return the pipeline's number in the books of a database that is migrated.

    Raises SettingsError where `migrate` has not been run for these settings.
    """
    with explained():
        rows = await session.execute(_REGISTERED, [settings.pipeline_name])
        tables = [
            await resolve_table(session, quote_table(target.table)) for target in settings.targets
        ]
    if not rows:
        raise SettingsError(
            f"pipeline {settings.pipeline_name!r} is not registered in the database",
            code="migrate",
            hint=_MIGRATE,
        )
    number, registered = rows[0][0], {target: mode for _, target, mode in rows}
    for position, (target, resolved) in enumerate(zip(settings.targets, tables, strict=True)):
        if resolved is None:
            raise SettingsError(
                f"table {target.table} does not exist", code="target_table", hint=_MIGRATE
            )
        if position == 0 and rows[0][1] != resolved:
            raise _other_table(settings, rows[0][1], resolved)
        if resolved not in registered:
            raise SettingsError(
                f"pipeline {settings.pipeline_name!r} is not registered for {resolved}",
                code="migrate",
                hint=_MIGRATE,
            )
        if registered[resolved] != target.write.mode:
            raise changed_mode(target, registered[resolved])
    return int(number)


def _other_table(settings: Settings, registered: str, resolved: str) -> SettingsError:
    return SettingsError(
        f"pipeline {settings.pipeline_name!r} writes to {registered}, but its table is {resolved}",
        code="target_changed",
        hint="give the pipeline of another table a `name` of its own and migrate",
    )


async def target_tables(
    session: Session, settings: Settings, *, narrowed: bool = False
) -> tuple[list[TargetTable], list[list[Column]]]:
    """Return each target, and the columns of its fields as the catalog describes them now.

    `narrowed`: as `columns.match` takes it.

    Raises SettingsError where a table cannot take what the mapping gives, or a key is not unique.
    """
    tables: list[TargetTable] = []
    matched: list[list[Column]] = []
    for target in settings.targets:
        table = quote_table(target.table)
        found = await read_columns(session, table)
        name = await require_table(session, table)
        matched.append(columns.match(target.fields, found, target.table, narrowed=narrowed))
        columns.check_subject(settings, target, found)
        names = tuple(field.column for field in target.fields)
        staging = await read_write_path(session, target, name)
        tables.append(TargetTable(table, names, name, staging))
    return tables, matched

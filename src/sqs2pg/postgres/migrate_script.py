"""What `migrate` does, as an SQL script: for a database that only its administrators may change.

Made from the settings alone, without a connection. Run as the role that is to own the tables. It
may be run again: what is there already stays. After it the pipeline starts as after `migrate`,
which differs in one thing: it compares an existing target with the mapping first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqs2pg.mapping.subject import subject_column
from sqs2pg.postgres import migrate as work
from sqs2pg.postgres import target_modes
from sqs2pg.postgres.digest import START, START_WHERE_POSSIBLE, STOP, digest_columns
from sqs2pg.postgres.identifiers import quote_literal, quote_table
from sqs2pg.postgres.ledger import DAYS_AHEAD
from sqs2pg.postgres.migrations import Migration, migrations
from sqs2pg.postgres.target_grants import target_grants, temporary_grant
from sqs2pg.settings import Settings, Target

# What `resolve_table` returns, where the name is known only to the database.
_RESOLVED = """(SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass({name}))"""
_ONCE = """DO {quote}
DECLARE
    missing boolean := true;
BEGIN
    IF to_regclass('sqs2pg.migration') IS NOT NULL THEN
        SELECT count(*) = 0 INTO missing FROM sqs2pg.migration WHERE version = {version};
    END IF;
    IF missing THEN
        EXECUTE {quote_text}
{text}
{quote_text};
        INSERT INTO sqs2pg.migration (version, name, checksum)
        VALUES ({version}, {name}, {checksum});
    END IF;
END
{quote};"""
_SAME_TABLE = """DO $same$
DECLARE
    registered text := (SELECT target FROM sqs2pg.pipeline WHERE name = {name});
    wanted text := {resolved};
BEGIN
    IF registered <> wanted THEN
        RAISE EXCEPTION 'pipeline % writes to %, but its table is %', {name}, registered, wanted
            USING HINT = 'give the pipeline of another table a `name` of its own and migrate';
    END IF;
END
$same$;"""
_DAYS = """SELECT sqs2pg.attach_days((now() AT TIME ZONE 'UTC')::date - 1,
    (now() AT TIME ZONE 'UTC')::date + {ahead})"""
_PERIODS = "SELECT sqs2pg.attach_next_period({target}) FROM generate_series(-1, {ahead} + 1)"


def migrate_script(settings: Settings, *, change_mode: bool = False) -> str:
    """Return the script. `change_mode` is as `migrate` takes it.

    Raises SettingsError where the partition column is not mapped.
    """
    work.check_partition_column(settings)
    return "\n".join(
        [
            "BEGIN;",
            *map(_once, migrations()),
            *_statements(settings, change_mode=change_mode),
            "COMMIT;",
        ],
    )


def _once(migration: Migration) -> str:
    return _ONCE.format(
        quote="$migrate$",
        quote_text="$migration$",
        text=migration.text.rstrip("\n"),
        version=migration.version,
        name=quote_literal(migration.name),
        checksum=quote_literal(migration.checksum),
    )


def _statements(settings: Settings, *, change_mode: bool) -> Iterator[str]:
    yield f"{_DAYS.format(ahead=DAYS_AHEAD)};"
    for position, target in enumerate(settings.targets):
        made = work.table_ddl(target, settings if position == 0 else None)
        yield f"{made.replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS')};"
        yield from _registration(settings, position, target, change_mode=change_mode)
    yield work.roles_sql()
    yield f"{temporary_grant(settings)};"
    yield from map(_if_role, target_grants(settings))
    days = [settings.ledger.retention_days, settings.quarantine.retention_days]
    yield _filled(work.RECORD_RETENTION, [*days, _name(settings), *days])
    limits = [settings.vault.reveals_per_hour_max, settings.vault.people_per_hour_max]
    yield _filled(work.LIMIT_REVEALS, limits * 2)


def _registration(
    settings: Settings, position: int, target: Target, *, change_mode: bool
) -> Iterator[str]:
    table = quote_table(target.table)
    resolved = _RESOLVED.format(name=quote_literal(table))
    if position == 0:
        yield _SAME_TABLE.format(name=_name(settings), resolved=resolved)
    if position == 0 and (by := settings.sink.partition_by):
        sink = settings.sink
        how = [quote_literal(by), quote_literal(sink.partition_every), sink.partitions_ahead]
        values = [resolved, *how, sink.partition_retention_days, resolved]
        yield _filled(work.NOTE_PARTITIONS, values)
        yield f"{_PERIODS.format(target=resolved, ahead=sink.partitions_ahead)};"
    yield f"{target_modes.keep_rows(table)};"
    name = _name(settings)
    if position == 0:
        yield _filled(work.REGISTER, [name, resolved, resolved], table)
    mode = quote_literal(target.write.mode)
    values = [position, resolved, mode, resolved, resolved, name]
    yield _filled(work.REGISTER_TARGET, values, table)
    *days, by = target_modes.retentions(settings, target)
    kept = [*days, quote_literal(str(by))]
    yield _filled(target_modes.RECORD_RETENTION, [*kept, name, resolved, *kept])
    if change_mode:
        yield _filled(target_modes.COUNT_ANEW, [resolved] * 3, table)
        yield _filled(target_modes.RECORD, [mode, name, resolved])
    if target.write.keeps_digest:
        columns = ", ".join(map(quote_literal, digest_columns(target)))
        values = [resolved, f"ARRAY[{columns}]", str(change_mode).lower()]
        if target.write.digest:
            yield _filled(START, values)
        else:
            yield _filled(START_WHERE_POSSIBLE, [*values, *[resolved] * 4])
    else:
        yield _filled(STOP, [resolved])
    column = subject_column(target.fields, settings.vault.subject)
    whose = quote_literal(column) if column is not None else "NULL"
    yield _filled(work.RECORD_SUBJECT, [whose, name, resolved, whose])


def _if_role(grant: str) -> str:
    """Return a grant that is left out where its role could not be made."""
    role = quote_literal(grant.rpartition(" ")[2])
    there = f"EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {role})"
    return f"DO $grant$ BEGIN IF {there} THEN {grant}; END IF; END $grant$;"


def _name(settings: Settings) -> str:
    return quote_literal(settings.pipeline_name)


def _filled(statement: str, values: Sequence[object], table: str = "") -> str:
    """Return a statement of `migrate` with SQL in the place of its parameters."""
    first, *rest = (part.replace("{table}", table) for part in statement.split("%s"))
    return first + "".join(f"{v}{part}" for v, part in zip(values, rest, strict=True)) + ";"

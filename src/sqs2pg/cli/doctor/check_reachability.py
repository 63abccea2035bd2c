"""Checks that queue and database can be reached, and that the database is ours."""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.postgres.dsn import describe, resolve_dsn
from sqs2pg.postgres.migrate import pipeline_id
from sqs2pg.postgres.target_modes import retentions
from sqs2pg.sqs.queue import read_depth

POSTGRES_MIN = 150_000
"""server_version_num of PostgreSQL 15, the oldest that is tested."""

_RETENTION = """SELECT ledger_retention_days, quarantine_retention_days FROM sqs2pg.pipeline
WHERE id = %s"""
_PERIODS = """SELECT d.every, d.ahead, d.retention_days FROM sqs2pg.partitioned d
JOIN sqs2pg.pipeline p ON p.target = d.target WHERE p.id = %s"""
_OF_TARGETS = """SELECT t.tombstone_retention_days, t.row_retention_days, t.retention_column
FROM sqs2pg.target t WHERE t.pipeline = %s ORDER BY t.position, t.registered_at"""


async def check_queue(context: Context) -> Finding:
    """Whether the queue answers, and how many messages it holds."""
    url = await context.find_queue()
    client, _ = await context.queue()
    visible, in_flight, delayed = await read_depth(client, url)
    where = f"{url.rsplit('/', 1)[-1]} in {client.region} at {client.endpoint_host}"
    return ok(
        "queue", f"{where}: {visible:,} visible, {in_flight:,} in flight, {delayed:,} delayed"
    )


async def check_database(context: Context) -> Finding:
    """Whether the database answers, is new enough, and migrated for this pipeline."""
    name = "database"
    await context.connect()
    where = describe(resolve_dsn(context.settings.sink.dsn))
    [(number, version, role)] = await context.query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_user"
    )
    version = version.split()[0]
    if number < POSTGRES_MIN:
        remedy = "upgrade to PostgreSQL 15 or newer"
        return fail(name, f"{where} is PostgreSQL {version}, which is not tested", remedy)
    return ok(name, f"PostgreSQL {version} at {where}, as {role}")


async def check_schema(context: Context) -> list[Finding]:
    """Whether our tables are there in this version, this pipeline is registered, and what
    `migrate` has recorded is what the settings say.
    """
    number = await pipeline_id(await context.session(), context.settings)
    name = context.settings.pipeline_name
    found = ok("schema", f"migrated to this version; pipeline {name} is number {number}")
    return [found, *await _recorded(context, number)]


async def _recorded(context: Context, pipeline: int) -> list[Finding]:
    settings = context.settings
    names = ["ledger.retention_days", "quarantine.retention_days"]
    wanted: list[object] = [settings.ledger.retention_days, settings.quarantine.retention_days]
    [recorded] = await context.query(_RETENTION, [pipeline])
    if settings.sink.partition_by:
        sink = settings.sink
        [periods] = await context.query(_PERIODS, [pipeline]) or [(None, None, None)]
        recorded = (*recorded, *periods)
        names += ["partition_every", "partitions_ahead", "partition_retention_days"]
        wanted += [sink.partition_every, sink.partitions_ahead, sink.partition_retention_days]
    kept = [target for target in settings.targets if target.write.keeps_state]
    if kept:
        rows = await context.query(_OF_TARGETS, [pipeline])
        for target, on_record in zip(settings.targets, rows, strict=False):
            if target in kept:
                place = target.route or "sink"
                names += ["tombstone_retention_days", f"{place}.retention_days", "its column"]
                wanted += retentions(settings, target)
                recorded = (*recorded, *on_record)
    differ = [
        f"{name} {value} in the settings, {there if there is not None else 'nothing'} on record"
        for name, value, there in zip(names, wanted, recorded, strict=True)
        if value != there
    ]
    if not differ:
        return []
    remedy = "what is on record counts: run `sqs2pg migrate`, which records the settings"
    return [warn("retention on record", "; ".join(differ), remedy)]

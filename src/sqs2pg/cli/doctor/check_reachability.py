"""Checks that queue and database can be reached, and that the database is ours."""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok
from sqs2pg.postgres.dsn import describe, resolve_dsn
from sqs2pg.postgres.migrate import pipeline_id

POSTGRES_MIN = 150_000
"""server_version_num of PostgreSQL 15, the oldest that is tested."""

_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


async def check_queue(context: Context) -> Finding:
    """Whether the queue answers, and how many messages it holds."""
    url = await context.find_queue()
    client, _ = await context.queue()
    counts = await client.attributes(url, list(_COUNTS))
    visible, in_flight, delayed = (int(counts.get(name, 0)) for name in _COUNTS)
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


async def check_schema(context: Context) -> Finding:
    """Whether our tables are there in this version, and this pipeline is registered."""
    number = await pipeline_id(await context.session(), context.settings)
    name = context.settings.pipeline_name
    return ok("schema", f"migrated to this version; pipeline {name} is number {number}")

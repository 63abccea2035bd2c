"""Check of partitioned targets: whether a partition holds the rows of today and tomorrow.

A row without a partition isolates its message (`pipeline/isolation.py`): nothing is lost, but
nothing of that day is written until somebody makes the partition.
"""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, warn
from sqs2pg.postgres.identifiers import quote_identifier

# Partitioned by range of one column of days or times. Other keys have no today.
_KEY = """SELECT a.attname, t.typname
FROM pg_catalog.pg_partitioned_table p
JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE p.partrelid = pg_catalog.to_regclass(%s) AND p.partstrat = 'r' AND p.partnatts = 1
  AND t.typname IN ('date', 'timestamp', 'timestamptz')"""
# NULL for a default partition that is the only one: it takes every row.
_BOUNDS = """SELECT coalesce(pg_catalog.pg_get_partition_constraintdef(i.inhrelid), 'true')
FROM pg_catalog.pg_inherits i
WHERE i.inhparent = pg_catalog.to_regclass(%s) AND NOT i.inhdetachpending"""
_AS_TYPE = {
    "date": "(w.at_moment AT TIME ZONE 'UTC')::date",
    "timestamp": "w.at_moment AT TIME ZONE 'UTC'",
    "timestamptz": "w.at_moment",
}
_WITHOUT = """SELECT to_char(k.at_moment AT TIME ZONE 'UTC', 'YYYY-MM-DD')
FROM (SELECT w.at_moment, {key} AS {column}
      FROM (VALUES (now()), (now() + interval '1 day')) AS w (at_moment)) AS k
WHERE NOT ({bounds}) ORDER BY 1"""


async def check_partitions(context: Context, name: str, table: str) -> list[Finding]:
    """Warn where no partition of a target holds now, or this time tomorrow, both in UTC.

    `name` is what findings of the target begin with; `table` is quoted for SQL.
    """
    key = await context.query(_KEY, [table])
    if not key:
        return []
    [(column, kind)] = key
    # The server's own text, of one column and constants.
    bounds = " OR ".join(f"({bound})" for (bound,) in await context.query(_BOUNDS, [table]))
    query = _WITHOUT.format(
        key=_AS_TYPE[kind], column=quote_identifier(column), bounds=bounds or "false"
    )
    without = [day for (day,) in await context.query(query)]
    if not without:
        return []
    return [
        warn(
            f"{name} partitions",
            f"no partition holds {' and '.join(without)} (UTC): messages of that day are isolated, "
            "and end on the dead-letter queue",
            f"CREATE TABLE … PARTITION OF {table} FOR VALUES FROM ('{without[0]}') TO …",
        )
    ]

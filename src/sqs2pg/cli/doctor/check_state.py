"""Checks of a state table: its unique index, the order of its versions, and what updates cost."""

from __future__ import annotations

from sqs2pg.cli.doctor.context import Context, NotChecked
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.cli.options import listed
from sqs2pg.errors import SettingsError, TransientFault
from sqs2pg.postgres.catalog import WITH_PARTITIONS
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.postgres.state_catalog import read_merge
from sqs2pg.settings import SYSTEM, Field, Target

_FILL = 80
"""Percent of a page that inserts may fill: then a new version of a row fits beside the old one."""
_NAMED_MAX = 3

# An index depends on every column that it reads, in its key, an expression or its predicate. BRIN
# does not count (PostgreSQL 16): its entries are of pages.
_INDEXES = """SELECT i.relname, string_agg(DISTINCT a.attname, ', ')
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = i.relam
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.oid
    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = x.indrelid
JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = d.refobjsubid
WHERE x.indrelid = pg_catalog.to_regclass(%s) AND a.attname = ANY (%s)
AND (m.amname <> 'brin' OR current_setting('server_version_num')::integer < 160000)
GROUP BY i.relname ORDER BY 1"""
_FULL = f"""WITH tables AS ({WITH_PARTITIONS})
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM tables t JOIN pg_catalog.pg_class c ON c.oid = t.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND coalesce((
    SELECT o.option_value::integer FROM pg_catalog.pg_options_to_table(c.reloptions) o
    WHERE o.option_name = 'fillfactor'), 100) = 100
ORDER BY 1"""
_NEWER_TYPE = """SELECT t.typcategory FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s"""


async def check_state(context: Context, name: str, target: Target) -> list[Finding]:
    """Report what people should know of a target with one row per key; nothing of a log.

    `name` is what findings of the target begin with. The table is there, and the mapping fits it.
    """
    write = target.write
    if not write.keeps_state:
        return []
    try:
        merge = await read_merge(await context.session(), target, target.table)
    except SettingsError as error:
        return [fail(f"{name} key", error.what, error.hint)]
    except TransientFault as fault:
        raise NotChecked(fault.what) from None
    assert merge is not None
    found = [ok(f"{name} key", f"key ({', '.join(write.key)}) is unique; mode is {write.mode}")]
    if write.mode == "upsert":
        found += await _order(context, name, target)
        found += await _updates(context, name, target)
    return found


async def _order(context: Context, name: str, target: Target) -> list[Finding]:
    """Warn where a later version may lose."""
    fifo = context.settings.source.queue.endswith(".fifo")
    newer = target.write.newer
    if not newer:
        return (
            []
            if fifo
            else [
                warn(
                    f"{name} order",
                    "a standard queue delivers out of order, and without `newer` the later commit "
                    "wins: an old version may replace a new one",
                    "set newer to a column that rises with each version, such as updated_at",
                )
            ]
        )
    field = next(field for field in target.fields if field.column == newer)
    found = await _dead_letters(context, name, field)
    if _reads(field, "SequenceNumber"):
        found.append(
            warn(
                f"{name} order",
                f"{newer} is sqs:SequenceNumber, which rises within one message group"
                + ("" if fifo else ", and a standard queue has none: every version is equal"),
                "have the producer send all versions of a key in one message group"
                if fifo
                else "name a column of the body, such as updated_at",
            )
        )
    rows = await context.query(_NEWER_TYPE, [quote_table(target.table), newer])
    if rows and rows[0][0] == "S":
        found.append(
            warn(
                f"{name} order",
                f"{newer} is a column of text: versions compare letter by letter, and 9 is newer "
                "than 10",
                "give it a type with an order, such as bigint or timestamptz, unless all its "
                "values have one form and length",
            )
        )
    return found


async def _dead_letters(context: Context, name: str, field: Field) -> list[Finding]:
    """Warn of versions by the time of sending where messages may be sent again by a redrive."""
    if not _reads(field, "SentTimestamp") and field.default not in ("sent_time", "sent_date"):
        return []
    try:
        client, url = await context.queue()
        policy = (await client.attributes(url, ["RedrivePolicy"])).get("RedrivePolicy")
    except NotChecked:
        return []
    if not policy:
        return []
    return [
        warn(
            f"{name} order",
            f"{field.column} is sqs:SentTimestamp, and the queue has a dead-letter queue: a "
            "redrive dates messages anew, so an old version that comes back would be the newest",
            "name a column of the body, such as updated_at; or let nobody redrive messages",
        )
    ]


def _reads(field: Field, attribute: str) -> bool:
    return SYSTEM + attribute in (*field.sources, field.default)


async def _updates(context: Context, name: str, target: Target) -> list[Finding]:
    """Warn of updates that cannot be HOT: each writes to every index, and leaves dead entries."""
    table = quote_table(target.table)
    why, remedies = [], []
    for index, columns in await context.query(_INDEXES, [table, list(target.updated_columns)]):
        why.append(f"index {index} has {columns}, which updates change")
        remedies.append(f"DROP INDEX {index}, unless queries need it")
    full = [table for (table,) in await context.query(_FULL, [table, table])]
    if full:
        why.append(f"{listed(full, _NAMED_MAX)} has fillfactor 100")
        remedies += [f"ALTER TABLE {one} SET (fillfactor = {_FILL})" for one in full[:_NAMED_MAX]]
    if not why:
        return []
    return [
        warn(
            f"{name} updates",
            f"updates cannot be HOT, so each writes to every index: {'; '.join(why)}",
            "; ".join(remedies),
        )
    ]

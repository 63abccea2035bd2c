"""Rows of state tables that are past their retention, and partitions: the books follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.message import RowChanges
from sqs2pg.postgres.maintenance import maintain
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.state_support import write
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_targets import balanced
from tests.integration.vault_support import login_of

FIELDS: list[dict[str, Any]] = [
    {"source": "id", "column": "order_id"},
    {"source": "at", "column": "at", "type": "timestamptz"},
    {"source": "state", "column": "state"},
]
SINK: dict[str, Any] = {
    "table": "orders",
    "mode": "upsert",
    "key": ["order_id"],
    "newer": "at",
    "retention_days": 10,
    "delete_when": {"field": "op", "equals": "delete"},
}
AGAIN = "UPDATE sqs2pg.target SET trimmed_at = NULL"
IDS = "SELECT string_agg(order_id, ' ' ORDER BY order_id) FROM orders"


def order(id_: str, age_days: float | None, **more: Any) -> str:
    at = datetime.now(UTC) - timedelta(days=age_days or 0)
    text = None if age_days is None else at.isoformat()
    return json.dumps({"id": id_, "at": text, "state": id_} | more)


async def upkeep(chosen: Settings, pipeline: int) -> int:
    async with opened(chosen) as session:
        return (await maintain(session, pipeline))["state_rows_past_retention"]


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date"])
async def test_old_rows_are_deleted_and_the_books_hold(
    pipeline: Assemble, settings: Callable[..., Settings], database: str, type_: str
) -> None:
    rows(database, f"CREATE TABLE orders (order_id text PRIMARY KEY, at {type_}, state text)")
    field = [FIELDS[0], FIELDS[1] | {"type": "date" if type_ == "date" else "timestamptz"}]
    async with pipeline(sink=SINK, field=field) as ready:
        number = ready.sink_plan.id
        bodies = [order("old", 12), order("new", 8), order("none", None), order("older", 400)]
        await write(ready, *bodies)
        with login_of(database, "sqs2pg_ingest") as dsn:
            assert await upkeep(settings(sink=SINK | {"dsn": dsn}, field=field), number) == 2
        assert rows(database, IDS) == [("new none",)]
        tally = "SELECT target_rows, target FROM sqs2pg.tally WHERE kind = 'target_retention'"
        removed = rows(database, tally)
        assert sum(count for count, _ in removed) == -2
        assert {target for _, target in removed} == {"public.orders"}
        assert await balanced(database, number, deep=True)
        # An older version that comes late is there until the next time.
        assert (await write(ready, order("old", 11)))[1] == RowChanges(inserted=1)
        chosen = settings(sink=SINK, field=field)
        assert await upkeep(chosen, number) == 0  # another process has just looked
        rows(database, AGAIN)
        assert await upkeep(chosen, number) == 1
        assert await balanced(database, number, deep=True)


async def test_a_row_that_others_have_locked_is_left_for_the_next_time(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    rows(database, "CREATE TABLE orders (order_id text PRIMARY KEY, at timestamptz, state text)")
    chosen = settings(sink=SINK, field=FIELDS)
    async with pipeline(sink=SINK, field=FIELDS) as ready:
        await write(ready, order("a", 12), order("b", 12))
        with psycopg.connect(database) as other:
            other.execute("UPDATE orders SET at = now() WHERE order_id = 'a'")
            assert await upkeep(chosen, ready.sink_plan.id) == 1
        assert rows(database, IDS) == [("a",)]


async def test_many_rows_go_in_parts_from_every_partition(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    rows(
        database,
        """CREATE TABLE orders (order_id text, at timestamptz, state text, PRIMARY KEY (order_id))
PARTITION BY HASH (order_id);
CREATE TABLE orders_0 PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO orders SELECT n::text, now() - interval '20 days' * (n % 10), repeat('x', 500)
FROM generate_series(1, 120000) n""",
    )
    chosen = settings(sink=SINK, field=FIELDS)
    async with pipeline(sink=SINK, field=FIELDS) as ready:
        assert await upkeep(chosen, ready.sink_plan.id) == 108_000
        [(most,)] = rows(
            database,
            "SELECT max(-target_rows) FROM sqs2pg.tally WHERE kind = 'target_retention'",
        )
        assert most == 10_000
        assert rows(database, "SELECT count(*) FROM orders") == [(12_000,)]
        assert await balanced(database, ready.sink_plan.id, deep=True)


async def test_the_longest_retention_of_a_table_counts(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    rows(database, "CREATE TABLE orders (order_id text PRIMARY KEY, at timestamptz, state text)")
    chosen = settings(name="one", sink=SINK, field=FIELDS)
    async with pipeline(name="one", sink=SINK, field=FIELDS) as ready:
        await write(ready, order("a", 12), order("b", 40))
        for days, left in ((0, "a b"), (30, "a")):
            other = settings(name="two", sink=SINK | {"retention_days": days}, field=FIELDS)
            async with opened(other) as session:
                await migrate(session, other)
            rows(database, AGAIN)
            await upkeep(chosen, ready.sink_plan.id)
            assert rows(database, IDS) == [(left,)]


async def test_a_retention_needs_a_column_with_an_age(
    settings: Callable[..., Settings], database: str, migrated_database: str
) -> None:
    rows(database, "CREATE TABLE orders (order_id text PRIMARY KEY, at bigint, state text)")
    field = [FIELDS[0], FIELDS[1] | {"type": "bigint"}]
    chosen = settings(sink=SINK, field=field)
    async with opened(chosen) as session:
        with pytest.raises(SettingsError, match="'at', which is bigint") as refused:
            await migrate(session, chosen)
    assert refused.value.code == "target_column"
    for sink in (SINK | {"newer": ""}, {"table": "orders", "retention_days": 10}):
        with pytest.raises(SettingsError) as refused:
            settings(sink=sink, field=field)
        assert refused.value.code == "write_mode"


async def test_the_partitions_of_a_state_table_are_dropped_and_the_books_hold(
    settings: Callable[..., Settings], database: str
) -> None:
    """Partitions are by a column of the key; what they held is in tally and digest."""
    fields = [*FIELDS, {"source": "day", "column": "day", "type": "date"}]
    sink = SINK | {
        "key": ["order_id", "day"],
        "partition_by": "day",
        "partition_retention_days": 60,
        "retention_days": 0,
        "tombstone_retention_days": 3,
    }
    chosen = settings(sink=sink, field=fields)
    async with opened(chosen) as session:
        await migrate(session, chosen)
        await session.execute("CREATE UNIQUE INDEX ON orders (order_id, day)")
        [(number,)] = await session.execute("SELECT max(id) FROM sqs2pg.pipeline")
    today = datetime.now(UTC).date()
    bodies = [
        order(f"o{age}", 1, day=(today - timedelta(days=age)).isoformat()) for age in (0, 1, 200)
    ]
    async with Pipeline(chosen) as ready:
        await write(ready, *bodies)
        rows(database, f"SELECT sqs2pg.attach_period('public.orders', '{today}'::date - 300)")
        await write(ready, order("dated", 1, day=(today - timedelta(days=300)).isoformat()))
        gone = order("o0", 0, day=today.isoformat(), op="delete")
        assert (await write(ready, gone))[1] == RowChanges(deleted=1)
        assert await balanced(database, number, deep=True)
        async with opened(chosen) as session:
            done = await maintain(session, number)
        assert (done["periods_dropped"], done["rows_past_retention"]) == (1, 1)
        assert rows(database, IDS) == [("o1",)]
        assert await balanced(database, number, deep=True)
        # The tombstone has a retention of its own.
        assert (await write(ready, bodies[0]))[1] == RowChanges(superseded=1)
        rows(database, "UPDATE sqs2pg.tombstone SET deleted_at = now() - interval '4 days'")
        async with opened(chosen) as session:
            assert (await maintain(session, number))["tombstones_dropped"] == 1
        assert (await write(ready, bodies[0]))[1] == RowChanges(inserted=1)

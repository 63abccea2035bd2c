"""State tables: one row per key, the newest or the first; in one transaction with the ledger."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sqs2pg.cli.quarantine import replay_selected
from sqs2pg.errors import SettingsError
from sqs2pg.message import Message, Outcome, RowChanges, SystemAttributes
from sqs2pg.pipeline.processor import Processor
from sqs2pg.postgres import batch_transaction
from sqs2pg.postgres.batch_transaction import BatchTransactions
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.maintenance import maintain
from sqs2pg.postgres.migrate import migrate
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.target_copy import TargetCopy
from sqs2pg.runners.assembly import assemble_backfill
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.state_support import process, write
from tests.integration.support import Assemble, opened, receive, rows, send
from tests.integration.test_targets import balanced
from tests.waiting import until

FIELDS: list[dict[str, Any]] = [
    {"source": "id", "column": "order_id"},
    {"source": "version", "column": "version", "type": "bigint"},
    {"source": "state", "column": "state"},
    {"source": "total", "column": "total", "type": "numeric"},
]
TABLE = """CREATE TABLE orders
    (order_id text PRIMARY KEY, version bigint, state text, total numeric)"""
UPSERT: dict[str, Any] = {
    "table": "orders",
    "mode": "upsert",
    "key": ["order_id"],
    "newer": "version",
}
ALL = "SELECT order_id, version, state, total::text FROM orders ORDER BY 1"


def order(id_: str, version: int | None, state: str | None = None, **more: Any) -> str:
    return json.dumps({"id": id_, "version": version, "state": state} | more)


@pytest.fixture
def orders(database: str, migrated_database: str) -> None:
    rows(database, TABLE)


pytestmark = pytest.mark.usefixtures("orders")


async def test_the_newest_version_stays_whatever_the_order(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        _, done = await write(ready, order("a", 2, "paid"), order("b", 1, "new"))
        assert done == RowChanges(inserted=2)
        outcomes, done = await write(
            ready,
            order("a", 1, "new"),  # older than the stored row
            order("a", 3, "sent"),
            order("a", None, "lost"),
            order("b", 1, "other"),  # of equal versions the stored row stays
            order("c", None, "first"),
        )
        assert outcomes == [Outcome.WRITTEN] * 5
        assert done == RowChanges(inserted=1, updated=1, superseded=3)
        assert rows(database, ALL) == [
            ("a", 3, "sent", None),
            ("b", 1, "new", None),
            ("c", None, "first", None),
        ]
        _, done = await write(ready, order("c", 0, "second"))
        assert done == RowChanges(updated=1)
        tally = "SELECT sum(target_rows), sum(rows_inserted), sum(rows_updated),"
        tally += " sum(rows_superseded), sum(written) FROM sqs2pg.tally"
        assert rows(database, tally) == [(3, 3, 2, 3, 8)]
        assert await balanced(database, ready.sink_plan.id)
        metrics = ready.metrics.registry
        assert metrics.get_sample_value("sqs2pg_rows_updated_total") == 2
        assert metrics.get_sample_value("sqs2pg_rows_superseded_total") == 3


async def test_without_newer_the_later_commit_wins(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=UPSERT | {"newer": ""}, field=FIELDS) as ready:
        await write(ready, order("a", 2, "x"), order("a", 1, "y"))
        assert rows(database, ALL) == [("a", 1, "y", None)]
        _, done = await write(ready, order("a", 0, "z"))
        assert done == RowChanges(updated=1)
        assert rows(database, ALL) == [("a", 0, "z", None)]


async def test_ignore_keeps_the_first_row(pipeline: Assemble, database: str) -> None:
    sink = {"table": "orders", "mode": "ignore", "key": ["order_id"]}
    async with pipeline(sink=sink, field=FIELDS) as ready:
        _, done = await write(ready, order("a", 1, "x"), order("a", 2, "y"), order("b", 1))
        assert done == RowChanges(inserted=2, ignored=1)
        outcomes, done = await write(ready, order("a", 3, "z"))
        assert (outcomes, done) == ([Outcome.WRITTEN], RowChanges(ignored=1))
        assert rows(database, ALL) == [("a", 1, "x", None), ("b", 1, None, None)]
        assert await balanced(database, ready.sink_plan.id)


async def test_update_names_the_columns_that_change(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=UPSERT | {"update": ["state"]}, field=FIELDS) as ready:
        await write(ready, order("a", 1, "x", total=5))
        await write(ready, order("a", 2, "y", total=6))
        assert rows(database, ALL) == [("a", 2, "y", "5")]  # the version always changes
        _, done = await write(ready, order("a", 1, "old"))
        assert done == RowChanges(superseded=1)


@pytest.mark.parametrize("newer", ["version", ""])
@pytest.mark.parametrize("one_batch", [True, False])
async def test_other_columns_keep_what_the_first_version_has(
    pipeline: Assemble, database: str, *, one_batch: bool, newer: str
) -> None:
    """However the batches are cut; a row that is deleted and comes again is another one."""
    sink = DELETES | {"update": ["state"], "newer": newer}
    async with pipeline(sink=sink, field=FIELDS) as ready:
        await write(ready, order("a", 1, "stored", total=1))
        later = [
            order("a", 2, "newer", total=2),
            order("b", 1, "one", total=1),
            order("b", 2, "two", total=2),
            order("b", 3, "three", total=3),
            order("c", 1, "one", total=1),
            delete("c", 2),
            order("c", 3, "three", total=3),
            order("c", 4, "four", total=4),
            order("d", 1, "one", total=1),
            delete("d", 2),
        ]
        for part in [later] if one_batch else [[one] for one in later]:
            await write(ready, *part)
        versions = (2, 3, 4) if newer else (1, 1, 3)  # without newer the version is another column
        assert rows(database, ALL) == [
            ("a", versions[0], "newer", "1"),
            ("b", versions[1], "three", "1"),
            ("c", versions[2], "four", "3"),
        ]
        assert await balanced(database, ready.sink_plan.id)


async def test_in_one_batch_the_lowest_version_is_the_first(
    pipeline: Assemble, database: str
) -> None:
    rows(database, "ALTER TABLE orders ADD CHECK (total <> 9)")
    async with pipeline(sink=UPSERT | {"update": ["state"]}, field=FIELDS) as ready:
        bodies = [
            order("a", 3, "three", total=3),
            order("a", 1, "one", total=1),
            order("a", 1, "one", total=2),  # of equal versions the first stays
            order("a", 0, "bad", total=9),
            order("a", 2, "two", total=2),
        ]
        outcomes, _ = await write(ready, *bodies)
        assert outcomes.count(Outcome.QUARANTINED) == 1
        assert rows(database, ALL) == [("a", 3, "three", "1")]
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize("one_batch", [True, False])
async def test_a_missing_value_leaves_the_column_as_it_is(
    pipeline: Assemble, database: str, *, one_batch: bool
) -> None:
    """However the batches are cut: each version counts only where it is newer than the row."""
    async with pipeline(sink=UPSERT | {"keep_if_null": True}, field=FIELDS) as ready:
        await write(ready, order("a", 5, "stored", total=1), order("b", 2, total=2))
        later = [
            order("a", 4, "older", total=9),
            order("a", 6),
            order("b", 3, "kept"),
            order("b", 4, total=4),
            order("b", 4, "equal"),
            order("c", 1, "one"),
            order("c", 2, total=7),
        ]
        for part in [later] if one_batch else [[one] for one in later]:
            await write(ready, *part)
        assert rows(database, ALL) == [
            ("a", 6, "stored", "1"),
            ("b", 4, "kept", "4"),
            ("c", 2, "one", "7"),
        ]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_redelivery_changes_nothing(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=UPSERT | {"newer": ""}, field=FIELDS) as ready:
        await send(ready, [order("a", 1, "x")])
        messages = await receive(ready, 1)
        assert await ready.processors[0].process(messages) == [Outcome.WRITTEN]
        await write(ready, order("a", 2, "y"))
        assert await ready.processors[1].process(messages) == [Outcome.DUPLICATE]
        assert rows(database, ALL) == [("a", 2, "y", None)]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_bad_row_is_set_aside_and_the_next_version_takes_its_place(
    pipeline: Assemble, database: str
) -> None:
    rows(database, "ALTER TABLE orders ADD CONSTRAINT no_x CHECK (state <> 'x')")
    rows(database, "CREATE UNIQUE INDEX one_total ON orders (total)")
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        bodies = [order(f"k{i}", 1, total=i) for i in range(40)]
        bodies[20:20] = [
            order("a", 1, "one"),
            order("a", 3, "x"),
            order("a", 2, "two"),
            order("b", 1, total=7),  # the total of another row
            '{"id": null, "version": 1}',
        ]
        outcomes, done = await write(ready, *bodies)
        assert outcomes.count(Outcome.QUARANTINED) == 3
        assert done.inserted == 41
        assert done.updated + done.superseded == 1
        assert rows(database, ALL)[0] == ("a", 2, "two", None)
        reasons = "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2"
        assert rows(database, reasons) == [
            ("missing_field", "id"),
            ("rejected_by_database", "23505 one_total"),
            ("rejected_by_database", "23514 no_x"),
        ]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_replay_obeys_the_version(
    settings: Callable[..., Settings], pipeline: Assemble, database: str
) -> None:
    rows(database, "ALTER TABLE orders ADD CONSTRAINT no_x CHECK (state <> 'x')")
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        await write(ready, order("a", 1, "x"), order("b", 1, "x"))
        await write(ready, order("a", 2, "new"))
        rows(database, "ALTER TABLE orders DROP CONSTRAINT no_x")
        done = await replay_selected(settings(sink=UPSERT, field=FIELDS), Selection())
        assert done.replayed == 2
        assert rows(database, ALL) == [("a", 2, "new", None), ("b", 1, "x", None)]
        replayed = "SELECT written, target_rows, rows_superseded FROM sqs2pg.tally"
        assert rows(database, f"{replayed} WHERE kind = 'replay'") == [(2, 1, 1)]
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize("index", ["", "CREATE UNIQUE INDEX ON orders (order_id, version)"])
async def test_a_key_without_a_unique_index_is_refused(
    settings: Callable[..., Settings], pipeline: Assemble, database: str, index: str
) -> None:
    """`migrate` neither makes the index nor refuses."""
    rows(database, f"ALTER TABLE orders DROP CONSTRAINT orders_pkey; {index}")
    with pytest.raises(SettingsError, match=r"key = \(order_id\).*not unique") as refused:
        async with pipeline(sink=UPSERT, field=FIELDS):
            pass
    assert refused.value.code == "target_key"
    statement = refused.value.hint.partition(";")[0]
    assert statement == 'CREATE UNIQUE INDEX CONCURRENTLY ON "orders" ("order_id")'
    rows(database, statement)
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        assert (await write(ready, order("a", 1)))[1] == RowChanges(inserted=1)


async def test_a_filled_table_changes_its_mode_on_purpose(
    settings: Callable[..., Settings], pipeline: Assemble, database: str
) -> None:
    rows(database, "ALTER TABLE orders DROP CONSTRAINT orders_pkey")
    log = {"table": "orders"}
    async with pipeline(sink=log, field=FIELDS) as ready:
        await write(ready, order("a", 1), order("a", 2), order("b", 1))
        number = ready.sink_plan.id
    rows(database, "DELETE FROM orders WHERE version = 1 AND order_id = 'a'")
    rows(database, "ALTER TABLE orders ADD PRIMARY KEY (order_id)")
    chosen = settings(sink=UPSERT, field=FIELDS)
    async with opened(chosen) as session:
        with pytest.raises(SettingsError, match=r'"append".*"upsert"') as refused:
            await migrate(session, chosen)
        assert refused.value.code == "target_mode"
        with pytest.raises(SettingsError, match=r'"append".*"upsert"'):
            async with Pipeline(chosen):
                pass
        done = await migrate(session, chosen, change_mode=True)
        assert [line for line in done if "from append to upsert" in line]
        assert await migrate(session, chosen) == []
    assert await balanced(database, number)
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        _, done = await write(ready, order("a", 3), order("c", 1))
        assert done == RowChanges(inserted=1, updated=1)
        assert await balanced(database, ready.sink_plan.id)
    acts = rows(database, "SELECT act, subject FROM sqs2pg.audit")
    assert acts == [("change_mode", "public.orders: from append to upsert, counted anew")]


async def test_a_partitioned_target_has_the_partition_column_in_its_key(
    pipeline: Assemble, database: str
) -> None:
    rows(
        database,
        """DROP TABLE orders;
CREATE TABLE orders (gone text, order_id text, version bigint, state text, total numeric,
    PRIMARY KEY (order_id, total)) PARTITION BY LIST (total);
ALTER TABLE orders DROP COLUMN gone;
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);
CREATE TABLE orders_2 (total numeric NOT NULL, order_id text NOT NULL, state text, version bigint);
ALTER TABLE orders ATTACH PARTITION orders_2 FOR VALUES IN (2)""",
    )
    with pytest.raises(SettingsError, match="lacks total, by which the table is partitioned"):
        async with pipeline(sink=UPSERT, field=FIELDS):
            pass
    sink = UPSERT | {"key": ["order_id", "total"]}
    async with pipeline(sink=sink, field=FIELDS) as ready:
        bodies = [order("a", 1, total=1), order("a", 1, total=2), order("a", 2, "x", total=2)]
        assert (await write(ready, *bodies))[1] == RowChanges(inserted=2, superseded=1)
        bodies = [order("a", 2, total=1), order("a", 1, total=2), order("b", 1, total=2)]
        _, done = await write(ready, *bodies)
        assert done == RowChanges(inserted=1, updated=1, superseded=1)
        assert await balanced(database, ready.sink_plan.id)


async def test_keys_and_versions_are_those_that_the_table_rounds_them_to(
    pipeline: Assemble, database: str
) -> None:
    rows(
        database,
        "ALTER TABLE orders ADD at timestamptz(0), DROP CONSTRAINT orders_pkey,"
        " ALTER total TYPE numeric(6, 1), ADD PRIMARY KEY (total)",
    )
    fields = [*FIELDS, {"source": "at", "column": "at", "type": "timestamptz"}]
    sink = DELETES | {"key": ["total"], "newer": "at"}
    async with pipeline(sink=sink, field=fields) as ready:
        at = "2026-11-30T10:00:0{}Z".format
        bodies = [
            order("a", 1, total=1.04, at=at("0.4")),
            order("b", 2, total=0.96, at=at("0.2")),  # the same key and version
            order("c", 3, total=1.06, at=at("0.6")),
        ]
        assert (await write(ready, *bodies))[1] == RowChanges(inserted=2, superseded=1)
        gone = order("c", 4, total=1.13, at=at("1.4"), op="delete")  # as old as the row
        assert (await write(ready, gone))[1] == RowChanges(superseded=1)
        bodies = [order("d", 5, total=1.0, at=at("0.49")), order("e", 6, total=1, at=at("0.5"))]
        assert (await write(ready, *bodies))[1] == RowChanges(updated=1, superseded=1)
        ids = "SELECT order_id, total::text FROM orders ORDER BY total"
        assert rows(database, ids) == [("e", "1.0"), ("c", "1.1")]


async def test_a_pseudonym_may_be_the_key_and_texts_keep_their_collation(
    pipeline: Assemble, database: str
) -> None:
    rows(
        database,
        """CREATE TABLE people
    (who text, tag varchar(8) COLLATE "POSIX", code char(3), version bigint,
    UNIQUE (who, tag, code))""",
    )
    fields: Sequence[dict[str, Any]] = [
        {"source": "who", "column": "who", "mask": "pseudonymize"},
        {"source": "tag", "column": "tag"},
        {"source": "code", "column": "code"},
        {"source": "v", "column": "version", "type": "bigint"},
    ]
    sink = UPSERT | {"table": "people", "key": ["who", "tag", "code"]}
    async with pipeline(sink=sink, field=fields) as ready:
        bodies = [
            json.dumps({"who": "ann", "tag": tag, "code": code, "v": v})
            for v, (tag, code) in enumerate([("red", "a"), ("red", "a  "), ("blue", "a")])
        ]
        _, done = await write(ready, *bodies)
        assert done == RowChanges(inserted=2, superseded=1)
        _, done = await write(ready, bodies[0].replace('"v": 0', '"v": 9'))
        assert done == RowChanges(updated=1)


@pytest.mark.parametrize("mode", ["upsert", "deletes", "ignore"])
async def test_a_trigger_that_swallows_a_row_is_noticed(
    pipeline: Assemble, database: str, mode: str
) -> None:
    rows(
        database,
        """CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN RETURN CASE WHEN NEW.state = ''x'' THEN NULL ELSE NEW END; END';
CREATE TRIGGER swallow BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION swallow()""",
    )
    ignore = {"table": "orders", "mode": "ignore", "key": ["order_id"]}
    sink = {"upsert": UPSERT, "deletes": DELETES, "ignore": ignore}[mode]
    async with pipeline(sink=sink, field=FIELDS) as ready:
        bodies = [order("a", 2), order("b", 1, "x"), order("c", 1), order("a", 1)]
        outcomes, done = await write(ready, *bodies)
        assert outcomes == [Outcome.WRITTEN, Outcome.QUARANTINED, *[Outcome.WRITTEN] * 2]
        assert done.inserted == 2
        details = rows(database, "SELECT detail FROM sqs2pg.quarantine")
        assert details == [("row_suppressed",)]
        outcomes, done = await write(ready, order("a", 1), order("c", 1))
        assert (outcomes, done.added) == ([Outcome.WRITTEN] * 2, 0)
        assert await balanced(database, ready.sink_plan.id)


async def test_staging_tables_are_made_anew_after_a_while(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_transaction, "STAGE_S", -1.0)
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        session = ready.processors[0].sink.session
        made = "SELECT oid FROM pg_class WHERE relname LIKE 'sqs2pg%%' AND relkind = 'r'"
        made += " AND relpersistence = 't'"
        await write(ready, order("a", 1))
        before = await session.execute(made, [])
        await write(ready, order("a", 2))
        after = await session.execute(made, [])
        assert len(before) == len(after) == 1
        assert before != after
        assert rows(database, ALL) == [("a", 2, None, None)]


async def test_writers_of_the_same_keys_wait_and_do_not_deadlock(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink=UPSERT | {"connections": 4}, field=FIELDS) as ready:

        async def writer(processor: Processor, seed: int) -> None:
            draw = random.Random(seed)
            for version in range(15):
                bodies = [order(f"k{n}", version) for n in draw.sample(range(200), 100)]
                assert set(await process(processor, bodies)) == {Outcome.WRITTEN}

        await asyncio.gather(*(writer(one, i) for i, one in enumerate(ready.processors)))
        for processor in ready.processors:
            await processor.sink.session.execute("SELECT pg_stat_force_next_flush()")
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert rows(database, deadlocks) == [(0,)]
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize("deletes", [False, True])
async def test_writers_that_search_for_bad_rows_do_not_deadlock(
    pipeline: Assemble, database: str, *, deletes: bool
) -> None:
    """They merge in pieces, whose keys are in no order."""
    rows(database, "ALTER TABLE orders ADD CHECK (state <> 'bad')")
    sink = (DELETES if deletes else UPSERT) | {"connections": 4}
    async with pipeline(sink=sink, field=FIELDS) as ready:
        await write(ready, *(order(f"k{n}", 0) for n in range(40)))

        async def writer(processor: Processor, seed: int) -> None:
            draw = random.Random(seed)
            for version in range(1, 7):
                chosen = [f"k{n}" for n in draw.sample(range(40), 30)]
                bodies = [order(key, version, draw.choice(["bad", *"abcdef"])) for key in chosen]
                bodies += [delete(key, version) for key in chosen[:3] if deletes]
                outcomes = await process(processor, bodies)
                assert set(outcomes) <= {Outcome.WRITTEN, Outcome.QUARANTINED}

        await asyncio.gather(*(writer(one, i) for i, one in enumerate(ready.processors)))
        for processor in ready.processors:
            await processor.sink.session.execute("SELECT pg_stat_force_next_flush()")
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert rows(database, deadlocks) == [(0,)]
        assert rows(database, "SELECT count(*) FROM sqs2pg.key_guard") == [(0,)]
        assert rows(database, "SELECT count(*) > 0 FROM sqs2pg.quarantine") == [(True,)]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_table_that_changes_meanwhile(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        assert (await write(ready, order("a", 1, "new")))[1] == RowChanges(inserted=1)
        rows(database, "ALTER TABLE orders ALTER version TYPE numeric, ALTER state TYPE varchar(3)")
        outcomes, done = await write(ready, order("a", 2, "old"), order("b", 1, "longer"))
        assert outcomes == [Outcome.WRITTEN, Outcome.QUARANTINED]
        assert done == RowChanges(updated=1)
        assert rows(database, "SELECT reason FROM sqs2pg.quarantine") == [("too_long",)]
        rows(database, "ALTER TABLE orders DROP CONSTRAINT orders_pkey")
        outcomes, _ = await write(ready, order("a", 3))
        assert outcomes == [Outcome.RELEASED]  # it is held until the index is back
        rows(database, "ALTER TABLE orders ADD PRIMARY KEY (order_id)")
        assert (await write(ready, order("a", 3)))[1] == RowChanges(updated=1)


async def test_a_batch_adds_nothing_to_the_catalog(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=UPSERT, field=FIELDS) as ready:
        catalog = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_sys_tables"
        catalog += " WHERE relname IN ('pg_class', 'pg_attribute', 'pg_type', 'pg_depend')"
        flush = "SELECT pg_stat_force_next_flush()"
        await write(ready, order("a", 0))
        session = ready.processors[0].sink.session
        await session.execute(flush)
        before = rows(database, catalog)
        for version in range(1, 4):
            await write(ready, order("a", version))
        await session.execute(flush)
        assert rows(database, catalog) == before


DELETES = UPSERT | {"delete_when": {"field": "op", "equals": "delete"}}
TOMBSTONES = "SELECT target, length(key), version::text FROM sqs2pg.tombstone ORDER BY 3"


def delete(id_: str, version: int | None) -> str:
    return json.dumps({"id": id_, "version": version, "op": "delete"})


async def test_an_older_version_does_not_bring_a_deleted_row_back(
    pipeline: Assemble, database: str
) -> None:
    rows(
        database, "ALTER TABLE orders ALTER state SET NOT NULL"
    )  # a tombstone has no more than a key
    async with pipeline(sink=DELETES, field=FIELDS) as ready:
        await write(ready, order("a", 1, "new"), order("b", 5, "new"))
        outcomes, done = await write(ready, delete("a", 3), delete("b", 5), delete("c", 2))
        assert outcomes == [Outcome.WRITTEN] * 3
        assert done == RowChanges(deleted=1, superseded=2)  # of equal versions the row stays
        late = order("a", 2, "late"), order("a", 3, "equal"), order("c", 1, "late")
        for body in (*late, order("a", None, "lost")):
            assert (await write(ready, body))[1] == RowChanges(superseded=1)
        assert rows(database, ALL) == [("b", 5, "new", None)]
        assert rows(database, TOMBSTONES) == [
            ("public.orders", 16, "2"),
            ("public.orders", 16, "3"),
            ("public.orders", 16, "5"),
        ]
        assert (await write(ready, order("a", 4, "again")))[1] == RowChanges(inserted=1)
        many = [
            order("d", 1, "x"),
            delete("d", 2),
            delete("a", 5),
            order("a", 6, "x"),
            delete("e", 1),
        ]
        # A row that is deleted and comes again is inserted, as if it were in two batches.
        assert (await write(ready, *many))[1] == RowChanges(inserted=1, deleted=1, superseded=3)
        assert (await write(ready, order("d", 1, "x")))[1] == RowChanges(superseded=1)
        assert rows(database, ALL) == [("a", 6, "x", None), ("b", 5, "new", None)]
        assert await balanced(database, ready.sink_plan.id)
        assert rows(database, "SELECT count(*) FROM sqs2pg.key_guard") == [(0,)]
        assert not [
            key
            for (key,) in rows(database, "SELECT encode(key, 'escape') FROM sqs2pg.tombstone")
            if key in "abcde"
        ]


@pytest.mark.parametrize("newer", ["version", ""])
@pytest.mark.parametrize("one_batch", [True, False])
async def test_what_comes_after_a_deletion_keeps_nothing_of_the_row(
    pipeline: Assemble, database: str, newer: str, *, one_batch: bool
) -> None:
    """However the batches are cut: with `keep_if_null`, and in columns that no update changes."""
    sink = DELETES | {"newer": newer, "keep_if_null": True, "update": ["version", "state"]}
    async with pipeline(sink=sink, field=FIELDS) as ready:
        stored = (order(id_, 1, "stored", total=1) for id_ in "abcg")
        await write(ready, *stored)
        later = [
            delete("a", 2),
            order("a", 3, total=7),
            order("b", 2),
            order("b", 3, "kept", total=9),
            order("c", 2, "gone", total=2),
            delete("c", 3),
            delete("d", 5),
            order("d", 6, total=6),
            order("e", 1, "gone"),
            delete("e", 2),
            order("e", 3, "kept"),
            order("e", 4),
            order("f", 2),
            order("g", 2, total=5),
        ]
        late = [delete("b", 1), order("d", 4, "late"), order("g", 2, "equal"), delete("g", 2)]
        later += late if newer else []
        for part in [later] if one_batch else [[one] for one in later]:
            await write(ready, *part)
        assert rows(database, ALL) == [
            ("a", 3, None, "7"),
            ("b", 3, "kept", "1"),
            ("d", 6, None, "6"),
            ("e", 4, "kept", None),
            ("f", 2, None, None),
            ("g", 2, "stored", "1"),
        ]
        tally = "SELECT sum(rows_inserted), sum(rows_deleted) FROM sqs2pg.tally"
        assert rows(database, tally) in ([(8, 2)], [(9, 3)])
        assert await balanced(database, ready.sink_plan.id)


async def test_without_newer_a_tombstone_deletes_and_is_not_kept(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink=DELETES | {"newer": ""}, field=FIELDS) as ready:
        await write(ready, order("a", 1), order("b", 1))
        assert (await write(ready, delete("a", 0)))[1] == RowChanges(deleted=1)
        assert (await write(ready, order("a", 1)))[1] == RowChanges(inserted=1)
        assert rows(database, TOMBSTONES) == []
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize(
    ("when", "gone", "stays"),
    [
        ({"field": "op", "any_of": ["d", 7, True]}, ["d", 7, True, 7.0], ["e", 8, "7", None, 1]),
        ({"field": "meta.gone['at']", "exists": True}, [{"gone": {"at": 1}}], [{"gone": 1}, None]),
        ({"field": "op", "exists": False}, [None], ["x", 0, False]),
        ({"expression": "op && (op == 'd' || contains(op, 'x'))"}, ["d", "ax"], ["e"]),
        ({"field": "op", "equals": "a`\\'"}, ["a`\\'"], ["a`"]),
    ],
)
async def test_what_deletes_is_said_as_in_a_route(
    pipeline: Assemble, database: str, when: dict[str, Any], gone: list[Any], stays: list[Any]
) -> None:
    async with pipeline(sink=UPSERT | {"delete_when": when}, field=FIELDS) as ready:
        named = "meta" if "meta" in when.get("field", "") else "op"
        ids = [f"k{number}" for number in range(len(gone) + len(stays))]
        absent = {"op": "y" if when.get("exists") is False else None}
        await write(ready, *(order(id_, 1, **absent) for id_ in ids))
        assert len(rows(database, ALL)) == len(ids)
        bodies = [order(i, 2, **{named: v}) for i, v in zip(ids, [*gone, *stays], strict=True)]
        outcomes, done = await write(ready, *bodies)
        assert set(outcomes) == {Outcome.WRITTEN}
        assert done == RowChanges(updated=len(stays), deleted=len(gone))
        assert [row[0] for row in rows(database, ALL)] == ids[len(gone) :]


@pytest.mark.parametrize(
    ("field", "gone"),
    [("orders[].lines[].op", ["1b", "2b"]), ("orders[].op", ["2a", "2b"]), ("op", [])],
)
async def test_a_part_of_an_exploded_element_may_delete_its_row(
    pipeline: Assemble, database: str, field: str, gone: list[str]
) -> None:
    fields = [
        {"source": "orders[].lines[].id", "column": "order_id"},
        {"source": "version", "column": "version", "type": "bigint"},
        {"source": "state", "column": "state"},
    ]
    sink = UPSERT | {"delete_when": {"field": field, "any_of": ["delete", 1]}}
    lines = [[{"id": f"{n}a"}, {"id": f"{n}b", "op": ["delete", 1.0][n - 1]}] for n in (1, 2)]
    orders = [{"lines": lines[0]}, {"lines": lines[1], "op": "delete"}]
    async with pipeline(sink=sink, field=fields, explode="orders[].lines") as ready:
        outcomes, _ = await write(ready, json.dumps({"version": 1, "orders": orders}))
        assert outcomes == [Outcome.WRITTEN]
        assert [row[0] for row in rows(database, ALL)] == sorted({"1a", "1b", "2a", "2b"} - {*gone})
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize("delete_first", [True, False])
async def test_a_writer_that_deletes_and_one_that_inserts_see_each_other(
    pipeline: Assemble, database: str, *, delete_first: bool
) -> None:
    """Both versions are of a key that the table does not have, so they meet at no row of it."""
    async with (
        pipeline(sink=DELETES, field=FIELDS) as ready,
        opened(ready.settings) as one,
        opened(ready.settings) as other,
    ):
        [(other_pid,)] = await other.execute("SELECT pg_backend_pid()")
        transactions = BatchTransactions(ready.sink_plan, None)

        async def merge(session: Session, body: str) -> None:
            message = Message(str(uuid4()), "", body, SystemAttributes(time.time_ns() // 10**6))
            encoded = ready.processors[0].plan.encoder.encode([message], "\n")
            targets = TargetCopy(ready.sink_plan.targets)
            assert await targets.copy(session, encoded.targets)

        async def merge_and_commit(body: str) -> None:
            async with transactions.open(other):
                await merge(other, body)

        bodies = [order("a", 1), delete("a", 2)]
        if delete_first:
            bodies.reverse()
        async with transactions.open(one):
            await merge(one, bodies[0])
            second = asyncio.create_task(merge_and_commit(bodies[1]))
            waits = f"SELECT cardinality(pg_blocking_pids({other_pid}))"
            await until(lambda: rows(database, waits) == [(1,)], during=second)
        await second
        assert rows(database, ALL) == []
        assert rows(database, TOMBSTONES) == [("public.orders", 16, "2")]


async def test_a_tombstone_ends_with_its_retention(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=DELETES | {"tombstone_retention_days": 3}, field=FIELDS) as ready:
        await write(ready, delete("a", 9), delete("b", 9))
        rows(database, "UPDATE sqs2pg.tombstone SET deleted_at = now() - interval '71 hours'")
        async with opened(ready.settings) as session:
            assert (await maintain(session, ready.sink_plan.id))["tombstones_dropped"] == 0
            rows(database, "UPDATE sqs2pg.tombstone SET deleted_at = now() - interval '73 hours'")
            assert (await maintain(session, ready.sink_plan.id))["tombstones_dropped"] == 2
        assert (await write(ready, order("a", 1)))[1] == RowChanges(inserted=1)


async def test_a_masked_key_is_remembered_by_its_cleartext(
    pipeline: Assemble, database: str
) -> None:
    """So its mark is the same after a rotation, which gives the same key another token."""
    fields = [FIELDS[0] | {"mask": "pseudonymize"}, *FIELDS[1:]]
    async with pipeline(sink=DELETES, field=FIELDS) as ready:
        await write(ready, delete("a", 9))
    rows(database, "TRUNCATE orders")
    async with pipeline(sink=DELETES, field=fields) as ready:
        assert (await write(ready, order("a", 1), order("b", 1)))[1] == RowChanges(1, superseded=1)


async def test_a_backfill_obeys_the_version(
    settings: Callable[..., Settings], pipeline: Assemble, database: str, tmp_path: Path
) -> None:
    archive = tmp_path / "2026-11-01.jsonl"
    lines = [order("a", 1, "old"), order("b", 7, "new"), order("b", 6, "old"), delete("c", 5)]
    archive.write_text("\n".join([*lines, order("c", 4, "old")]))
    async with pipeline(sink=DELETES, field=FIELDS) as ready:
        await write(ready, order("a", 2, "new"), order("c", 3, "new"))
        async with assemble_backfill(settings(sink=DELETES, field=FIELDS)) as begin:
            done = await begin().run([str(archive)])
        assert (done.written, done.rows_inserted, done.rows_deleted) == (5, 1, 1)
        assert done.rows_superseded == 3
        assert rows(database, ALL) == [("a", 2, "new", None), ("b", 7, "new", None)]
        assert await balanced(database, ready.sink_plan.id)

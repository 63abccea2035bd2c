"""Erasures and rekeys while rows move, and partitions come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg

from sqs2pg.postgres.migrate import migrate
from sqs2pg.postgres.partitions import convert
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.vault.erase import Erased
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_vault_rotation import forget, rekey
from tests.integration.vault_support import ON, message, rotate, write
from tests.waiting import BLOCKED, until

MakeSettings = Callable[..., Settings]
BY_DATE = {"sink": {"partition_by": "create_date"}}
THEIRS = "SELECT count(*) FROM user_logins WHERE user_id = 'ann'"
CLEARED = """SELECT count(*), count(masked_ip), count(DISTINCT user_id) FROM user_logins
WHERE user_id <> 'bob'"""
LISTED = """CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32),
    masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),
    app_version integer, create_date date) PARTITION BY LIST (device_type);
CREATE TABLE part_a PARTITION OF user_logins FOR VALUES IN ('a');
CREATE TABLE part_b PARTITION OF user_logins FOR VALUES IN ('b')"""


async def prepared(chosen: Settings, database: str, before: str = "") -> None:
    if before:
        rows(database, before)
    async with opened(chosen) as session:
        await migrate(session, chosen)


async def while_it_waits(database: str, work: asyncio.Task[Any], holder: Any) -> Any:
    """Commit the holder's transaction once the work waits for it; return the work's result."""
    await until(lambda: rows(database, BLOCKED) != [(0,)], during=work)
    holder.commit()
    return await work


async def test_rows_that_move_to_a_new_partition_meanwhile_are_erased(
    settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON, **BY_DATE)
    await prepared(chosen, database)
    async with Pipeline(chosen) as ready:
        dated = [message(who, create_date="2025-01-05") for who in ("ann", "ann", "bob")]
        await write(ready, dated)
    with psycopg.connect(database) as mover:
        moved = mover.execute("SELECT sqs2pg.attach_period('public.user_logins', '2025-01-01')")
        assert moved.fetchall() == [(3,)]
        report = await while_it_waits(database, asyncio.create_task(forget(chosen, "ann")), mover)
    assert report.report.rows_changed == 2
    assert rows(database, THEIRS) == [(0,)]
    assert rows(database, CLEARED) == [(2, 0, 1)]
    assert rows(database, "SELECT count(*) FROM user_logins_p202501") == [(3,)]


async def test_old_tokens_that_move_to_a_new_partition_meanwhile_are_replaced(
    settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON, **BY_DATE)
    await prepared(chosen, database)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", create_date="2025-01-05")])
    rotate(chosen, database, "pseudonym")
    with psycopg.connect(database) as mover:
        mover.execute("SELECT sqs2pg.attach_period('public.user_logins', '2025-01-01')")
        report = await while_it_waits(database, asyncio.create_task(rekey(chosen)), mover)
    assert (report.rows, report.rows_left) == (1, 0)
    tokens = "SELECT left(masked_ip, 3), left(masked_device_id, 3) FROM user_logins_p202501"
    assert rows(database, tokens) == [("v2_", "v2_")]


async def test_rows_that_move_between_partitions_meanwhile_are_erased(
    settings: MakeSettings, database: str
) -> None:
    """From a partition that was not searched yet into one that was."""
    chosen = settings(**ON)
    await prepared(chosen, database, LISTED)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", device_type="b"), message("bob", device_type="a")])
    with psycopg.connect(database) as mover:
        mover.execute("UPDATE user_logins SET device_type = 'a' WHERE user_id = 'ann'")
        report = await while_it_waits(database, asyncio.create_task(forget(chosen, "ann")), mover)
    assert (report.report.rows_changed, report.report.found) == (1, 1)
    assert rows(database, CLEARED) == [(1, 0, 1)]


async def test_a_conversion_and_an_erasure_at_once(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, [message("ann"), message("bob")])
    rows(
        database,
        "INSERT INTO user_logins (user_id, masked_ip, create_date) SELECT 'ann', 'v1_' || n,"
        " date '2023-01-01' + n % 700 FROM generate_series(1, 20000) n;"
        "UPDATE sqs2pg.target SET baseline_rows = 20000;"
        "UPDATE sqs2pg.pipeline SET baseline_rows = 20000",
    )
    chosen = settings(**ON, **BY_DATE)

    async def converted() -> int:
        async with opened(chosen) as session:
            return (await convert(session, chosen, "user_logins", lambda _: None)).periods

    periods, done = await asyncio.gather(converted(), forget(chosen, "ann"))
    assert periods > 20
    assert done.report.rows_left == 0
    assert rows(database, THEIRS) == [(0,)]
    assert rows(database, CLEARED) == [(20_001, 0, 1)]
    async with opened(chosen) as session:
        assert (await verify(session, 1)).differences == []


async def test_rows_that_belong_to_another_partition_by_their_random_id_are_moved(
    settings: MakeSettings, database: str
) -> None:
    """The person's column, and a masked one, are what partitions are chosen by."""
    columns = LISTED.partition(" PARTITION")[0]
    by_hash = "".join(
        f";CREATE TABLE p{n} PARTITION OF user_logins FOR VALUES WITH (MODULUS 4, REMAINDER {n})"
        for n in range(4)
    )
    chosen = settings(**ON)
    await prepared(
        chosen, database, f"{columns} PARTITION BY HASH (user_id, masked_device_id){by_hash}"
    )
    people = [message(f"p{n}", device=str(n)) for n in range(12)]
    async with Pipeline(chosen) as ready:
        await write(ready, people)
    rotate(chosen, database, "pseudonym")
    assert (await rekey(chosen)).rows == 12
    done = await forget(chosen, *(f"p{n}" for n in range(10)))
    assert (done.report.rows_changed, done.report.rows_left) == (10, 0)
    left = rows(database, "SELECT user_id FROM user_logins WHERE masked_ip IS NOT NULL ORDER BY 1")
    assert left == [("p10",), ("p11",)]


async def test_what_cannot_be_reached_is_named(settings: MakeSettings, database: str) -> None:
    chosen = settings(**ON)
    await prepared(chosen, database, LISTED)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", device_type="b")])
    rows(
        database,
        "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER far FOREIGN DATA WRAPPER away;"
        "CREATE FOREIGN TABLE part_far PARTITION OF user_logins FOR VALUES IN ('c') SERVER far;"
        "CREATE TABLE part_d PARTITION OF user_logins FOR VALUES IN ('d');"
        "ALTER TABLE user_logins DETACH PARTITION part_d; CREATE TABLE other (user_id text)",
    )
    report: Erased = (await forget(chosen, "ann")).report
    assert report.rows_changed == 1
    assert report.tables == {"public.user_logins": 1}
    assert report.tables_skipped == ["public.part_far"]
    assert report.tables_alike == ["public.part_d"]


async def test_another_target_of_the_same_columns_is_none_that_remains(
    settings: MakeSettings, database: str
) -> None:
    fields = [
        {"source": "user_id", "column": "user_id", "required": True},
        {"source": "ip", "column": "masked_ip", "mask": "pseudonymize", "kind": "ip"},
    ]
    routes = [
        {"table": "first", "when": {"field": "kind", "equals": "a"}, "field": fields},
        {"table": "second", "field": fields},
    ]
    chosen = settings(**ON, route=routes)
    await prepared(chosen, database)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann", kind="a"), message("ann", kind="b")])
    rows(database, "CREATE TABLE copied AS TABLE first")
    report = (await forget(chosen, "ann")).report
    assert report.tables == {"public.first": 1, "public.second": 1}
    assert report.tables_alike == ["public.copied"]


async def test_rows_that_keep_coming_leave_the_erasure_open(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON)
    async with pipeline(**ON) as ready:
        await write(ready, [message("ann")])
    # Whoever clears a row of ann's meets another one.
    rows(
        database,
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO user_logins (user_id) SELECT 'ann' WHERE OLD.user_id = 'ann';"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER again AFTER UPDATE ON user_logins FOR EACH ROW EXECUTE FUNCTION again()",
    )
    report = (await forget(chosen, "ann")).report
    assert (report.found, report.rows_left) == (1, 1)
    still_open = "SELECT count(*) FROM pii.erasure WHERE finished_at IS NULL"
    assert rows(database, still_open) == [(1,)]
    rows(database, "DROP FUNCTION again() CASCADE")
    report = (await forget(chosen, "ann")).report
    assert (report.found, report.rows_left, report.rows_changed) == (1, 0, 1)
    assert rows(database, still_open) == [(0,)]
    assert rows(database, "SELECT count(DISTINCT user_id) FROM user_logins") == [(1,)]

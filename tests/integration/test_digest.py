"""`verify --deep`: which rows a table holds, whoever of us changed them, and whoever did not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from sqs2pg.cli.doctor.check_target import check_targets
from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.quarantine import replay_selected
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.message import Message, Outcome
from sqs2pg.postgres.accepted_rows import AcceptedRows, accept_rows
from sqs2pg.postgres.migrate import migrate
from sqs2pg.postgres.partitions import convert, extend
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.verify import VerifyReport, verify
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration import vault_support
from tests.integration.state_support import write
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_state_tables import FIELDS, TABLE, UPSERT, delete, order
from tests.integration.test_vault_rotation import forget, rekey
from tests.integration.vault_support import ON, login_of, message, rotate
from tests.waiting import BLOCKED, until

MakeSettings = Callable[..., Settings]
KEPT = UPSERT
OFF = UPSERT | {"digest": False}
LOGINS: dict[str, Any] = {"key": ["user_id", "masked_ip", "masked_device_id"]}
TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^sqs2pg_digest_'"
CHANGES = "SELECT count(*) FROM sqs2pg.digest_change"


async def deep(settings: Settings) -> VerifyReport:
    async with opened(settings) as session:
        [(number,)] = await session.execute("SELECT max(id) FROM sqs2pg.pipeline")
        return await verify(session, number, deep=True)


async def agrees(settings: Settings) -> bool:
    report = await deep(settings)
    assert (report.differences, report.notes) == ([], [])
    return True


async def differs(settings: Settings) -> str:
    [told] = (await deep(settings)).differences
    return told


async def accept(settings: Settings) -> list[AcceptedRows]:
    async with opened(settings) as session:
        [(number,)] = await session.execute("SELECT max(id) FROM sqs2pg.pipeline")
        return await accept_rows(session, number, reason="a test")


@pytest.fixture
def orders(migrated_database: str) -> None:
    rows(migrated_database, TABLE)


OTHERS = [
    "DELETE FROM orders WHERE order_id = 'a'; INSERT INTO orders VALUES ('x', 2)",
    "UPDATE orders SET version = 3 WHERE order_id = 'a'",
    "UPDATE orders SET order_id = 'x' WHERE order_id = 'a'",
    "UPDATE orders SET version = CASE order_id WHEN 'a' THEN 1 ELSE 2 END",
]


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("theirs", OTHERS)
async def test_a_row_of_others_in_the_place_of_ours_is_seen(
    pipeline: Assemble, settings: MakeSettings, database: str, theirs: str
) -> None:
    chosen = settings(sink=KEPT, field=FIELDS)
    async with pipeline(sink=KEPT, field=FIELDS) as ready:
        await write(ready, order("a", 1), order("b", 1), order("c", None))
        await write(ready, order("a", 2), order("b", 0), order("d", 1))
        assert await agrees(chosen)
        rows(database, theirs)
        async with opened(chosen) as session:
            assert (await verify(session, ready.sink_plan.id)).ok  # the count is the same
        assert "by the digest of key and version" in await differs(chosen)
        [accepted] = await accept(chosen)
        assert (accepted.found, accepted.expected, accepted.others) == (4, 4, True)
        assert await agrees(chosen)
        with pytest.raises(FatalFault):
            await accept(chosen)
        await write(ready, order("b", 9), order("e", 1))
        assert await agrees(chosen)


@pytest.mark.usefixtures("orders")
async def test_deletes_ignored_rows_and_rejected_rows_are_followed(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    rows(database, "ALTER TABLE orders ADD CHECK (state <> 'bad')")
    when = KEPT | {"delete_when": {"field": "op", "equals": "delete"}}
    chosen = settings(sink=when, field=FIELDS)
    async with pipeline(sink=when, field=FIELDS) as ready:
        await write(ready, order("a", 1), order("b", 1))
        await write(ready, delete("a", 2), order("b", 2), order("a", 1), order("c", 1))
        outcomes, _ = await write(ready, order("d", 1, "bad"), order("e", 1), order("b", 3))
        assert outcomes.count(Outcome.QUARANTINED) == 1
        assert rows(database, "SELECT count(*) FROM orders") == [(3,)]
        assert await agrees(chosen)


@pytest.mark.usefixtures("orders")
async def test_a_log_with_a_key_and_a_mode_that_changes(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    rows(database, "INSERT INTO orders VALUES ('old', 1)")
    log = {"table": "orders", "key": ["order_id"]}
    async with pipeline(sink=log, field=FIELDS) as ready:
        await write(ready, order("a", 1), order("b", 1))
        assert await agrees(settings(sink=log, field=FIELDS))
    rows(database, "DELETE FROM orders WHERE order_id = 'b'")
    chosen = settings(sink=log | {"mode": "ignore"}, field=FIELDS)
    async with opened(chosen) as session:
        await migrate(session, chosen, change_mode=True)
        assert await migrate(session, chosen, change_mode=True) == []
    assert await agrees(chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, order("a", 2), order("c", 1))
        assert await agrees(chosen)


@pytest.mark.usefixtures("orders")
async def test_it_is_kept_unless_the_settings_switch_it_off(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(sink=OFF, field=FIELDS) as ready:
        await write(ready, order("a", 1))
        assert rows(database, TRIGGERS) == rows(database, CHANGES) == [(0,)]
        with pytest.raises(SettingsError) as refused:
            await deep(settings(sink=OFF, field=FIELDS))
        assert refused.value.code == "no_digest"
    async with pipeline(sink=KEPT, field=FIELDS) as ready:
        await write(ready, order("a", 2))
        assert rows(database, TRIGGERS) == [(3,)]
        assert rows(database, CHANGES) == [(1,)]
        rows(database, "UPDATE sqs2pg.digest_change SET at = now() - interval '2 days'")
        await write(ready, order("b", 2))
        rows(database, "SELECT sqs2pg.compact_tally()")
        assert rows(database, CHANGES) == [(2,)]
        assert await agrees(settings(sink=KEPT, field=FIELDS))
    async with pipeline(sink=OFF, field=FIELDS):
        assert rows(database, TRIGGERS) == rows(database, CHANGES) == [(0,)]
    log = {"table": "orders", "key": ["order_id"], "digest": False}
    chosen = settings(name="log", sink=log, field=FIELDS)
    async with opened(chosen) as session:
        assert not [line for line in await migrate(session, chosen) if "digest" in line]
    with pytest.raises(SettingsError) as refused:
        settings(sink={"table": "orders", "digest": True}, field=FIELDS)
    assert refused.value.code == "write_mode"


@pytest.mark.usefixtures("orders")
async def test_every_pipeline_of_the_table_and_replays_are_followed(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(name="one", sink=KEPT, field=FIELDS)
    async with (
        pipeline(name="one", sink=KEPT, field=FIELDS) as one,
        pipeline(name="two", sink=OFF, field=FIELDS) as two,
    ):
        rows(database, "ALTER TABLE orders ADD CONSTRAINT small CHECK (total < 10)")
        await write(one, order("a", 1), order("b", 1, total=11))
        await write(two, order("a", 2), order("c", 1))
        rows(database, "ALTER TABLE orders DROP CONSTRAINT small")
        await replay_selected(chosen, Selection())
        assert rows(database, "SELECT count(*) FROM orders") == [(3,)]
        assert await agrees(chosen)


@pytest.mark.usefixtures("orders")
async def test_it_begins_between_two_batches(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    chosen = settings(sink=KEPT, field=FIELDS)
    async with pipeline(sink=OFF, field=FIELDS) as ready:
        with psycopg.connect(database) as batch:
            batch.execute("INSERT INTO orders VALUES ('open', 1)")
            batch.execute(
                "INSERT INTO sqs2pg.tally (pipeline, target_rows) VALUES (%s, 1)",
                [ready.sink_plan.id],
            )
            async with opened(chosen) as session:
                task = asyncio.create_task(migrate(session, chosen))
                await until(lambda: rows(database, BLOCKED) != [(0,)], during=task)
                batch.commit()
                await task
        await write(ready, order("a", 1))
    assert await agrees(chosen)


@pytest.mark.usefixtures("orders")
async def test_who_only_ingests_writes_and_reads_no_secret(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(sink=KEPT, field=FIELDS):
        pass
    with login_of(database, "sqs2pg_ingest") as dsn:
        async with Pipeline(settings(sink=KEPT | {"dsn": dsn}, field=FIELDS)) as ready:
            await write(ready, order("a", 1), order("b", 1))
            await write(ready, order("a", 2))
        for statement in ("TABLE sqs2pg.digest", "TABLE sqs2pg.digest_change"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                rows(dsn, statement)
    assert await agrees(settings(sink=KEPT, field=FIELDS))


# -- erasures, rotations, partitions ------------------------------------------------------------

PEOPLE = [message(f"user-{n}", device=str(n)) for n in range(4)]


async def filled(chosen: Settings, messages: list[Message]) -> None:
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        await vault_support.write(ready, messages)


@pytest.mark.parametrize("more", [{}, {"partition_by": "create_date"}], ids=["plain", "parts"])
@pytest.mark.parametrize("delete_rows", [False, True])
async def test_erasures_are_followed(
    settings: MakeSettings, more: dict[str, str], delete_rows: bool
) -> None:
    chosen = settings(**ON, sink=LOGINS | more)
    await filled(chosen, PEOPLE)
    assert await agrees(chosen)
    done = await forget(chosen, "user-1", delete_rows=delete_rows)
    assert done.report.rows_changed + done.report.rows_deleted == 1
    assert await agrees(chosen)


async def test_a_partition_that_others_attached_is_followed(
    settings: MakeSettings, database: str
) -> None:
    chosen = settings(**ON, sink=LOGINS | {"partition_by": "create_date"})
    await filled(chosen, [])
    rows(
        database,
        "CREATE TABLE theirs PARTITION OF user_logins FOR VALUES FROM ('2025-01-01')"
        " TO ('2025-02-01')",
    )
    dated = [message(who, create_date="2025-01-05") for who in ("ann", "bob")]
    async with Pipeline(chosen) as ready:
        await vault_support.write(ready, dated)
    await forget(chosen, "ann")
    assert rows(database, "SELECT count(*) FROM theirs WHERE masked_ip IS NULL") == [(1,)]
    assert await agrees(chosen)


@pytest.mark.parametrize("more", [{}, {"partition_by": "create_date"}], ids=["plain", "parts"])
async def test_rotations_are_followed(
    settings: MakeSettings, database: str, more: dict[str, str]
) -> None:
    chosen = settings(**ON, sink=LOGINS | more)
    await filled(chosen, PEOPLE)
    rotate(chosen, database, "pseudonym")
    assert (await rekey(chosen)).rows == 4
    assert await agrees(chosen)


async def test_partitions_and_retention_are_followed(settings: MakeSettings, database: str) -> None:
    plain = settings(sink=LOGINS)
    days = ["2021-03-05", "2021-03-06", "2021-04-01", None]
    dated = [message(f"u{n}", create_date=day) for n, day in enumerate(days)]
    await filled(plain, dated[:2])
    chosen = settings(sink=LOGINS | {"partition_by": "create_date"})
    async with opened(chosen) as session:
        await convert(session, chosen, "user_logins", lambda _: None)
        assert await agrees(chosen)
        await filled(chosen, dated[2:])
        assert await agrees(chosen)
        await convert(session, chosen, "user_logins", lambda _: None)
        assert await agrees(chosen)
        await filled(chosen, [message("late", create_date="2021-05-01")])
        assert await agrees(chosen)
        rows(
            database,
            "UPDATE user_logins SET create_date = NULL WHERE create_date = '2021-04-01';"
            "UPDATE sqs2pg.partitioned SET retention_days = 60",
        )
        done = await extend(session)
        assert (done.dropped, done.rows_removed) == (3, 1)
    assert await agrees(chosen)
    rows(database, "DELETE FROM user_logins WHERE user_id = 'u2'")
    assert len((await deep(chosen)).differences) == 2  # the count, and the digest


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("CREATE VIEW {} AS TABLE kept", "no plain table"),
        ("CREATE FOREIGN TABLE {} (LIKE kept) SERVER away", "no plain table"),
    ],
)
async def test_what_no_digest_can_be_kept_of_is_refused(
    settings: MakeSettings, database: str, migrated_database: str, table: str, why: str
) -> None:
    rows(
        database,
        "ALTER TABLE user_logins RENAME TO kept; CREATE FOREIGN DATA WRAPPER none;"
        "CREATE SERVER away FOREIGN DATA WRAPPER none;"
        + table.format("user_logins")
        + (
            ";CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER f INSTEAD OF INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION f()"
            if "VIEW" in table
            else ""
        ),
    )
    asked = settings(sink=LOGINS | {"digest": True}, name="another")
    async with opened(asked) as session:
        with pytest.raises(SettingsError) as refused:
            await migrate(session, asked)
    if "VIEW" not in table:
        return  # rows cannot be written to it
    assert refused.value.code == "target_digest"
    assert why in refused.value.what
    chosen = settings(sink=LOGINS, name="another")
    async with opened(chosen) as session:
        for _ in range(2):
            [told] = [line for line in await migrate(session, chosen) if "digest" in line]
            assert told.startswith("look: ")
            assert why in told
        context = Context()
        context._settings, context._session = chosen, session  # noqa: SLF001
        [found] = [one for one in await check_targets(context) if one.name.endswith(" digest")]
        assert (found.status, why in found.detail) == ("ok", True)


@pytest.mark.usefixtures("orders")
async def test_a_login_that_may_make_no_triggers_keeps_none(
    settings: MakeSettings, database: str
) -> None:
    """It owns the schema, and the table is another role's."""
    rows(
        database,
        "DROP SCHEMA sqs2pg CASCADE; DROP SCHEMA pii CASCADE; CREATE ROLE theirs_of_orders;"
        "ALTER TABLE orders OWNER TO theirs_of_orders",
    )
    rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON orders"
    with login_of(database) as dsn:
        name = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
        rows(database, f"{rights} TO {name}")
        rows(
            database,
            f"DO 'BEGIN EXECUTE format(''GRANT CREATE ON DATABASE %I TO {name}'',"
            " current_database()); END'",
        )
        try:
            chosen = settings(sink=UPSERT | {"dsn": dsn}, field=FIELDS)
            async with opened(chosen) as session:
                [told] = [line for line in await migrate(session, chosen) if "digest" in line]
                assert "look: " in told
                assert "belongs to theirs_of_orders" in told
                asked = settings(sink=UPSERT | {"dsn": dsn, "digest": True}, field=FIELDS)
                with pytest.raises(SettingsError, match="no triggers") as refused:
                    await migrate(session, asked)
                assert refused.value.code == "target_digest"
                rows(database, f"GRANT TRIGGER ON orders TO {name}")
                assert "keeps a digest of orders by order_id, version" in await migrate(
                    session, chosen
                )
            async with Pipeline(chosen) as ready:
                await write(ready, order("a", 1))
            assert await agrees(chosen)
        finally:
            rows(
                database,
                f"DROP OWNED BY {name} CASCADE; DROP TABLE orders;DROP ROLE theirs_of_orders",
            )

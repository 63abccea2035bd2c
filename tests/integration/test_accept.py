"""`verify --accept`: others changed a table's rows on purpose; and what `verify` does not see."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.postgres.accepted_rows import AcceptedRows, accept_rows
from sqs2pg.postgres.connection import Session
from sqs2pg.runners.pipeline import Pipeline
from tests.integration.support import Assemble, books, receive, rows, send
from tests.integration.test_targets import ROUTES, balanced, order
from tests.integration.vault_support import login_of
from tests.logins import login
from tests.waiting import BLOCKED, until

TARGET = "public.user_logins"
ACCEPT = "`sqs2pg verify --accept --reason TEXT`"
ACTS = "SELECT act, subject, reason, ticket, role = session_user FROM sqs2pg.audit ORDER BY 1, 2"
ROLES = ("sqs2pg_ingest", "sqs2pg_analyst", "sqs2pg_revealer", "sqs2pg_auditor")


async def accept(
    database: str, pipeline: int, *, reason: str = "archived by hand", table: str = ""
) -> list[AcceptedRows]:
    session = await Session.connect(database)
    try:
        return await accept_rows(session, pipeline, reason=reason, ticket="T-1", table=table)
    finally:
        await session.close()


async def write(ready: Pipeline, *bodies: str) -> None:
    await send(ready, list(bodies))
    await ready.processors[0].process(await receive(ready, len(bodies)))


async def test_a_difference_is_accepted_once_and_compared_from_there_on(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        number = ready.sink_plan.id
        await write(ready, *(login(i) for i in range(5)))
        rows(database, "DELETE FROM user_logins WHERE user_id IN ('u1', 'u2')")
        [told] = (await books(database, number)).differences
        assert f"rows of {TARGET}, counted" in told
        assert (
            f"3 found, 5 expected (-2); if others deleted rows on purpose, record it: {ACCEPT}"
            in told
        )
        assert await accept(database, number) == [AcceptedRows(TARGET, 3, 5)]
        assert await balanced(database, number)
        await write(ready, login(7))
        assert await balanced(database, number)
        rows(database, "INSERT INTO user_logins (user_id) VALUES ('x')")
        [told] = (await books(database, number)).differences
        assert "(+1); if others added rows on purpose" in told
        assert await accept(database, number) == [AcceptedRows(TARGET, 5, 4)]
        with pytest.raises(FatalFault) as refused:
            await accept(database, number)
        assert refused.value.code == "nothing_to_accept"
    assert rows(database, ACTS) == [
        (
            "accept_difference",
            f"{TARGET}: 3 rows found, 5 expected (-2)",
            "archived by hand",
            "T-1",
            True,
        ),
        (
            "accept_difference",
            f"{TARGET}: 5 rows found, 4 expected (+1)",
            "archived by hand",
            "T-1",
            True,
        ),
    ]


@pytest.mark.parametrize("reason", ["", " \t", "two\nlines", "x" * 501])
async def test_a_reason_is_required(pipeline: Assemble, database: str, reason: str) -> None:
    async with pipeline() as ready:
        rows(database, "INSERT INTO user_logins (user_id) VALUES ('x')")
        with pytest.raises(SettingsError):
            await accept(database, ready.sink_plan.id, reason=reason)
        assert not (await books(database, ready.sink_plan.id)).ok
        assert rows(database, ACTS) == []


async def test_each_table_is_accepted_by_itself(pipeline: Assemble, database: str) -> None:
    async with pipeline(name="shop", route=ROUTES, unmatched="drop") as ready:
        number = ready.sink_plan.id
        await write(ready, order(1, "a", "b"))
        names = [target.name for target in ready.sink_plan.targets]
        for name in names:
            rows(database, f"TRUNCATE {name}")
        before = (await books(database, number)).differences
        assert len(before) == 2
        with pytest.raises(SettingsError, match="no table 'nowhere'"):
            await accept(database, number, table="nowhere")
        strange, plain = names[1], names[0].removeprefix("public.")
        assert await accept(database, number, table=strange) == [AcceptedRows(strange, 0, 2)]
        assert await accept(database, number, table=plain) == [AcceptedRows(names[0], 0, 1)]
        assert await balanced(database, number)


async def test_a_table_of_two_pipelines_has_one_baseline(pipeline: Assemble, database: str) -> None:
    async with pipeline(name="one") as one, pipeline(name="two") as two:
        await write(one, login(1))
        await write(two, login(2))
        rows(database, "DELETE FROM user_logins")
        assert await accept(database, two.sink_plan.id) == [AcceptedRows(TARGET, 0, 2)]
        assert await balanced(database, one.sink_plan.id)
        assert await balanced(database, two.sink_plan.id)


async def test_differences_between_the_books_stay(pipeline: Assemble, database: str) -> None:
    async with pipeline() as ready:
        await write(ready, login(1), login(2))
        rows(database, "DELETE FROM sqs2pg.tally")
        assert await accept(database, ready.sink_plan.id) == [AcceptedRows(TARGET, 2, 0)]
        [told] = (await books(database, ready.sink_plan.id)).differences
        assert told.startswith("messages written, ledger against tally: 2 found, 0 expected")
        rows(database, "DELETE FROM sqs2pg.delivery")
        with pytest.raises(FatalFault) as refused:
            await accept(database, ready.sink_plan.id)
        assert refused.value.code == "nothing_to_accept"


async def test_two_that_accept_at_once_move_the_baseline_once(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        number = ready.sink_plan.id
        await write(ready, login(1), login(2))
        rows(database, "DELETE FROM user_logins WHERE user_id = 'u1'")
        async with await psycopg.AsyncConnection.connect(database) as batch:
            # A batch that has not committed yet has no part in the difference.
            await batch.execute("INSERT INTO user_logins (user_id) VALUES ('u9')")
            await batch.execute(
                "INSERT INTO sqs2pg.tally (pipeline, target_rows, rows_inserted) VALUES (%s, 1, 1)",
                [number],
            )
            await batch.execute("LOCK TABLE sqs2pg.target IN ROW EXCLUSIVE MODE")
            both = [asyncio.create_task(accept(database, number)) for _ in range(2)]
            await until(lambda: rows(database, BLOCKED) == [(2,)])
            await batch.rollback()
        ended = await asyncio.gather(*both, return_exceptions=True)
        faults = [one for one in ended if isinstance(one, FatalFault)]
        assert [one for one in ended if isinstance(one, list)] == [[AcceptedRows(TARGET, 1, 2)]]
        assert [fault.code for fault in faults] == ["nothing_to_accept"]
        assert await balanced(database, number)


async def test_an_open_batch_has_no_part_in_the_difference(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        number = ready.sink_plan.id
        await write(ready, login(1), login(2))
        rows(database, "DELETE FROM user_logins WHERE user_id = 'u1'")
        async with await psycopg.AsyncConnection.connect(database) as batch:
            await batch.execute("INSERT INTO user_logins (user_id) VALUES ('u9')")
            await batch.execute(
                "INSERT INTO sqs2pg.tally (pipeline, target_rows, rows_inserted) VALUES (%s, 1, 1)",
                [number],
            )
            assert await accept(database, number) == [AcceptedRows(TARGET, 1, 2)]
        assert await balanced(database, number)


@pytest.mark.parametrize("role", ROLES)
async def test_only_the_owner_accepts(pipeline: Assemble, database: str, role: str) -> None:
    async with pipeline() as ready:
        await write(ready, login(1))
        rows(database, "DELETE FROM user_logins")
        with login_of(database, role) as conninfo:
            with pytest.raises(FatalFault) as refused:
                await accept(conninfo, ready.sink_plan.id)
            assert refused.value.code == "postgres_42501"
            assert "only the owner of the schema sqs2pg" in refused.value.hint
        assert not (await books(database, ready.sink_plan.id)).ok
        assert rows(database, ACTS) == []


UPSERTED = """CREATE UNIQUE INDEX ON user_logins (user_id);
CREATE VIEW newest AS SELECT * FROM user_logins;
CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    INSERT INTO user_logins SELECT NEW.* ON CONFLICT (user_id) DO UPDATE SET locale = NEW.locale;
    RETURN NEW;
END$$;
CREATE TRIGGER put INSTEAD OF INSERT ON newest FOR EACH ROW EXECUTE FUNCTION put()"""


async def test_a_view_is_said_and_is_no_difference(pipeline: Assemble, database: str) -> None:
    rows(database, UPSERTED)
    async with pipeline(name="newest", sink={"table": "newest"}) as ready:
        await write(ready, login(1))
        await write(ready, login(1))
        report = await books(database, ready.sink_plan.id)
        assert (report.written, report.differences) == (2, [])
        [note] = report.notes
        assert note.startswith("public.newest: it is a view")
        with pytest.raises(FatalFault) as refused:
            await accept(database, ready.sink_plan.id)
        assert refused.value.code == "nothing_to_accept"


async def test_a_table_that_others_update_is_said(pipeline: Assemble, database: str) -> None:
    async with pipeline() as ready:
        await write(ready, login(1), login(2))
        assert (await books(database, ready.sink_plan.id)).notes == []
        with login_of(database) as conninfo, login_of(database, "sqs2pg_ingest") as own:
            name, ours = (conninfo_to_dict(c)["user"] for c in (conninfo, own))
            rows(database, f"GRANT UPDATE, SELECT ON user_logins TO {ours}")
            assert (await books(database, ready.sink_plan.id)).notes == []
            rows(database, f"GRANT UPDATE (locale) ON user_logins TO {name}")
            rows(conninfo, "UPDATE user_logins SET locale = 'xx'")
            report = await books(database, ready.sink_plan.id)
            assert report.ok
            [note] = report.notes
            assert note == (
                f"{TARGET}: others may update its rows ({name}), and verify does not see changes"
            )
            rows(database, "GRANT UPDATE ON user_logins TO PUBLIC")
            [note] = (await books(database, ready.sink_plan.id)).notes
            assert f"(PUBLIC, {name})" in note


async def test_a_login_that_row_security_applies_to_accepts_nothing(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline() as ready:
        await write(ready, login(1), login(2))
        number = ready.sink_plan.id
        with login_of(database) as conninfo:
            # It owns what the owner does, as far as accepting goes, but sees one row of the table.
            name = conninfo_to_dict(conninfo)["user"]
            rows(
                database,
                f"""GRANT ALL ON SCHEMA sqs2pg TO {name};
GRANT ALL ON ALL TABLES IN SCHEMA sqs2pg TO {name};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sqs2pg TO {name}; GRANT SELECT ON user_logins TO {name};
ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON user_logins FOR SELECT TO {name} USING (user_id = 'u1')""",
            )
            [told] = (await books(conninfo, number)).differences
            assert told.endswith("may hide rows from it: verify with one that has BYPASSRLS")
            with pytest.raises(FatalFault) as refused:
                await accept(conninfo, number)
            assert refused.value.code == "rows_hidden"
        assert await balanced(database, number)
        assert rows(database, ACTS) == []


async def test_a_dropped_table_is_a_difference_until_it_is_accepted(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(name="shop", route=ROUTES, unmatched="drop") as ready:
        number = ready.sink_plan.id
        await write(ready, order(1, "a"))
        rows(database, "DROP TABLE orders")
        [told] = (await books(database, number)).differences
        assert "0 found, 1 expected (-1); if others dropped the table on purpose, record" in told
        assert await accept(database, number) == [AcceptedRows("public.orders", 0, 1)]
        assert await balanced(database, number)

"""Tables that COPY does not write: the same rows, outcomes and books, by INSERT."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.cli.quarantine import replay_selected
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.message import Outcome
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.staging import StagedInsert
from sqs2pg.runners.assembly import Processing, assemble_processors
from sqs2pg.settings import Settings
from tests.integration.state_support import write
from tests.integration.support import Assemble, rows
from tests.integration.test_targets import balanced
from tests.integration.test_vault_rotation import forget
from tests.integration.vault_support import ON, login_of
from tests.logins import login

Start = Callable[..., AbstractAsyncContextManager[Processing]]

SECURE = """ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY;
CREATE POLICY admits ON user_logins FOR INSERT TO sqs2pg_ingest WITH CHECK (locale <> 'XX')"""
USERS = "SELECT user_id FROM user_logins ORDER BY ctid"
REASONS = "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2"


@pytest.fixture
def ingest(pipeline: Assemble, database: str) -> Iterator[str]:
    """A login that may only ingest: row-level security applies to it."""

    async def migrated_and_keys_recorded() -> None:
        async with pipeline():
            pass

    asyncio.run(migrated_and_keys_recorded())
    with login_of(database, "sqs2pg_ingest") as dsn:
        yield dsn


@pytest.fixture
def started(settings: Callable[..., Settings], ingest: str) -> Start:
    """Return what starts the pipeline as that login; it takes more settings of `[sink]`."""

    @asynccontextmanager
    async def start(**sink: Any) -> AsyncIterator[Processing]:
        chosen = settings(sink={"dsn": ingest} | sink)
        async with assemble_processors(chosen, ["127.0.0.1"]) as ready:
            yield ready

    return start


def reason(ready: Processing) -> str:
    """Return why the first target is written by INSERT."""
    staging = ready.sink_plan.targets[0].staging
    assert isinstance(staging, StagedInsert)
    return staging.reason


async def test_a_policy_admits_rows_and_refuses_one(started: Start, database: str) -> None:
    rows(database, SECURE)
    async with started() as ready:
        assert "row-level security" in reason(ready)
        assert await ready.processors[0].sink.rehearse() is None
        outcomes, done = await write(ready, *(login(n, locale="DE") for n in range(5)))
        assert (set(outcomes), done.inserted) == ({Outcome.WRITTEN}, 5)
        bodies = [login(n, locale="XX" if n == 17 else "DE") for n in range(5, 45)]
        outcomes, done = await write(ready, *bodies, '{"user_id": 3}')
        assert outcomes.count(Outcome.QUARANTINED) == 2
        assert (outcomes[12], done.inserted) == (Outcome.QUARANTINED, 39)
        assert rows(database, REASONS) == [
            ("rejected_by_database", "42501 row_security"),
            ("wrong_type", "user_id"),
        ]
        assert await balanced(database, ready.sink_plan.id)


async def test_rows_keep_their_order_and_a_redelivery_is_a_duplicate(
    started: Start, database: str
) -> None:
    rows(database, SECURE)
    async with started() as ready:
        names = [f"u-{number:03}" for number in range(300)]
        await write(ready, *(login(1, user_id=name, locale="DE") for name in names))
        assert [user for (user,) in rows(database, USERS)] == names
        # What remains on a slow path is in its order, too, though parts are written and undone.
        later = [f"v-{number:03}" for number in range(300)]
        bodies = [login(1, user_id=name, locale="DE") for name in later]
        bodies[50:50] = [login(1, user_id="bad", locale="XX")]
        bodies[280:280] = [login(1, user_id="bad", locale="XX")]
        await write(ready, *bodies)
        assert [user for (user,) in rows(database, USERS)] == names + later
        assert await balanced(database, ready.sink_plan.id)


async def test_no_policy_refuses_the_start(started: Start, database: str) -> None:
    rows(database, f"{SECURE}; DROP POLICY admits ON user_logins")
    with pytest.raises(SettingsError) as refused:
        async with started():
            pass
    assert refused.value.code == "target_policy"
    # Policies of others, on reads, or that only restrict do not help.
    rows(
        database,
        """CREATE POLICY a ON user_logins FOR SELECT USING (true);
        CREATE POLICY b ON user_logins FOR INSERT TO sqs2pg_analyst WITH CHECK (true);
        CREATE POLICY c ON user_logins AS RESTRICTIVE FOR INSERT WITH CHECK (true)""",
    )
    with pytest.raises(SettingsError):
        async with started():
            pass
    rows(database, "CREATE POLICY d ON user_logins USING (false) WITH CHECK (true)")
    async with started() as ready:
        outcomes, _ = await write(ready, login(1))
        assert outcomes == [Outcome.WRITTEN]


async def test_a_policy_that_refuses_every_row_stops_it(started: Start, database: str) -> None:
    rows(database, SECURE)
    async with started() as ready:
        with pytest.raises(FatalFault) as refused:
            await write(ready, *(login(n, locale="XX") for n in range(300)))
        assert refused.value.code == "all_rejected"
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


async def test_an_owner_and_a_login_that_bypasses_it_go_on_with_copy(
    pipeline: Assemble, started: Start, database: str, ingest: str
) -> None:
    rows(database, SECURE)
    async with pipeline() as made:  # the superuser
        assert made.sink_plan.targets[0].staging is None
    role = conninfo_to_dict(ingest)["user"]
    rows(database, f"ALTER ROLE {role} BYPASSRLS")
    async with started() as ready:
        assert ready.sink_plan.targets[0].staging is None
        outcomes, _ = await write(ready, login(1))
        assert outcomes == [Outcome.WRITTEN]


async def test_row_security_that_comes_while_it_runs_is_followed(
    started: Start, database: str
) -> None:
    async with started() as ready:
        outcomes, _ = await write(ready, login(1))
        assert outcomes == [Outcome.WRITTEN]
        rows(database, SECURE)
        outcomes, _ = await write(ready, login(2, locale="DE"))
        assert outcomes == [Outcome.RELEASED], "COPY is refused once"
        outcomes, _ = await write(ready, login(2, locale="DE"))
        assert outcomes == [Outcome.WRITTEN]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_partitioned_table_under_row_security(started: Start, database: str) -> None:
    rows(
        database,
        """ALTER TABLE user_logins RENAME TO old;
        CREATE TABLE user_logins (LIKE old) PARTITION BY RANGE (create_date);
        CREATE TABLE early (locale varchar(32), app_version integer, create_date date,
            user_id varchar(128), device_type varchar(32), masked_ip varchar(256),
            masked_device_id varchar(256));
        ALTER TABLE user_logins ATTACH PARTITION early
            FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE late PARTITION OF user_logins DEFAULT;
        GRANT INSERT ON user_logins TO sqs2pg_ingest;"""
        + SECURE,
    )
    async with started() as ready:
        bodies = [
            login(1, locale="DE", create_date="2020-05-05"),
            login(2, locale="DE", create_date="2022-05-05"),
            login(3, locale="XX", create_date="2020-05-05"),
        ]
        outcomes, _ = await write(ready, *bodies)
        assert outcomes == [Outcome.WRITTEN, Outcome.WRITTEN, Outcome.QUARANTINED]
        assert rows(database, "SELECT (SELECT count(*) FROM early), count(*) FROM late") == [(1, 1)]
        assert await balanced(database, ready.sink_plan.id)


# A rule acts as the owner of its table, so the login needs no right on `seen`.
RULE = """CREATE TABLE seen (user_id text);
CREATE RULE noted AS ON INSERT TO user_logins DO ALSO INSERT INTO seen VALUES (NEW.user_id)"""


async def test_a_rule_runs_and_the_books_hold(started: Start, database: str) -> None:
    rows(database, RULE)
    rows(database, "ALTER TABLE seen ADD CHECK (user_id <> 'bad')")
    async with started() as ready:
        assert "noted" in reason(ready)
        bodies = [login(n, user_id="bad" if n == 7 else f"u{n}") for n in range(20)]
        outcomes, done = await write(ready, *bodies)
        assert outcomes.count(Outcome.QUARANTINED) == 1
        assert done.inserted == 19
        both = "SELECT count(*), (SELECT count(*) FROM seen) FROM user_logins"
        assert rows(database, both) == [(19, 19)]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_trigger_that_swallows_rows_is_noticed_by_insert_too(
    started: Start, database: str
) -> None:
    rows(
        database,
        RULE
        + """;CREATE FUNCTION swallows() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RETURN CASE WHEN NEW.locale = 'XX' THEN NULL ELSE NEW END; END $$;
        CREATE TRIGGER swallows BEFORE INSERT ON user_logins
        FOR EACH ROW EXECUTE FUNCTION swallows()""",
    )
    async with started() as ready:
        outcomes, done = await write(
            ready, login(1, locale="DE"), login(2, locale="XX"), login(3, locale="DE")
        )
        assert outcomes[1] == Outcome.QUARANTINED
        assert done.inserted == 2
        assert rows(database, REASONS) == [("rejected_by_database", "row_suppressed")]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_policy_refuses_a_row_of_a_state_table(started: Start, database: str) -> None:
    rows(
        database,
        f"""{SECURE}; CREATE UNIQUE INDEX ON user_logins (user_id);
        CREATE POLICY reads ON user_logins FOR SELECT USING (true);
        CREATE POLICY changes ON user_logins FOR UPDATE USING (user_id <> 'fixed');
        GRANT SELECT, UPDATE ON user_logins TO sqs2pg_ingest;
        INSERT INTO user_logins (user_id) VALUES ('fixed');
        UPDATE sqs2pg.target SET mode = 'upsert'""",
    )
    async with started(mode="upsert", key=["user_id"]) as ready:
        bodies = [login(1, user_id=f"u{n % 30}", locale="DE") for n in range(40)]
        bodies[10:10] = [login(1, user_id="new", locale="XX")]
        bodies[20:20] = [login(1, user_id="fixed", locale="DE")]
        outcomes, done = await write(ready, *bodies)
        bad = [at for at, outcome in enumerate(outcomes) if outcome == Outcome.QUARANTINED]
        assert bad == [10, 20]
        assert done.inserted == 30
        assert rows(database, REASONS) == [("rejected_by_database", "42501 row_security")] * 2


VIEW = """ALTER TABLE user_logins RENAME TO kept; CREATE VIEW user_logins AS TABLE kept;
GRANT INSERT ON user_logins TO sqs2pg_ingest;"""
DIVERTS = "CREATE RULE {} AS ON INSERT TO user_logins DO INSTEAD INSERT INTO kept VALUES (NEW.*);"
REFUSED = [
    "CREATE RULE drops AS ON INSERT TO user_logins WHERE NEW.locale = 'XX' DO INSTEAD NOTHING",
    "CREATE TABLE kept (LIKE user_logins);" + DIVERTS.format("diverts"),
    VIEW + "CREATE RULE drops AS ON INSERT TO user_logins DO INSTEAD NOTHING",
    VIEW + DIVERTS.format("a") + DIVERTS.format("b"),
]


@pytest.mark.parametrize("change", REFUSED)
async def test_rules_with_which_the_books_could_not_hold_are_refused(
    started: Start, database: str, change: str
) -> None:
    rows(database, change)
    with pytest.raises(SettingsError) as refused:
        async with started():
            pass
    assert refused.value.code == "target_rule"
    assert refused.value.hint


async def test_a_state_table_with_a_rule_is_refused(started: Start, database: str) -> None:
    rows(database, "CREATE UNIQUE INDEX ON user_logins (user_id)")
    rows(database, "UPDATE sqs2pg.target SET mode = 'ignore'")
    rows(database, RULE.replace("ON INSERT TO", "ON UPDATE TO"))
    sink: dict[str, Any] = {"mode": "ignore", "key": ["user_id"]}
    with pytest.raises(SettingsError) as refused:
        async with started(**sink):
            pass
    assert (refused.value.code, "noted" in refused.value.what) == ("target_rule", True)


async def test_a_rule_is_all_that_a_view_needs(started: Start, database: str) -> None:
    rows(
        database,
        VIEW + DIVERTS.format("into_kept") + "ALTER TABLE kept ADD CHECK (locale <> 'XX')",
    )
    async with started() as ready:
        assert "into_kept" in reason(ready)
        outcomes, _ = await write(ready, login(1, locale="DE"), login(2, locale="XX"))
        assert outcomes == [Outcome.WRITTEN, Outcome.QUARANTINED]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_view_with_a_trigger_goes_on_with_copy(started: Start, database: str) -> None:
    rows(
        database,
        VIEW
        + """CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO kept VALUES (NEW.*); RETURN NEW; END $$;
        CREATE TRIGGER keeps INSTEAD OF INSERT ON user_logins
        FOR EACH ROW EXECUTE FUNCTION keeps()""",
    )
    async with started() as ready:
        assert ready.sink_plan.targets[0].staging is None
        outcomes, _ = await write(ready, login(1), login(2))
        assert outcomes == [Outcome.WRITTEN] * 2
        assert await balanced(database, ready.sink_plan.id)


async def test_a_replay_goes_the_same_way(
    started: Start, settings: Callable[..., Settings], database: str
) -> None:
    rows(database, RULE)
    rows(database, "ALTER TABLE user_logins ADD CONSTRAINT no_x CHECK (locale <> 'XX')")
    async with started() as ready:
        await write(ready, login(1, locale="XX"), login(2, locale="DE"))
        rows(database, "ALTER TABLE user_logins DROP CONSTRAINT no_x")
        done = await replay_selected(settings(), Selection())
        assert done.replayed == 1
        assert rows(database, "SELECT count(*) FROM seen") == [(2,)]
        assert await balanced(database, ready.sink_plan.id)


@pytest.fixture
def foreign(database: str, ingest: str) -> str:
    """Make the target a foreign table of a server whose table is in this database."""
    here = conninfo_to_dict(database)
    [(name,)] = rows(database, "SELECT current_database()")
    rows(
        database,
        f"""CREATE EXTENSION postgres_fdw;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw
            OPTIONS (host '{here["host"]}', port '{here["port"]}', dbname '{name}');
        CREATE USER MAPPING FOR PUBLIC SERVER far
            OPTIONS (user '{here["user"]}', password '{here.get("password", "")}');
        CREATE SCHEMA there; ALTER TABLE user_logins SET SCHEMA there;
        ALTER TABLE there.user_logins ADD CONSTRAINT no_x CHECK (locale <> 'XX');
        CREATE FOREIGN TABLE user_logins (user_id varchar(128), device_type varchar(32),
            masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),
            app_version integer, create_date date)
            SERVER far OPTIONS (schema_name 'there', batch_size '100');
        GRANT INSERT ON user_logins TO sqs2pg_ingest""",
    )
    return ingest


@pytest.mark.usefixtures("foreign")
async def test_a_foreign_table(started: Start, database: str) -> None:
    async with started() as ready:
        assert "foreign table" in reason(ready)
        assert await ready.processors[0].sink.rehearse() is None
        bodies = [login(n, locale="XX" if n == 30 else "DE") for n in range(40)]
        outcomes, done = await write(ready, *bodies)
        assert outcomes.count(Outcome.QUARANTINED) == 1
        assert outcomes[30] == Outcome.QUARANTINED
        assert done.inserted == 39
        assert rows(database, "SELECT count(*) FROM there.user_logins") == [(39,)]
        assert await balanced(database, ready.sink_plan.id)
        rows(database, "ALTER SERVER far OPTIONS (SET port '1')")
        await ready.processors[0].sink.session.close()
        outcomes, _ = await write(ready, login(50))
        assert outcomes == [Outcome.RELEASED]
        assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(1,)]


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("delete_rows", [True, False])
async def test_a_person_is_erased_from_a_foreign_table(
    pipeline: Assemble, settings: Callable[..., Settings], database: str, *, delete_rows: bool
) -> None:
    rows(database, "ALTER TABLE there.user_logins DROP CONSTRAINT no_x")
    async with pipeline(**ON) as ready:
        await write(ready, login(1, user_id="ann"), login(2, user_id="bob"))
    report = (await forget(settings(**ON), "ann", delete_rows=delete_rows)).report
    done = report.rows_deleted if delete_rows else report.rows_changed
    assert (report.found, done, report.rows_left, report.tables_skipped) == (1, 1, 0, [])
    left = rows(database, "SELECT user_id FROM there.user_logins WHERE masked_ip IS NOT NULL")
    assert left == [("bob",)]

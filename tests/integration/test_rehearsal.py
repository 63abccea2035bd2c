"""The rehearsal: what refuses every batch refuses it too, and it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import KeyFault, TransientFault
from sqs2pg.message import Outcome
from sqs2pg.postgres.rehearsal import Part
from sqs2pg.postgres.sink import Sink
from sqs2pg.runners.assembly import assemble_processors
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, receive, rows, send
from tests.integration.vault_support import ON, login_of, rotate
from tests.logins import login

BOOKS = ["sqs2pg.delivery", "sqs2pg.tally", "sqs2pg.quarantine", "pii.value", "user_logins"]


@pytest.fixture
def ingest(migrated_database: str) -> Iterator[str]:
    """A login that may only ingest."""
    with login_of(migrated_database, "sqs2pg_ingest") as dsn:
        yield dsn


@pytest.mark.parametrize("vault", [{}, ON])
async def test_it_passes_and_changes_nothing(
    pipeline: Assemble, database: str, vault: dict[str, Any]
) -> None:
    async with pipeline(**vault) as ready:
        sink = ready.processors[0].sink
        statements = sink.session.statements
        assert await sink.rehearse() is None
        assert sink.session.statements > statements
        for book in BOOKS:
            assert rows(database, f"SELECT count(*) FROM {book}") == [(0,)]
        # The session is as before: a batch goes through it.
        await send(ready, [login(1)])
        [message] = await receive(ready, 1)
        assert await ready.processors[0].process([message]) == [Outcome.WRITTEN]


REFUSALS = [
    ("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY", "0A000", "public.user_logins"),
    ("DROP TABLE user_logins", "42P01", "public.user_logins"),
    ("ALTER TABLE user_logins DROP COLUMN locale", "42703", "public.user_logins"),
    ("REVOKE INSERT ON user_logins FROM sqs2pg_ingest", "42501", "public.user_logins"),
    ("REVOKE INSERT ON sqs2pg.delivery FROM sqs2pg_ingest", "42501", "sqs2pg.delivery"),
    # The slow path's: a batch needs it only where there is a duplicate or a bad row.
    (
        "REVOKE ALL ON FUNCTION sqs2pg.mark_quarantined FROM sqs2pg_ingest",
        "42501",
        "sqs2pg.delivery",
    ),
    ("REVOKE INSERT ON sqs2pg.quarantine FROM sqs2pg_ingest", "42501", "sqs2pg.quarantine"),
    ("REVOKE INSERT ON sqs2pg.tally FROM sqs2pg_ingest", "42501", "sqs2pg.tally"),
    ("REVOKE INSERT ON pii.value FROM sqs2pg_ingest", "42501", "pii.value"),
    ("ALTER DATABASE {name} SET default_transaction_read_only = on", "25006", "sqs2pg.delivery"),
]


@pytest.mark.parametrize(("change", "sqlstate", "table"), REFUSALS)
async def test_it_names_what_refuses_every_batch(
    settings: Callable[..., Settings],
    pipeline: Assemble,
    database: str,
    ingest: str,
    change: str,
    sqlstate: str,
    table: str,
) -> None:
    async with pipeline(**ON):
        pass  # migrated
    chosen = settings(sink={"dsn": ingest}, **ON)
    async with assemble_processors(chosen, ["127.0.0.1"]) as made:
        sink = made.processors[0].sink
        assert await sink.rehearse() is None
        [[name]] = rows(database, "SELECT quote_ident(current_database())")
        rows(database, change.format(name=name))
        await sink.session.close()
        refusal = await sink.rehearse()
        assert refusal is not None
        assert (refusal.fault.sqlstate, refusal.table) == (sqlstate, table)
        # Pipelines that start together share the part on the books: the two parts miss nothing.
        parts = [await sink.rehearse(part) for part in (Part.BOOKS, Part.TARGETS)]
        first = next(filter(None, parts))
        assert (first.fault.sqlstate, first.table) == (sqlstate, table)
        assert first.needs == refusal.needs


async def test_a_trigger_for_each_statement_shows_and_one_for_each_row_does_not(
    pipeline: Assemble, database: str
) -> None:
    rows(
        database,
        """CREATE FUNCTION reads() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM FROM missing_table; RETURN NULL; END $$;
           CREATE TRIGGER reads BEFORE INSERT ON user_logins
               FOR EACH ROW EXECUTE FUNCTION reads()""",
    )
    async with pipeline() as ready:
        assert await ready.processors[0].sink.rehearse() is None
        rows(
            database,
            "CREATE TRIGGER also AFTER INSERT ON user_logins"
            " FOR EACH STATEMENT EXECUTE FUNCTION reads()",
        )
        refusal = await ready.processors[0].sink.rehearse()
        assert refusal is not None
        assert (refusal.fault.sqlstate, refusal.table) == ("42P01", "public.user_logins")


async def test_a_locked_table_refuses_it_after_the_batchs_own_timeout(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink={"statement_timeout_s": 1}) as ready:
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
            refusal = await ready.processors[0].sink.rehearse()
        assert refusal is not None
        assert refusal.fault.sqlstate in ("55P03", "57014")
        assert await ready.processors[0].sink.rehearse() is None, "it connects anew"


async def test_a_database_that_is_away_and_another_key_version_raise(
    pipeline: Assemble, settings: Callable[..., Settings], database: str
) -> None:
    async with pipeline() as ready:
        sink = ready.processors[0].sink
        rotate(ready.settings, database, "pseudonym")
        with pytest.raises(KeyFault):
            await sink.rehearse()

        async def away() -> Any:
            raise TransientFault("away", code="postgres_08001")

        await sink.session.close()
        with pytest.raises(TransientFault):
            await Sink(sink.session, ready.sink_plan, away).rehearse()

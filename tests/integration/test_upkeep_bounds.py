"""The upkeep that ingest may call: it takes its bounds from what the owner has recorded.

A login of `sqs2pg_ingest` tries to use it to delete more, or to fill the database with partitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.maintenance import maintain
from tests.integration.support import keep_ledger_days, rows
from tests.integration.vault_support import login_of

REFUSED = psycopg.errors.InsufficientPrivilege
DAYS = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sqs2pg.delivery'::regclass"
KEY = "00000000-0000-7000-8000-00000000000{}"
ENTRY = (
    "INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome)"
    f" VALUES ('{KEY}', 'm', 1, 'written')"
)


@pytest.fixture
def ingest(migrated_database: str) -> Iterator[psycopg.Connection[Any]]:
    with (
        login_of(migrated_database, "sqs2pg_ingest") as conninfo,
        psycopg.connect(conninfo, autocommit=True) as connection,
    ):
        yield connection


def call(connection: psycopg.Connection[Any], query: str) -> Any:
    [(value,)] = connection.execute(query.encode()).fetchall()
    return value


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("SELECT sqs2pg.drop_day('9999-01-01')", psycopg.errors.UndefinedFunction),
        ("SELECT sqs2pg.drop_period('x', '9999-01-01')", psycopg.errors.UndefinedFunction),
        ("SELECT sqs2pg.attach_period('public.user_logins', '2025-01-01')", REFUSED),
        ("DELETE FROM sqs2pg.quarantine", REFUSED),
        ("UPDATE sqs2pg.quarantine SET replayed_at = now()", REFUSED),
        ("DELETE FROM sqs2pg.delivery", REFUSED),
        ("UPDATE sqs2pg.delivery SET outcome = 'written'", REFUSED),
        ("DELETE FROM sqs2pg.backfill", REFUSED),
        ("INSERT INTO sqs2pg.key VALUES ('vault', 9999, repeat('f', 16), true)", REFUSED),
        ("SELECT sqs2pg.record_act('forget', 'nobody')", REFUSED),
        ("LOCK TABLE sqs2pg.delivery IN SHARE MODE", REFUSED),
        ("LOCK TABLE sqs2pg.backfill IN ACCESS EXCLUSIVE MODE", REFUSED),
        ("SELECT FROM sqs2pg.partitioned FOR UPDATE", REFUSED),
    ],
)
def test_ingest_only_adds(ingest: psycopg.Connection[Any], change: str, error: Any) -> None:
    with pytest.raises(error), ingest.transaction():
        ingest.execute(change.encode())


def test_days_are_dropped_only_past_the_longest_retention_on_record(
    ingest: psycopg.Connection[Any], database: str
) -> None:
    keep_ledger_days(database, 14)
    rows(
        database,
        "INSERT INTO sqs2pg.pipeline (name, target, baseline_rows, ledger_retention_days)"
        " VALUES ('other', 'x', 0, 16)",
    )
    before = rows(database, DAYS)
    assert call(ingest, "SELECT sqs2pg.drop_day()") is False
    rows(database, "DELETE FROM sqs2pg.pipeline WHERE name = 'other'")
    assert call(ingest, "SELECT sqs2pg.drop_day()") is True
    assert call(ingest, "SELECT sqs2pg.drop_day()") is False
    assert rows(database, DAYS) == [(before[0][0] - 1,)]
    rows(database, "DELETE FROM sqs2pg.pipeline")
    assert call(ingest, "SELECT sqs2pg.drop_day()") is False
    assert call(ingest, "SELECT sqs2pg.drop_undated()") == 0


def test_only_days_near_today_are_attached(ingest: psycopg.Connection[Any], database: str) -> None:
    before = rows(database, DAYS)
    for first, last in (("1900-01-01", "1999-12-31"), ("2500-01-01", "9999-12-31")):
        assert call(ingest, f"SELECT sqs2pg.attach_days('{first}', '{last}')") == 0
    assert rows(database, DAYS) == before
    [(name,)] = rows(
        database, "SELECT to_char(now() AT TIME ZONE 'UTC', '\"sqs2pg.delivery_\"YYYYMMDD')"
    )
    rows(database, f"DROP TABLE {name}")
    assert call(ingest, "SELECT sqs2pg.attach_days('-infinity', 'infinity')") in (2, 3)


def test_a_target_without_retention_loses_nothing(
    ingest: psycopg.Connection[Any], database: str
) -> None:
    rows(
        database,
        "CREATE TABLE old (day date) PARTITION BY RANGE (day);"
        "CREATE TABLE old_p202101 PARTITION OF old"
        " FOR VALUES FROM ('2021-01-01') TO ('2021-02-01');"
        "CREATE TABLE old_default PARTITION OF old DEFAULT;"
        "INSERT INTO old VALUES ('2021-01-05'), ('2020-05-05');"
        "INSERT INTO sqs2pg.partitioned VALUES ('public.old', 'day', 'month', 2, 0)",
    )
    assert call(ingest, "SELECT sqs2pg.drop_period('public.old')") is None
    assert call(ingest, "SELECT sqs2pg.trim_default('public.old')") == 0
    attached = 0
    while call(ingest, "SELECT sqs2pg.attach_next_period('public.old')"):
        attached += 1
    assert attached == 4
    rows(database, "UPDATE sqs2pg.partitioned SET retention_days = 36500")
    assert call(ingest, "SELECT sqs2pg.drop_period('public.old')") is None
    assert call(ingest, "SELECT sqs2pg.trim_default('public.old')") == 0
    # In one transaction, so that midnight cannot come in between.
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE sqs2pg.partitioned SET retention_days ="
            " (now() AT TIME ZONE 'UTC')::date - '2021-02-01'::date + 1"
        )
        kept = connection.execute("SELECT sqs2pg.drop_period('public.old')").fetchone()
        assert kept == (None,), "its last day is as old as the retention"
        connection.rollback()
    rows(database, "UPDATE sqs2pg.partitioned SET retention_days = 90")
    assert call(ingest, "SELECT sqs2pg.drop_period('public.old')") == 1
    assert call(ingest, "SELECT sqs2pg.drop_period('public.old')") is None
    assert call(ingest, "SELECT sqs2pg.trim_default('public.old')") == 1
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        call(ingest, "SELECT sqs2pg.drop_period('public.user_logins')")


def test_no_sum_of_the_tally_overflows(ingest: psycopg.Connection[Any]) -> None:
    for column in ("written", "quarantined", "duplicate", "target_rows", "purged", "dropped"):
        for value in (2**62, -(2**62)):
            with pytest.raises(psycopg.errors.CheckViolation):
                ingest.execute(
                    f"INSERT INTO sqs2pg.tally (pipeline, {column}) VALUES (1, {value})".encode()
                )
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        ingest.execute(
            f"INSERT INTO sqs2pg.tally (pipeline, written) VALUES (1, {-(2**63)})".encode()
        )


async def test_one_step_that_fails_stops_no_other(database: str, migrated_database: str) -> None:
    rows(
        database,
        "CREATE TABLE broken (day integer) PARTITION BY RANGE (day);"
        "CREATE TABLE fine (day date) PARTITION BY RANGE (day);"
        "INSERT INTO sqs2pg.partitioned VALUES ('public.broken', 'day', 'month', 2, 0),"
        " ('public.fine', 'day', 'month', 2, 0);"
        "DROP FUNCTION sqs2pg.drop_day;"
        "INSERT INTO sqs2pg.quarantine (key, message_id, pipeline, reason, detail, attempts,"
        " sent_at, received_at, body, sealed_under)"
        " VALUES (gen_random_uuid(), 'm', 1, 'not_json', '', 1, now(),"
        " now() - interval '31 days', '', 'vault:1')",
    )
    session = await Session.connect(database)
    with pytest.raises(TransientFault, match="42883"):
        await maintain(session, 1)
    await session.close()
    attached = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'fine'::regclass"
    assert rows(database, attached) == [(4,)]
    assert rows(database, "SELECT count(*) FROM sqs2pg.quarantine") == [(0,)]


def test_only_entries_of_the_own_transaction_turn_to_quarantined(
    ingest: psycopg.Connection[Any], database: str
) -> None:
    ingest.execute(ENTRY.format(1).encode())
    with ingest.transaction():
        ingest.execute(ENTRY.format(2).encode())
        ingest.execute(
            "SELECT sqs2pg.mark_quarantined(%s::uuid[])", [[KEY.format(1), KEY.format(2)]]
        )
    outcomes = rows(database, "SELECT outcome FROM sqs2pg.delivery ORDER BY key")
    assert outcomes == [("written",), ("quarantined",)]


def test_only_the_first_key_of_a_series_is_recorded_by_ingest(
    ingest: psycopg.Connection[Any], database: str
) -> None:
    record = "SELECT sqs2pg.record_first_key('vault', %s, %s)"
    for version, fingerprint in ((10_000, "0" * 16), (0, "0" * 16), (1, "not hexadecimal!")):
        with pytest.raises(psycopg.errors.CheckViolation):
            ingest.execute(record, [version, fingerprint])
    ingest.execute(record, [1, "0" * 16])
    ingest.execute(record, [9_999, "1" * 16])
    assert rows(database, "SELECT version, fingerprint, active FROM sqs2pg.key") == [
        (1, "0" * 16, True)
    ]

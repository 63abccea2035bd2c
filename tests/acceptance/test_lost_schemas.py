"""If part of what `migrate` made is gone, it is named, nothing is changed, and a hint helps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sqs2pg.cli.embedded.postgres_binaries import find_binaries
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
LOGIN = json.dumps({"user_id": "ann", "ip": "198.51.100.7", "device_id": "1"})


@pytest.fixture
def filled(shell: Shell, send: Send) -> Shell:
    """A shell with the vault on, and one login written."""
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    shell("migrate")
    send([LOGIN])
    shell("run", "--drain")
    return shell


def test_commands_refuse_a_database_without_the_sqs2pg_schema(
    filled: Shell, query: Query, send: Send
) -> None:
    query("DROP SCHEMA sqs2pg CASCADE")
    kept = query("SELECT subject, field, token, sealed FROM pii.value ORDER BY 3")
    said = filled.error("migrate", code=1)
    assert "schema sqs2pg (ledger, quarantine, tally, keys on record and audit) is gone" in said
    assert (
        "schema pii (the vault: people's keys and sealed values) is still there, with val" in said
    )
    assert "pg_restore -n sqs2pg" in said
    assert "DROP SCHEMA pii CASCADE: it cannot be recovered then" in said
    assert "42P06" not in said
    assert "is gone from this database" in filled.error("run", "--drain", code=1)
    checks = {one["name"]: one for one in filled("check", "--json", code=1).last["checks"]}
    assert checks["schema"]["status"] == "fail"
    assert "is gone from this database" in checks["schema"]["detail"]
    # Nothing was made, and nothing taken away.
    assert query("SELECT to_regnamespace('sqs2pg')") == [(None,)]
    assert query("SELECT subject, field, token, sealed FROM pii.value ORDER BY 3") == kept
    assert query("SELECT user_id FROM user_logins") == [("ann",)]

    query("DELETE FROM pii.value")
    assert "is still there, without a value in it" in filled.error("migrate", code=1)
    query("DROP SCHEMA pii CASCADE")
    filled("migrate")
    send([LOGIN.replace("ann", "bob")])
    filled("run", "--drain")
    assert query("SELECT user_id FROM user_logins ORDER BY 1") == [("ann",), ("bob",)]
    assert filled("verify", "--json").last["ok"]


def test_commands_refuse_a_database_without_the_vault_schema(
    filled: Shell, query: Query, send: Send, database: str
) -> None:
    query("DROP SCHEMA pii CASCADE")
    for command in (("migrate",), ("run", "--drain")):
        said = filled.error(*command, code=1)
        assert (
            "schema pii (the vault: people's keys and sealed values) or a table of it is gone"
            in said
        )
        assert "pg_restore -n pii" in said
    assert query("SELECT to_regnamespace('pii')") == [(None,)]

    # Without a backup: an empty vault, as the hint says.
    name = f"{conninfo_to_dict(database)['dbname']}_empty"
    empty = make_conninfo(database, dbname=name)
    query(f"CREATE DATABASE {name}")
    try:
        filled("migrate", DATABASE_URL=empty)
        pg_dump = find_binaries() / "pg_dump"
        dump = subprocess.run(
            [pg_dump, "-n", "pii", "--inserts", "--dbname", empty],
            capture_output=True,
            text=True,
            check=True,
        )
        with psycopg.connect(database, autocommit=True) as connection:
            text = "\n".join(x for x in dump.stdout.splitlines() if not x.startswith("\\"))
            connection.execute(text.encode())
    finally:
        query(f"DROP DATABASE {name} WITH (FORCE)")
    filled("migrate")
    send([LOGIN.replace("ann", "bob")])
    filled("run", "--drain")
    [one] = query("SELECT masked_ip FROM user_logins WHERE user_id = 'bob'")
    found = filled("reveal", one[0], "--reason", "test", "--json").last
    assert found["value"] == "198.51.100.7"


@pytest.mark.parametrize("schema", ["pii", "sqs2pg"])
def test_a_schema_of_our_name_that_we_did_not_make_is_refused(
    shell: Shell, query: Query, schema: str
) -> None:
    query(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.theirs ()")
    said = shell.error("migrate", code=1)
    assert f"this database has a schema {schema} that sqs2pg has not made" in said
    assert f"ALTER SCHEMA {schema} RENAME TO" in said
    query(f"ALTER SCHEMA {schema} RENAME TO theirs")
    shell("migrate")
    assert query("SELECT count(*) FROM theirs.theirs") == [(0,)]


def test_migrate_refuses_a_schema_that_lost_its_migration_table(
    filled: Shell, query: Query
) -> None:
    query("DROP TABLE sqs2pg.migration")
    said = filled.error("migrate", code=1)
    assert "has lost its table of migrations, while schema pii" in said
    assert "DROP SCHEMA sqs2pg, pii CASCADE" in said
    assert query("SELECT count(*) FROM sqs2pg.delivery") == [(1,)]


@pytest.mark.parametrize(
    "record",
    [
        (
            "UPDATE sqs2pg.migration SET name = 'books', checksum = repeat('0', 64);"
            " INSERT INTO sqs2pg.migration (version, name, checksum)"
            " SELECT version, 'of old', repeat('1', 64) FROM generate_series(2, 16) version"
        ),
        # From before the vault: there never was a schema pii.
        (
            "UPDATE sqs2pg.migration SET name = 'books', checksum = repeat('0', 64);"
            " DROP SCHEMA pii CASCADE"
        ),
        # The same file with another content, from before the release.
        "UPDATE sqs2pg.migration SET checksum = repeat('0', 64)",
        "UPDATE sqs2pg.migration SET version = 2",
    ],
    ids=["sixteen", "without a vault", "another day", "no first one"],
)
def test_a_database_of_an_unreleased_checkout(
    filled: Shell, query: Query, send: Send, record: str
) -> None:
    query(record)
    kept = query("SELECT version, checksum FROM sqs2pg.migration ORDER BY 1")
    for command in (("migrate",), ("run", "--drain"), ("quarantine", "list"), ("verify",)):
        said = filled.error(*command, code=1)
        assert "schema sqs2pg of this database was made by an unreleased checkout" in said
        assert ("0001 is missing" in said) == (kept[0][0] == 2)
        assert "hint: keep using that checkout; or start anew: DROP SCHEMA IF EXISTS" in said
        for lost in ("quarantined messages", "audit", "tally", "keys on record", "vault", "ledger"):
            assert lost in said.partition("loses for ever")[2]
    checks = {one["name"]: one for one in filled("check", "--json", code=1).last["checks"]}
    assert checks["schema"]["status"] == "fail"
    assert "unreleased checkout" in checks["schema"]["detail"]
    # Nothing was made, and nothing taken away.
    assert query("SELECT version, checksum FROM sqs2pg.migration ORDER BY 1") == kept
    assert query("SELECT count(*) FROM sqs2pg.delivery") == [(1,)]

    # Following the hint helps, and the target keeps its rows.
    query("DROP SCHEMA IF EXISTS sqs2pg, pii CASCADE")
    filled("migrate")
    send([LOGIN.replace("ann", "bob")])
    filled("run", "--drain")
    assert query("SELECT user_id FROM user_logins ORDER BY 1") == [("ann",), ("bob",)]
    assert filled("verify", "--json").last["ok"]


def test_a_database_of_a_newer_version(filled: Shell, query: Query, send: Send) -> None:
    query("INSERT INTO sqs2pg.migration (version, name, checksum) VALUES (9999, 'newer', 'x')")
    said = filled.error("migrate", code=1)
    assert "has migration 9999, which this version does not know" in said
    assert "hint: upgrade sqs2pg" in said
    # An older process keeps running while the newer version rolls out.
    send([LOGIN.replace("ann", "bob")])
    filled("run", "--drain")
    assert query("SELECT count(*) FROM user_logins") == [(2,)]

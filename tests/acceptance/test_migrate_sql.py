"""`sqs2pg migrate --sql`: what it prints makes the database that `migrate` makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.vault_support import PASSWORD
from tests.logins import login
from tests.migrations.test_releases import schema, second_database
from tests.shell import Shell

Send = Callable[[list[str]], list[str]]
EXAMPLES = Path(__file__).parents[2] / "examples"
ROUTES, STATE = (
    (EXAMPLES / name / "sqs2pg.toml").read_text(encoding="utf-8")
    for name in ("two-tables", "order-state")
)
ODD = """name = "odd"
[ledger]
retention_days = 44
[vault]
reveals_per_hour_max = 7
[sink]
table = "by 100%% {table} 'quoted'"
partition_by = "create_date"
partition_every = "day"
partition_retention_days = 90
tombstone_retention_days = 7
key = ["user_id", "create_date"]
digest = true
"""
BOOKS = """SELECT p.name, t.position, t.target, t.mode, t.tombstone_retention_days, t.baseline_rows,
ledger_retention_days, quarantine_retention_days, reveals_per_hour_max, column_name, every, ahead,
retention_days FROM sqs2pg.pipeline p JOIN sqs2pg.target t ON t.pipeline = p.id
LEFT JOIN sqs2pg.partitioned d ON d.target = t.target, pii.state ORDER BY 2"""


def run_script(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())


def books(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(BOOKS).fetchall()


@pytest.mark.parametrize(
    "settings", ["", ODD, ROUTES, STATE], ids=["default", "odd", "routes", "state"]
)
def test_the_script_makes_what_migrate_makes(
    shell: Shell, database: str, tmp_path: Path, settings: str
) -> None:
    (tmp_path / "sqs2pg.toml").write_text(settings)
    script = shell("migrate", "--sql").out
    run_script(database, script)
    with second_database(database, "migrated") as other:
        shell("migrate", DATABASE_URL=other)
        assert schema(database) == schema(other)
        assert books(database) == books(other)
        run_script(other, script)
        assert books(database) == books(other)
    run_script(database, script)
    assert "nothing to do: the database is up to date" in shell("migrate").out


def test_a_pipeline_runs_on_the_script_alone(shell: Shell, database: str, send: Send) -> None:
    run_script(database, shell("migrate", "--sql").out)
    send([login(i) for i in range(3)])
    assert shell("run", "--drain", "--json").last["written"] == 3
    assert shell("verify", "--json").last["ok"]


def test_the_script_runs_as_a_plain_role(shell: Shell, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"CREATE ROLE plain_{name} LOGIN PASSWORD '{PASSWORD}'".encode())
        admin.execute(f"GRANT CREATE ON DATABASE {name} TO plain_{name}".encode())
        admin.execute(f"GRANT CREATE ON SCHEMA public TO plain_{name}".encode())
        try:
            url = psycopg.conninfo.make_conninfo(database, user=f"plain_{name}", password=PASSWORD)
            run_script(url, shell("migrate", "--sql").out)
            done = shell("migrate", DATABASE_URL=url).out
            # It may lack CREATEROLE where no other database of the cluster has made the roles.
            assert "nothing to do" in done or done.startswith("could not create sqs2pg_ingest")
            assert not re.search("applied|attached|created table|registered", done)
        finally:
            admin.execute(f"DROP OWNED BY plain_{name} CASCADE; DROP ROLE plain_{name}".encode())


def test_a_name_keeps_its_table(shell: Shell, database: str, tmp_path: Path) -> None:
    (tmp_path / "sqs2pg.toml").write_text('name = "logins"\n')
    shell("migrate")
    before = books(database)
    other = {"SQS2PG_SINK__TABLE": "other_logins"}
    words = "pipeline {} writes to public.user_logins, but its table is public.other_logins"
    said = [shell.error("migrate", code=2, **other)]
    with pytest.raises(psycopg.errors.RaiseException, match=words.format("logins")) as refused:
        run_script(database, shell("migrate", "--sql", **other).out)
    assert "a `name` of its own" in str(refused.value.diag.message_hint)
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT to_regclass('other_logins')").fetchone()
        assert found == (None,), "it is not made either"
        connection.execute("CREATE TABLE other_logins (LIKE user_logins)")
    said += [shell.error(*line, code=2, **other) for line in (("migrate",), ("run", "--drain"))]
    for one in said:
        assert words.format("'logins'") in one
        assert "give the pipeline of another table a `name` of its own and migrate" in one
    assert books(database) == before
    shell("migrate", SQS2PG_NAME="others", **other)
    assert len(books(database)) == len(before) + 1

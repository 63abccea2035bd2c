"""What a pooler in between refuses is told for what it is, before a message is received."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.cli.embedded.run_folder import RunFolder
from tests.system.conftest import Cluster, pgbouncer_before, pgpool_before
from tests.waiting import wait_until

pytestmark = pytest.mark.system


Through = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def through(cluster: Cluster, system_folder: RunFolder, postgres15: str) -> Through:
    """Start a pooler of a mode, with settings; yield what leads through it to the database."""

    @contextmanager
    def start(mode: str, more: str = "") -> Iterator[str]:
        with pgbouncer_before(cluster, system_folder, mode, more) as pooler:
            yield cluster.dsn(str(conninfo_to_dict(postgres15)["dbname"]), pooler.port)

    return start


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_that_keeps_transactions_together_is_fine(
    make_shell: Callable[[str], Any], through: Through, mode: str
) -> None:
    with through(mode) as dsn:
        shell = make_shell(dsn)
        shell("migrate")
        assert shell("check", "--json").last["ok"] is True
        shell("run", "--drain")


def test_pgpool_takes_whatever_the_pipeline_sends(
    make_shell: Callable[[str], Any],
    cluster: Cluster,
    system_folder: RunFolder,
    postgres15: str,
    tmp_path: Path,
) -> None:
    database = str(conninfo_to_dict(postgres15)["dbname"])
    archive = tmp_path / "logins.jsonl"
    archive.write_text("".join(f'{{"user_id": "u{n}", "ip": "10.0.0.{n}"}}\n' for n in range(90)))
    with pgpool_before(cluster, system_folder) as pooler:
        shell = make_shell(cluster.dsn(database, pooler.port))
        shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
        shell("migrate")
        assert shell("check", "--json").last["ok"] is True
        shell("send", "--file", str(archive))
        assert shell("run", "--drain", "--json").last["written"] == 90
        assert shell("backfill", str(archive), "--json").last["written"] == 90
        shell("keys", "rotate", "pseudonym")
        assert shell("keys", "rekey", "--json").last["rows_left"] == 0
        assert shell("forget", "u7", "--reason", "a test", "--json").last["rows_changed"] == 2
        assert shell("reveal", "--user", "u8", "--all", "--reason", "a test", "--json").last["rows"]
        assert shell("verify", "--json").last["ok"] is True
        wrong = cluster.dsn(database, pooler.port).replace(cluster.password, "wrong")
        assert "refused the login" in shell.error("verify", code=1, DATABASE_URL=wrong)
        nowhere = cluster.dsn("no_such_database", pooler.port)
        assert "does not exist" in shell.error("verify", code=1, DATABASE_URL=nowhere)
        with psycopg.connect(postgres15) as owner:
            owner.execute("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY")
            owner.execute("ALTER TABLE user_logins FORCE ROW LEVEL SECURITY")
        assert shell("check", "--json", code=1).last["ok"] is False
        assert "user_logins" in shell.error("run", "--drain", code=2)


def test_statement_mode_is_named(
    make_shell: Callable[[str], Any], through: Through, postgres15: str
) -> None:
    with through("statement") as dsn:
        shell = make_shell(dsn)
        assert "pool_mode = transaction" in shell.error("migrate", code=1)
        make_shell(postgres15)("migrate")
        said = shell.error("run", "--drain", code=1)
        assert "statement pooling mode" in said
        assert "pool_mode = transaction" in said
        report = shell("check", "--json", code=1).last
        failed = {one["name"]: one for one in report["checks"] if one["status"] == "fail"}
        assert failed.keys() == {"writing"}
        assert "statement pooling mode" in failed["writing"]["detail"]


def test_a_full_pooler_and_one_that_knows_no_such_thing(
    make_shell: Callable[[str], Any], through: Through, cluster: Cluster
) -> None:
    with through("transaction", "max_client_conn = 1") as dsn:
        shell = make_shell(dsn)
        taken: list[psycopg.Connection[Any]] = []

        def take() -> bool:
            """Take the only place. Whoever asked whether the pooler is up may not have left yet."""
            with suppress(psycopg.OperationalError):
                taken.append(psycopg.connect(dsn))
            return bool(taken)

        wait_until(take)
        with taken[0]:
            said = shell.error("verify", code=1)
        assert "takes no connection now" in said
        assert "not reachable" not in said
        geqo = f"{dsn}&options=-c%20geqo%3Doff"
        assert "ignore_startup_parameters" in shell.error("verify", code=1, DATABASE_URL=geqo)
        nowhere = dsn.replace(str(conninfo_to_dict(dsn)["dbname"]), "no_such_database")
        assert "does not exist" in shell.error("verify", code=1, DATABASE_URL=nowhere)
        wrong = dsn.replace(cluster.password, "wrong")
        assert "refused the login" in shell.error("verify", code=1, DATABASE_URL=wrong)

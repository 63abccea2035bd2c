"""What a pooler in between refuses is told for what it is, before a message is received."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.cli.embedded.run_folder import RunFolder
from tests.system.conftest import Cluster, pgbouncer_before

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
        with psycopg.connect(dsn):
            said = shell.error("verify", code=1)
        assert "takes no connection now" in said
        assert "not reachable" not in said
        geqo = f"{dsn}&options=-c%20geqo%3Doff"
        assert "ignore_startup_parameters" in shell.error("verify", code=1, DATABASE_URL=geqo)
        nowhere = dsn.replace(str(conninfo_to_dict(dsn)["dbname"]), "no_such_database")
        assert "does not exist" in shell.error("verify", code=1, DATABASE_URL=nowhere)
        wrong = dsn.replace(cluster.password, "wrong")
        assert "refused the login" in shell.error("verify", code=1, DATABASE_URL=wrong)

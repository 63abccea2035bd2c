"""A filled log becomes a state table on purpose: what each command says, and which one does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.logins import login
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
STEP = "sqs2pg migrate --change-mode"
KEY = "CREATE UNIQUE INDEX ON user_logins (user_id)"


@pytest.mark.usefixtures("migrated_database")
def test_a_filled_log_becomes_a_state_table_in_an_explicit_step(
    shell: Shell, query: Query, send: Callable[[list[str]], list[str]]
) -> None:
    def schema() -> dict[str, str]:
        checks = shell("check", "--json", code=None).last["checks"]
        [found] = [one for one in checks if one["name"] == "schema"]
        return dict(found)

    send([login(i % 3) for i in range(9)])
    shell("run", "--drain")
    assert query("SELECT count(*) FROM user_logins") == [(9,)]
    shell.environment |= {
        "SQS2PG_SINK__MODE": "upsert",
        "SQS2PG_SINK__KEY": "user_id",
        "SQS2PG_SINK__NEWER": "create_date",
    }
    told = schema()
    assert (told["status"], 'mode = "append"' in told["detail"]) == ("fail", True)
    assert STEP in told["remedy"]
    for command in (["run", "--drain"], ["migrate"]):
        said = shell.error(*command, code=2)
        assert 'mode = "append"' in said
        assert 'mode = "upsert"' in said
        assert STEP in said
    query(
        "DELETE FROM user_logins a USING user_logins b WHERE a.user_id = b.user_id"
        " AND a.ctid > b.ctid"
    )
    query(KEY)
    assert "from append to upsert; its rows were counted anew" in shell(*STEP.split()[1:]).out
    assert "keeps a digest of user_logins by user_id, create_date" not in shell("migrate").out
    assert schema()["status"] == "ok"
    send([login(i % 4, create_date="2099-01-01") for i in range(8)])
    shell("run", "--drain")
    assert shell("verify", "--deep", "--json").last["ok"] is True
    assert query("SELECT count(*) FROM user_logins") == [(4,)]
    acts = query("SELECT act, subject FROM sqs2pg.audit WHERE act = 'change_mode'")
    assert acts == [("change_mode", "public.user_logins: from append to upsert, counted anew")]


@pytest.mark.usefixtures("migrated_database")
def test_check_says_that_a_retention_of_rows_is_not_on_record(shell: Shell, query: Query) -> None:
    query(KEY)
    shell.environment |= {
        "SQS2PG_SINK__MODE": "upsert",
        "SQS2PG_SINK__KEY": "user_id",
        "SQS2PG_SINK__NEWER": "create_date",
    }
    shell("migrate")

    def told() -> list[str]:
        checks = shell("check", "--json", code=None).last["checks"]
        return [one["detail"] for one in checks if one["name"] == "retention on record"]

    assert told() == []
    shell.environment["SQS2PG_SINK__RETENTION_DAYS"] = "30"
    assert "sink.retention_days 30 in the settings, 0 on record" in told()[0]
    shell("migrate")
    assert told() == []

"""Erasures and rekeys that could not be finished are refused before they begin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sqs2pg.errors import FatalFault
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, rows
from tests.integration.test_vault_rotation import forget, rekey
from tests.integration.vault_support import ON, login_of, message, rotate, write

MakeSettings = Callable[..., Settings]
KEYS = "SELECT count(*) FROM pii.subject_key WHERE wrapped_key IS NOT NULL"
TOKENS = "SELECT DISTINCT left(token, 3) FROM pii.value"
OBSTACLES = {
    "postgres_55000": "CREATE PUBLICATION p FOR TABLE user_logins",
    "postgres_42501": "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY",
}


@pytest.mark.parametrize("delete_rows", [False, True])
@pytest.mark.parametrize("code", OBSTACLES)
async def test_nobodys_key_is_destroyed_where_their_rows_cannot_be_changed(
    pipeline: Assemble, settings: MakeSettings, database: str, code: str, *, delete_rows: bool
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, [message("ann"), message("bob")])
    rows(database, OBSTACLES[code])
    with login_of(database) as conninfo:
        chosen = settings(**ON, sink={"dsn": conninfo})
        login = dict(part.split("=", 1) for part in conninfo.split())["user"]
        rows(
            database,
            f"GRANT ALL ON SCHEMA sqs2pg, pii TO {login};"
            f"GRANT ALL ON ALL TABLES IN SCHEMA sqs2pg, pii, public TO {login};"
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA sqs2pg, pii TO {login};"
            f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA sqs2pg, pii TO {login}",
        )
        with pytest.raises(FatalFault, match="nobody was erased") as refused:
            await forget(chosen, "ann", delete_rows=delete_rows)
        assert refused.value.code == code
        assert "user_logins" in refused.value.what
        assert refused.value.hint
        assert rows(database, KEYS) == [(2,)]
        assert rows(database, "SELECT count(*) FROM sqs2pg.audit") == [(0,)]
        rotate(chosen, database, "pseudonym")
        with pytest.raises(FatalFault, match="nothing has a new token") as refused:
            await rekey(chosen)
        assert refused.value.code == code
        assert rows(database, TOKENS) == [("v1_",)]


async def test_a_view_that_stands_for_the_target_is_searched(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, [message("ann"), message("bob")])
    rows(
        database,
        "ALTER TABLE user_logins RENAME TO hidden; CREATE VIEW user_logins AS TABLE hidden",
    )
    report = (await forget(settings(**ON), "ann")).report
    assert (report.found, report.rows_changed, report.rows_left) == (1, 1, 0)
    left = rows(database, "SELECT user_id FROM hidden WHERE masked_ip IS NOT NULL")
    assert left == [("bob",)]


async def test_a_rule_that_keeps_rows_is_no_erasure(
    pipeline: Assemble, settings: MakeSettings, database: str
) -> None:
    async with pipeline(**ON) as ready:
        await write(ready, [message("ann")])
    rows(database, "CREATE RULE kept AS ON UPDATE TO user_logins DO INSTEAD NOTHING")
    with pytest.raises(FatalFault):  # a rule takes no RETURNING
        await forget(settings(**ON), "ann")
    assert rows(database, KEYS) == [(1,)]

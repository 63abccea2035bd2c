"""Erasures and rekeys that PostgreSQL would refuse halfway are not begun."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from sqs2pg.errors import FatalFault
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_vault_rotation import forget, rekey
from tests.integration.vault_support import ON, PASSWORD, message, rotate, write

MakeSettings = Callable[..., Settings]
STATE = """SELECT (SELECT count(*) FROM pii.subject_key WHERE wrapped_key IS NOT NULL),
       (SELECT string_agg(token, ' ' ORDER BY token) FROM pii.value),
       (SELECT count(*) FROM pii.erasure), (SELECT count(*) FROM pii.token_map),
       (SELECT count(*) FROM sqs2pg.audit), (SELECT epoch FROM pii.state),
       (SELECT string_agg(user_id || masked_ip, ' ' ORDER BY user_id) FROM user_logins)"""


@pytest.fixture
def owner(database: str) -> Iterator[str]:
    """Connection string of a plain role that owns everything of the pipeline."""
    role = f"t_{uuid.uuid4().hex[:16]}"
    [(name,)] = rows(database, "SELECT current_database()")
    rows(
        database,
        f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';"
        f"GRANT CREATE ON DATABASE {name} TO {role}; GRANT CREATE ON SCHEMA public TO {role}",
    )
    yield make_conninfo(database, user=role, password=PASSWORD)
    rows(database, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


GIVEN_AWAY = "ALTER TABLE user_logins OWNER TO postgres;"
RULES = "".join(
    f"CREATE RULE on_{act} AS ON {act} TO user_logins DO INSTEAD NOTHING;"
    for act in ("UPDATE", "DELETE")
)
SECURED = (
    GIVEN_AWAY + "GRANT ALL ON user_logins TO {role};"
    "ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY"
)
# Erasing moves rows to other partitions here, so the statements go to the whole table.
BY_PERSON = """ALTER TABLE user_logins RENAME TO part; ALTER TABLE part ALTER user_id SET NOT NULL;
CREATE TABLE user_logins (LIKE part) PARTITION BY LIST (user_id);
ALTER TABLE user_logins OWNER TO {role};
ALTER TABLE user_logins ATTACH PARTITION part DEFAULT; CREATE PUBLICATION {p} FOR TABLE part"""
REFUSED = [
    (BY_PERSON, {}, "55000"),
    ("CREATE PUBLICATION {p} FOR TABLE user_logins", {}, "55000"),
    ("CREATE PUBLICATION {p} FOR TABLE user_logins", {"partition_by": "create_date"}, "55000"),
    ("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", {}, "42501"),
    (RULES, {}, "0A000"),
    (SECURED, {}, "42501"),
    (GIVEN_AWAY + "GRANT SELECT, INSERT ON user_logins TO {role}", {}, "42501"),
    (GIVEN_AWAY + "GRANT SELECT, INSERT, UPDATE (user_id) ON user_logins TO {role}", {}, "42501"),
    ("ALTER ROLE {role} SET default_transaction_read_only = on", {}, "25006"),
]


@pytest.mark.parametrize(("change", "sink", "sqlstate"), REFUSED)
async def test_what_would_be_refused_halfway_is_not_begun(
    settings: MakeSettings,
    database: str,
    owner: str,
    change: str,
    sink: dict[str, Any],
    sqlstate: str,
) -> None:
    chosen = settings(**ON, sink={"dsn": owner} | sink)
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann"), message("bob", "198.51.100.8")])
    rotate(chosen, database, "pseudonym")
    before = rows(database, STATE)
    role = psycopg.conninfo.conninfo_to_dict(owner)["user"]
    rows(database, change.format(role=role, p=f"p_{uuid.uuid4().hex}"))
    with pytest.raises(FatalFault, match="nobody was erased") as clearing:
        await forget(chosen, "ann")
    with pytest.raises(FatalFault, match="nobody was erased") as deleting:
        await forget(chosen, "ann", delete_rows=True)
    with pytest.raises(FatalFault, match="nothing has a new token") as rekeying:
        await rekey(chosen)
    assert rows(database, STATE) == before
    for fault in (clearing, deleting, rekeying):
        assert fault.value.code == f"postgres_{sqlstate}"
        assert fault.value.hint


async def test_the_hint_is_enough_for_a_published_table(
    settings: MakeSettings, database: str, owner: str
) -> None:
    chosen = settings(**ON, sink={"dsn": owner})
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        await write(ready, [message("ann")])
    rows(database, f"CREATE PUBLICATION p_{uuid.uuid4().hex} FOR TABLE user_logins")
    with pytest.raises(FatalFault) as raised:
        await forget(chosen, "ann", delete_rows=True)
    assert "REPLICA IDENTITY FULL" in raised.value.hint
    rows(database, "ALTER TABLE user_logins REPLICA IDENTITY FULL")
    eraser = await forget(chosen, "ann", delete_rows=True)
    assert eraser.report.rows_deleted == 1


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

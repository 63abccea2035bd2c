"""A target of one role and our schema of another: nobody gets the other's rights by it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from sqs2pg.cli.doctor import context
from sqs2pg.cli.doctor.check_target import check_targets
from sqs2pg.errors import FatalFault
from sqs2pg.postgres import partitions
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.connect import connect
from sqs2pg.settings import Settings
from sqs2pg.vault.erase import Eraser
from sqs2pg.vault.rekey import Rekeyer
from sqs2pg.vault.target_rows import PersonColumns
from sqs2pg.vault.token_map import RecoverableColumn
from tests.integration.support import rows
from tests.integration.vault_support import PASSWORD, keys_of

MakeSettings = Callable[..., Settings]
BY_DAY = {"partition_by": "create_date", "partition_retention_days": 30}
TABLE = """CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32),
    masked_ip varchar(256), masked_device_id varchar(256), locale varchar(32),
    app_version integer, create_date date) PARTITION BY RANGE (create_date);
CREATE TABLE user_logins_default PARTITION OF user_logins DEFAULT"""
# What the owner of a table can run in the hands of whoever writes to it.
TRAP = """CREATE FUNCTION seize() RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE format('ALTER ROLE %I SUPERUSER', 'NAME'); RETURN true; END $$;
ALTER TABLE user_logins ADD CHECK (locale IS NULL OR seize());
INSERT INTO user_logins (create_date) VALUES (now());
ALTER TABLE user_logins ALTER locale SET DEFAULT 'x'"""


@pytest.fixture
def roles(database: str) -> Iterator[tuple[str, str]]:
    """Two plain logins, the first of which is a member of the second, and may use the database."""
    first, second = (f"t_{uuid.uuid4().hex[:16]}" for _ in range(2))
    [(name,)] = rows(database, "SELECT current_database()")
    rows(
        database,
        f"CREATE ROLE {second} LOGIN PASSWORD '{PASSWORD}';"
        f"CREATE ROLE {first} LOGIN PASSWORD '{PASSWORD}' IN ROLE {second};"
        f"GRANT CREATE ON DATABASE {name} TO {first}, {second};"
        f"GRANT CREATE ON SCHEMA public TO {first}, {second}",
    )
    yield first, second
    rows(database, f"DROP OWNED BY {first}, {second} CASCADE; DROP ROLE {first}, {second}")


def as_role(database: str, role: str) -> str:
    return make_conninfo(database, user=role, password=PASSWORD)


@asynccontextmanager
async def session_of(settings: Settings) -> AsyncIterator[Session]:
    session = await connect(settings)
    yield session
    await session.close()


async def owner_finding(settings: Settings) -> list[tuple[str, str]]:
    with patch.object(context, "load", lambda _: settings):
        async with context.Context() as doctor:
            doctor.load_settings()
            await doctor.connect()
            found = await check_targets(doctor)
    return [(one.status, one.detail) for one in found if one.name.endswith((" owner", " login"))]


async def test_a_superuser_does_not_migrate_for_a_table_of_another_role(
    settings: MakeSettings, database: str, roles: tuple[str, str]
) -> None:
    _, owner = roles
    rows(as_role(database, owner), TABLE)
    chosen = settings(sink=BY_DAY | {"dsn": database})
    async with session_of(chosen) as session:
        with pytest.raises(FatalFault, match=f"belongs to role {owner}") as caught:
            await migrate(session, chosen)
    assert caught.value.code == "table_of_another"
    assert rows(database, "SELECT to_regnamespace('sqs2pg')") == [(None,)]


async def test_a_table_given_away_later_makes_nobody_superuser(
    settings: MakeSettings, database: str, roles: tuple[str, str]
) -> None:
    _, owner = roles
    chosen = settings(sink=BY_DAY | {"dsn": database})
    async with session_of(chosen) as session:
        await migrate(session, chosen)
    rows(database, f"ALTER TABLE user_logins OWNER TO {owner}")
    rows(database, f"ALTER TABLE user_logins_default OWNER TO {owner}")
    rows(as_role(database, owner), TRAP.replace("NAME", owner))
    for call in ("attach_next_period", "drop_period", "trim_default"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="another role"):
            rows(database, f"SELECT sqs2pg.{call}('public.user_logins')")
    columns = PersonColumns("user_logins", "user_id", lambda id_: [id_], ("masked_ip",))
    recoverable = RecoverableColumn("user_logins", "masked_ip", "ip", {})
    async with session_of(chosen) as session:
        with pytest.raises(FatalFault) as erasing:
            await Eraser(session, 1, [columns], lambda _: uuid.uuid4().hex).run(["ann"], "why")
        with pytest.raises(FatalFault) as rekeying:
            await Rekeyer(session, keys_of(chosen), [recoverable]).run()
        with pytest.raises(FatalFault) as converting:
            await partitions.convert(session, chosen, "user_logins", lambda _: None)
    codes = {fault.value.code for fault in (erasing, rekeying, converting)}
    assert codes == {"table_of_another"}
    assert rows(database, f"SELECT rolsuper FROM pg_roles WHERE rolname = '{owner}'") == [(False,)]
    [(status, detail), *_] = await owner_finding(chosen)
    assert status == "fail"
    assert owner in detail


async def test_partitions_belong_to_the_owner_of_the_table(
    settings: MakeSettings, database: str, roles: tuple[str, str]
) -> None:
    ours, owner = roles
    rows(as_role(database, owner), TABLE)
    chosen = settings(sink=BY_DAY | {"dsn": as_role(database, ours)})
    async with session_of(chosen) as session:
        done = await migrate(session, chosen)
        assert (await partitions.extend(session)).attached == 5
    assert any(line.startswith("look: table public.user_logins belongs to") for line in done)
    [(status, _)] = await owner_finding(chosen)
    assert status == "warn"
    superuser = settings(sink=BY_DAY | {"dsn": database})
    assert [status for status, _ in await owner_finding(superuser)] == ["warn", "warn"]
    owners = rows(
        database,
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname ~ '^user_logins'",
    )
    assert owners == [(owner,)]
    rows(as_role(database, owner), "ALTER TABLE user_logins ADD more text")


async def test_a_plain_role_that_owns_both_is_fine(
    settings: MakeSettings, database: str, roles: tuple[str, str]
) -> None:
    ours, _ = roles
    chosen = settings(sink=BY_DAY | {"dsn": as_role(database, ours)})
    async with session_of(chosen) as session:
        done = await migrate(session, chosen)
        assert (await partitions.extend(session)).attached == 5
    assert not [line for line in done if line.startswith("look:")]
    assert await owner_finding(chosen) == []

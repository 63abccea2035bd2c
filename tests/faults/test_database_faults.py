"""Real faults of PostgreSQL: work resumes by itself and nothing is quarantined.

Each test asserts the SQLSTATE that the consumer met. Where a fault must fall into a transaction,
the proxy holds the transaction at a statement while the test brings the fault about.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from sqs2pg.cli.embedded import Servers

from .proxy import Act, Fault, Way
from .world import COPY_TARGET, FIRST_STATEMENTS, LAST_STATEMENTS, Met, World, users

COUNT = 40
INSIDE = 500
"""Bytes past its name at which the COPY of the target is under way: some rows are there."""
ONE_WRITER = {"connections": 1}
QUICK = {"connections": 1, "statement_timeout_s": 1}


COUNT_LOGINS = """CREATE TABLE account (id int PRIMARY KEY, logins int);
INSERT INTO account VALUES (1, 0);
CREATE FUNCTION count_login() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE account SET logins = logins + 1 WHERE id = 1; RETURN NULL; END $$;
CREATE TRIGGER count_login AFTER INSERT ON user_logins
    FOR EACH STATEMENT EXECUTE FUNCTION count_login()"""


@contextmanager
def holding(world: World, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Another transaction that has run `statement` and is still open."""
    with psycopg.connect(world.database) as other:
        other.execute(statement)
        yield other


async def test_a_deadlock_victim_tries_again(world: World, met: Met) -> None:
    """A user's trigger takes a lock; another session takes two locks in the opposite order."""
    world.sql(COUNT_LOGINS)
    world.administer("ALTER DATABASE {name} SET deadlock_timeout = '50ms'")
    world.send_logins(users(COUNT))
    # The consumer holds the target's lock as soon as its COPY has begun.
    inside = world.postgres.arm(Fault(act=Act.STALL, after=COPY_TARGET, at=INSIDE))
    async with world.consuming(sink=ONE_WRITER) as running:
        await running.until(inside.fired())
        other = await psycopg.AsyncConnection.connect(world.database)
        async with other:
            await other.execute("SET deadlock_timeout = '1min'")  # so the consumer is the victim
            await other.execute("UPDATE account SET logins = 1000")
            second = asyncio.create_task(other.execute("LOCK TABLE user_logins IN SHARE MODE"))
            # Whoever waits last looks for the deadlock first: that must be the consumer.
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s"
            while not world.sql(waits, other.info.backend_pid):
                await asyncio.sleep(0)
            inside.release()
            await running.until(second)
            await running.until(met("postgres_40P01"))
        await running.until(world.deleted(COUNT))
    assert met.codes["postgres_40P01"]
    assert world.sql("SELECT logins > 1000 FROM account") == [(True,)]
    await world.check(users(COUNT))


async def test_a_serialization_failure_tries_again(world: World, met: Met) -> None:
    world.sql(COUNT_LOGINS)
    world.administer("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    world.send_logins(users(COUNT))
    # The transaction has its snapshot; the row that it is about to update changes under it.
    inside = world.postgres.arm(Fault(act=Act.STALL, after=COPY_TARGET, at=INSIDE))
    async with world.consuming(sink=ONE_WRITER) as running:
        await running.until(inside.fired())
        world.sql("UPDATE account SET logins = 1000")
        inside.release()
        await running.until(world.deleted(COUNT))
    assert met.codes["postgres_40001"]
    assert world.sql("SELECT logins > 1000 FROM account") == [(True,)]
    await world.check(users(COUNT))


async def test_a_lock_timeout_is_waited_out(world: World, met: Met) -> None:
    """The timeout of a trigger's own; the batch's is that of the statement, which comes first."""
    world.sql(
        "CREATE TABLE account (id int); CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql"
        " SET lock_timeout = '20ms' AS $$ BEGIN"
        " LOCK TABLE account IN SHARE MODE; RETURN NULL; END $$;"
        "CREATE TRIGGER look AFTER INSERT ON user_logins"
        " FOR EACH STATEMENT EXECUTE FUNCTION look()"
    )
    world.send_logins(users(COUNT))
    async with world.consuming(sink=ONE_WRITER) as running:
        with holding(world, "LOCK TABLE account IN ROW EXCLUSIVE MODE"):
            await running.until(met("postgres_55P03", 2))
        await running.until(world.deleted(COUNT))
    await world.check(users(COUNT))


async def test_a_statement_timeout_is_waited_out(world: World, met: Met) -> None:
    world.send_logins(users(COUNT))
    async with world.consuming(sink=QUICK) as running:
        with holding(world, "LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE"):
            await running.until(met("postgres_57014"))
        await running.until(world.deleted(COUNT))
    await world.check(users(COUNT))


async def test_too_many_connections_are_waited_out(world: World, met: Met) -> None:
    """Runs as a role that owns its database: a limit does not apply to a superuser."""
    role = f"limited_{secrets.token_hex(4)}"
    world.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE sqs2pg_ingest")
    world.sql(f"GRANT ALL ON SCHEMA sqs2pg TO {role}")
    world.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA sqs2pg, public TO {role}")
    world.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA sqs2pg TO {role}")
    world.sql(f"GRANT ALL ON ALL FUNCTIONS IN SCHEMA sqs2pg TO {role}")
    dsn = psycopg.conninfo.make_conninfo(world.dsn(), user=role, password="secret")
    try:
        world.send_logins(users(COUNT))
        async with world.consuming(sink={"dsn": dsn}) as running:
            await running.until(world.deleted(COUNT))
            world.sql(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            assert world.terminate()
            world.send_logins(users(COUNT, "late"))
            await running.until(met("connect_53300", 2))
            world.sql(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            await running.until(world.deleted(2 * COUNT))
        await world.check([*users(COUNT), *users(COUNT, "late")])
    finally:
        world.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("moment", [FIRST_STATEMENTS, COPY_TARGET, LAST_STATEMENTS])
async def test_an_admin_shutdown_in_a_batch_is_survived(
    world: World, met: Met, moment: bytes
) -> None:
    stuck = world.postgres.arm(Fault(act=Act.STALL, after=moment))
    world.send_logins(users(COUNT))
    async with world.consuming(sink=ONE_WRITER) as running:
        await running.until(stuck.fired())
        assert world.terminate()
        stuck.release()
        await running.until(world.deleted(COUNT))
    assert met.codes["postgres_57P01"] + met.codes["postgres_08006"]
    await world.check(users(COUNT))


async def test_a_failover_to_a_read_only_standby_and_back_is_followed(
    world: World, met: Met
) -> None:
    """Sessions are not told of the failover back: a consumer must leave a standby by itself."""
    world.send_logins(users(COUNT))
    async with world.consuming() as running:
        await running.until(world.deleted(COUNT))
        world.administer("ALTER DATABASE {name} SET default_transaction_read_only = on")
        assert world.terminate()
        world.send_logins(users(COUNT, "late"))
        await running.until(met("postgres_25006", 2))
        world.administer("ALTER DATABASE {name} RESET default_transaction_read_only")
        await running.until(world.deleted(2 * COUNT))
    await world.check([*users(COUNT), *users(COUNT, "late")])


async def test_a_full_disk_is_waited_out(world: World, met: Met, servers: Servers) -> None:
    """ENOSPC from the kernel: the target's file is /dev/full for a while."""
    world.send_logins(users(COUNT))
    assert servers.postgres is not None
    [(path,)] = world.sql("SELECT pg_relation_filepath('user_logins')")
    file = servers.postgres.data / path
    world.terminate()  # a session that has the file open would go on writing to it
    kept = file.with_name("kept")
    file.rename(kept)
    file.symlink_to("/dev/full")
    async with world.consuming(sink=ONE_WRITER) as running:
        await running.until(met("postgres_53100", 2))
        file.unlink()
        kept.rename(file)
        world.terminate()
        await running.until(world.deleted(COUNT))
    await world.check(users(COUNT))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(act=Act.CORRUPT, way=Way.DOWN, after=b"COPY 40"),
        Fault(act=Act.HALF_CLOSE, way=Way.DOWN, after=b"COPY 40"),
        Fault(act=Act.CLOSE, after=COPY_TARGET, at=INSIDE),
        Fault(act=Act.HALF_CLOSE, after=COPY_TARGET, at=INSIDE),
        Fault(act=Act.RESET, after=b"SET CONSTRAINTS ALL IMMEDIATE;"),
        Fault(act=Act.THROTTLE, after=COPY_TARGET, bytes_per_s=20_000),
    ],
    ids=lambda fault: f"{fault.act}-{fault.way}",
)
async def test_a_connection_that_breaks_in_a_batch_is_replaced(
    world: World, met: Met, fault: Fault
) -> None:
    armed = world.postgres.arm(fault)
    world.send_logins(users(COUNT))
    # All of them in one batch, however long it takes to receive them.
    sink = {"connections": 1, "batch_rows_max": COUNT, "linger_ms": 10_000}
    async with world.consuming(sink=sink) as running:
        await running.until(armed.fired())
        await running.until(world.deleted(COUNT))
    await world.check(users(COUNT))

"""`backfill --ray` over two nodes, one killed midway: the tables are as after a local run."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from ray.cluster_utils import Cluster

from sqs2pg.errors import SettingsError
from sqs2pg.pipeline import archive_reader
from sqs2pg.pipeline.archive_batches import BATCHES_AT_ONCE
from sqs2pg.pipeline.backfill import Done
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners import ray_backfill
from sqs2pg.runners.connect import connect
from sqs2pg.settings import load
from tests.ray.conftest import NODE, WAIT_S
from tests.shell import told_error
from tests.waiting import until, wait_until

FILES, LINES, BATCH = 5, 2_000, 100
# The last but one batch of each of the first four files waits until the test releases it.
AT = LINES - 2 * BATCH + 1
STOP = f"""CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.user_id ~ '-{AT}$' THEN PERFORM pg_advisory_xact_lock_shared(4711); END IF;
    RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION wait()"""
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
# The tables' content without the times of writing.
TABLES = {
    "user_logins": "SELECT user_logins::text FROM user_logins ORDER BY 1",
    "delivery": "SELECT message_id FROM sqs2pg.delivery ORDER BY 1",
    "quarantine": "SELECT message_id, reason FROM sqs2pg.quarantine ORDER BY 1",
    "backfill": """SELECT digest, source, size_bytes, line, finished_at IS NOT NULL
        FROM sqs2pg.backfill ORDER BY 1""",
}


@pytest.fixture
def environment(
    environment: dict[str, str], emulator_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    monkeypatch.setenv("SQS2PG_SINK__BATCH_ROWS_MAX", str(BATCH // BATCHES_AT_ONCE))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", emulator_endpoint)
    return environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Several archives, each with a malformed line."""
    logs = tmp_path / "logs"
    logs.mkdir()
    for file in range(FILES):
        with gzip.open(logs / f"logins-2023-05-{file + 1:02}.jsonl.gz", "wt") as stream:
            for line in range(LINES):
                login = {"user_id": f"u{file}-{line}", "ip": f"198.51.100.{line % 250}"}
                stream.write(json.dumps(login) + "\n" if line else "not json\n")
    return logs


@pytest.fixture
def admin(environment: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        yield connection


async def migrated() -> None:
    settings = load(discover=False)
    session = await connect(settings)
    await migrate(session, settings)
    await session.close()


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sqs2pg", "backfill", *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sqs2pg", "backfill", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def tables(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    return {name: connection.execute(query).fetchall() for name, query in TABLES.items()}


async def test_a_node_is_killed_midway_and_the_tables_are_those_of_a_local_run(
    cluster: Cluster, admin: psycopg.Connection[Any], folder: Path
) -> None:
    await migrated()
    second = cluster.add_node(**NODE)
    admin.execute(STOP)
    admin.execute("SELECT pg_advisory_lock(4711)")
    work = ray_backfill.BackfillDriver(load(discover=False), None)
    task = asyncio.create_task(work.run([str(folder)]))

    # Four at once, all nearly done, on both nodes; the fifth waits for room.
    await until(lambda: admin.execute(WAITING).fetchone() == (4,), during=task)
    assert work.at_work == 4
    assert admin.execute("SELECT line FROM sqs2pg.backfill").fetchall() == [(AT - 1,)] * 4
    # Whatever the workers have reported of their lines, all are counted in the end.
    cluster.remove_node(second, allow_graceful=False)
    await until(lambda: work.at_work == 2, during=task)
    admin.execute("SELECT pg_advisory_unlock(4711)")
    done = await asyncio.wait_for(task, WAIT_S)
    assert done.lines == FILES * LINES
    assert (done.files, done.skipped, done.resumed) == (FILES, 0, 0)
    over_ray = tables(admin)
    assert len(over_ray["user_logins"]) == FILES * (LINES - 1)

    again = await ray_backfill.BackfillDriver(load(discover=False), None).run([str(folder)])
    assert again == Done(skipped=FILES)

    admin.execute("DROP FUNCTION wait() CASCADE")
    admin.execute("DROP SCHEMA sqs2pg, pii CASCADE; DROP TABLE user_logins")
    await migrated()
    assert (await asyncio.to_thread(command, str(folder), folder=folder)).returncode == 0
    assert tables(admin) == over_ray


async def test_the_command_says_over_a_cluster_what_it_says_here(
    cluster: Cluster,
    emulator_endpoint: str,
    admin: psycopg.Connection[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await migrated()
    bucket = boto3.resource("s3", endpoint_url=emulator_endpoint).create_bucket(Bucket="ray-4711")
    bucket.put_object(Key="logs/1", Body=gzip.compress(b'{"user_id": "a"}\n{"user_id": "b"}'))
    (tmp_path / "one.jsonl").write_text('{"user_id": "c"}\n')
    (tmp_path / "same.jsonl").write_text('{"user_id": "c"}\n')

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command("--ray", cluster.address, *arguments, folder=tmp_path)

    paths = ["s3://ray-4711/logs/", "one.jsonl", "same.jsonl"]
    done = await asyncio.to_thread(run, *paths, "--date", "2020-02-29", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert (told["files"], told["skipped"], told["lines"], told["written"]) == (2, 1, 3, 3)
    found = admin.execute("SELECT user_id, create_date::text FROM user_logins ORDER BY 1")
    assert found.fetchall() == [(user, "2020-02-29") for user in "abc"]

    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"user_id": "d"}\n' * 99)[:-9])
    for path, code in (("nowhere.jsonl", 2), ("cut.jsonl.gz", 1)):
        ended = await asyncio.to_thread(run, path)
        assert ended.returncode == code
        assert path in told_error(ended.stderr)

    # After SIGTERM it leaves the cluster, with no output of Ray's.
    (tmp_path / "more.jsonl").write_text('{"user_id": "e"}\n')
    with psycopg.connect(os.environ["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
        stopped = start("--ray", cluster.address, "more.jsonl", folder=tmp_path)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: admin.execute(waiting).fetchone() != (0,), during=stopped)
        stopped.terminate()
        _, said = await asyncio.to_thread(stopped.communicate, None, WAIT_S)
        assert stopped.returncode == 128 + signal.SIGTERM
        assert "error" not in said.lower(), said

    # A path that the driver can read and a node cannot: storage that is not shared.
    [seen] = archive_reader.find_all([str(tmp_path / "one.jsonl")], None)
    unseen = seen._replace(name="/only/here.jsonl")
    monkeypatch.setattr(archive_reader, "find_all", lambda *_: [unseen])
    with pytest.raises(
        SettingsError, match=r"/only/here.jsonl cannot be read: .*, on node "
    ) as told:
        await ray_backfill.BackfillDriver(load(discover=False), None).run(["ours"])
    assert "every node" in told.value.hint

"""S3 notifications through `sqs2pg run`: kills, two workers, a message that comes twice."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3_events import made_bucket, notify, of, packed, removed_bucket
from tests.shell import Shell
from tests.waiting import wait_until

Query = Callable[..., list[tuple[Any, ...]]]
LINES = 20_000
# The transaction that writes the row of `halt` waits until the test has killed its process.
HALT = """CREATE TABLE halt (id text);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.id = (SELECT id FROM halt) THEN PERFORM pg_advisory_xact_lock(4712); END IF;
    RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()"""
HALTED = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712 AND NOT granted"
# The server does not notice by itself that the client of a waiting statement is gone.
END_HALTED = """SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND objid = 4712 AND NOT granted"""
SETTINGS = """
[sink]
table = "t"
batch_rows_max = 100
[source]
visibility_timeout_s = 5
[envelope]
layers = ["s3_event"]
s3_buckets = ["{bucket}"]
[[field]]
source = "id"
column = "id"
required = true
"""


@pytest.fixture
def bucket(emulator_endpoint: str, aws_environment: dict[str, str]) -> Iterator[Any]:
    made = made_bucket(emulator_endpoint, f"kills-{secrets.token_hex(6)}")
    yield made
    removed_bucket(made)


@pytest.fixture
def settings(shell: Shell, bucket: Any, tmp_path: Path) -> str:
    file = tmp_path / "sqs2pg.toml"
    file.write_text(SETTINGS.format(bucket=bucket.name))
    shell("migrate", "-c", str(file))
    return str(file)


def test_killed_three_times_and_delivered_twice_an_object_is_written_once(
    shell: Shell, query: Query, bucket: Any, settings: str, queue_url: str, sqs: Any
) -> None:
    notify(bucket, queue_url, sqs)
    stored = bucket.put_object(Key="large.gz", Body=packed(f"u{i:05}" for i in range(LINES)))
    sqs.send_message(QueueUrl=queue_url, MessageBody=of(stored))  # S3 may send it twice
    query(HALT)
    query("SELECT pg_advisory_lock(4712)")
    for line in (0, 5_000, 12_000):
        query("TRUNCATE halt")
        query("INSERT INTO halt VALUES (%s)", f"u{line + 500:05}")
        with shell.running("run", "--drain", "-c", settings) as running:
            wait_until(lambda: query(HALTED), during=running)
            running.send_signal(signal.SIGKILL)
        assert query("SELECT line FROM sqs2pg.backfill") == [(line,)]
        query(END_HALTED)
        wait_until(lambda: not query(HALTED))
        # As if the killed worker's claim had run out.
        query("UPDATE sqs2pg.backfill SET claimed_until = now()")
    query("SELECT pg_advisory_unlock(4712); DROP FUNCTION wait() CASCADE")

    done = shell("run", "--drain", "--workers", "2", "-c", settings, "--json").last
    assert done["object_lines"] == LINES - 12_000
    assert query("SELECT count(*), count(DISTINCT id), max(id) FROM t") == [
        (LINES, LINES, f"u{LINES - 1:05}")
    ]
    ledger = query("SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1")
    assert ledger == [("written", LINES + 3)]  # two notifications and the test event
    assert query("SELECT count(*) FROM sqs2pg.suspect") == [(0,)]
    assert shell("verify", "-c", settings, "--json").last["ok"]

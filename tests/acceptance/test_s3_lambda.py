"""S3 notifications in Lambda: work stops before the timeout and goes on at the next delivery."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.logins import login
from tests.runtime_api import record, sandbox
from tests.s3_events import made_bucket, of, removed_bucket
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
LINES = 8_000
CHUNK = 500
"""Of which one takes CHUNK_S, by this trigger."""
SLOW = """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_sleep(0.2); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION slow()"""


@pytest.fixture
def bucket(emulator_endpoint: str, aws_environment: dict[str, str]) -> Iterator[Any]:
    made = made_bucket(emulator_endpoint, f"lambda-{secrets.token_hex(6)}")
    yield made
    removed_bucket(made)


def test_work_stops_before_the_timeout_and_goes_on_at_the_next_delivery(
    shell: Shell, tmp_path: Path, migrated_database: str, query: Query, bucket: Any
) -> None:
    settings = {
        "SQS2PG_ENVELOPE__LAYERS": "s3_event",
        "SQS2PG_ENVELOPE__S3_BUCKETS": bucket.name,
        "SQS2PG_SINK__BATCH_ROWS_MAX": str(CHUNK // 10),
        "SQS2PG_AWS_LAMBDA__MARGIN_S": "2",
    }
    body = b"".join(login(f"u{i}").encode() + b"\n" for i in range(LINES))
    large = of(bucket.put_object(Key="large", Body=body))
    small = of(bucket.put_object(Key="small", Body=login("small").encode()))
    query(SLOW)
    names = [str(uuid.uuid4()) for _ in range(2)]
    with sandbox(tmp_path, shell.environment | settings) as function:
        # Warm: the time below is for the object.
        assert function.invoke({"Records": [record(names[0], small)]}).failures == []
        big = record(names[1], large)
        event = {"Records": [record(str(uuid.uuid4()), small), big]}
        # The other message of the batch is acknowledged; the large one goes back.
        assert function.invoke(event, timeout_s=3.5).failures == [names[1]]
        [(reached, free)] = query(
            "SELECT line, claimed_until IS NULL FROM sqs2pg.backfill WHERE finished_at IS NULL"
        )
        assert 0 < reached < LINES
        assert reached % CHUNK == 0
        assert free, "the next delivery need not wait for the claim to run out"
        assert "cut before" not in function.log
        assert query("SELECT count(*) FROM user_logins") == [(reached + 1,)]
        done = function.invoke({"Records": [big]}, timeout_s=60)
        assert done.failures == []
        assert query("SELECT count(*), count(DISTINCT user_id) FROM user_logins") == [
            (LINES + 1, LINES + 1)
        ]
        assert function.invoke({"Records": [big]}).failures == []
    ledger = query("SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1")
    assert ledger == [("written", LINES + 1 + 3)]

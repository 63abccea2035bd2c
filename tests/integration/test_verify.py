"""`verify` fails after a row is deleted, added or changed in any of our tables or the target."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.support import Assemble, books, receive, send
from tests.logins import login

_OTHER = "'01a20514-9b62-70ab-bcad-34457c55b24a'"
TAMPERING = [
    "DELETE FROM user_logins WHERE user_id = 'u3'",
    "INSERT INTO user_logins (user_id) VALUES ('extra')",
    "DELETE FROM sqs2pg.delivery WHERE key = (SELECT key FROM sqs2pg.delivery LIMIT 1)",
    (
        f"INSERT INTO sqs2pg.delivery VALUES ({_OTHER}, 'x', (SELECT min(id) FROM sqs2pg.pipeline),"
        " 'written')"
    ),
    (
        "UPDATE sqs2pg.delivery SET message_id = 'c2d2536d-3c4a-42c0-9c16-e1c2ed7da37f'"
        " WHERE key = (SELECT key FROM sqs2pg.delivery WHERE outcome = 'written' LIMIT 1)"
    ),
    "UPDATE sqs2pg.delivery SET outcome = 'written' WHERE outcome = 'quarantined'",
    "UPDATE sqs2pg.delivery SET pipeline = 77",
    "DELETE FROM sqs2pg.quarantine",
    (
        "INSERT INTO sqs2pg.quarantine (key, message_id, pipeline, reason, detail, attempts,"
        f" sent_at, body, sealed_under) SELECT {_OTHER}, 'y', pipeline, reason, detail, 1, now(),"
        " body, sealed_under FROM sqs2pg.quarantine"
    ),
    "UPDATE sqs2pg.quarantine SET message_id = 'c2d2536d-3c4a-42c0-9c16-e1c2ed7da37f'",
    "UPDATE sqs2pg.quarantine SET replayed_at = now()",
    "DELETE FROM sqs2pg.tally",
    "INSERT INTO sqs2pg.tally (pipeline, written) SELECT min(id), 1 FROM sqs2pg.pipeline",
    "UPDATE sqs2pg.tally SET quarantined = quarantined + 1",
    "UPDATE sqs2pg.tally SET target_rows = target_rows - 1",
]


@pytest.mark.parametrize("tampering", TAMPERING)
async def test_verify_fails_after_tampering(
    pipeline: Assemble, database: str, tampering: str
) -> None:
    async with pipeline() as ready:
        await send(ready, [*(login(i) for i in range(8)), "not json"])
        await ready.processors[0].process(await receive(ready, 9))
        clean = await books(database, ready.sink_plan.id)
        assert (clean.ok, clean.written, clean.quarantined) == (True, 8, 1), clean.differences
        with psycopg.connect(database, autocommit=True) as connection:
            assert connection.execute(tampering).rowcount > 0
        assert not (await books(database, ready.sink_plan.id)).ok

"""Fields declared as dropped: known, counted by name, and in no row."""

from __future__ import annotations

from typing import Any

import pytest

from sqs2pg.message import Message, Outcome, SystemAttributes
from tests.integration.support import Assemble, rows
from tests.logins import login

SENT_MS = 1_700_000_000_000


def message(number: int, **extra: Any) -> Message:
    return Message(
        f"00000000-0000-4000-8000-{number:012}",
        "handle",
        login(number, **extra),
        SystemAttributes(SENT_MS + number),
    )


@pytest.mark.parametrize("source", ["extra", "extra.inner"], ids=["flat", "nested"])
@pytest.mark.parametrize("unknown", ["drop", "quarantine"])
async def test_dropped_fields_are_counted_by_name(
    pipeline: Assemble, database: str, source: str, unknown: str
) -> None:
    dropped = {"source": source, "mask": "drop"}
    async with pipeline(field=[dropped], unknown_fields=unknown) as ready:
        outcomes = await ready.processors[0].process(
            [
                message(1, extra={"inner": [{"canary": 1}]}),
                message(2, extra={"inner": "canary"}),
                message(3),
                message(4, other="canary"),
            ]
        )
        value = ready.metrics.registry.get_sample_value
        assert value("sqs2pg_fields_dropped_total", {"field": source}) == 2
        assert value("sqs2pg_fields_dropped_total", {"field": "other"}) is None
    last = Outcome.QUARANTINED if unknown == "quarantine" else Outcome.WRITTEN
    assert outcomes == [Outcome.WRITTEN] * 3 + [last]
    assert "canary" not in str(rows(database, "SELECT u::text FROM user_logins u"))

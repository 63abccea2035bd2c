"""Odd deliveries on real servers: the odd message is set aside, the others are written."""

from __future__ import annotations

import json

import pytest

from sqs2pg.message import Message
from sqs2pg.sqs import wire
from tests.integration.support import Assemble, rows, send
from tests.logins import login

TOO_LATE = str(253_402_300_800_000)  # the first millisecond of the year 10000
IN_2100 = "4102444800000"
MARK = "here be bytes"
read_messages = wire.read_messages


def damaged(answer: bytes) -> list[Message]:
    """Read a reply in which the server has garbled the messages of three people."""
    reply = json.loads(answer or b"{}")
    for message in reply.get("Messages") or ():
        match json.loads(message["Body"])["user_id"]:
            case "u2":
                message["Attributes"]["SentTimestamp"] = TOO_LATE
            case "u3":
                message["Attributes"]["SentTimestamp"] = IN_2100
            case "u5":
                del message["Attributes"]["SentTimestamp"]
            case "u7":
                del message["Body"]
            case "u10":
                message["Body"] = "\ud800"
            case "u11":
                message["Body"] = MARK  # bytes that are no UTF-8
            case "u12":
                message["Attributes"]["ApproximateReceiveCount"] = "9" * 30
            case "u13":
                message["MessageAttributes"] = {"kind": {"StringValue": "no type"}}
    return read_messages(json.dumps(reply).encode().replace(MARK.encode(), b"\xff\xfe"))


async def test_odd_messages_are_quarantined_and_the_others_written(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "read_messages", damaged)
    async with pipeline() as ready:
        await send(ready, [login(number) for number in range(14)])
        totals = await ready.consumer.run(drain_settle_s=0.5)
        assert (totals.written, totals.quarantined, totals.released) == (8, 6, 0)
        # A message without a time is not one of 1970.
        assert (ready.metrics.registry.get_sample_value("sqs2pg_lag_seconds_sum") or 0) < 3600
    found = rows(database, "SELECT reason, detail FROM sqs2pg.quarantine ORDER BY 1, 2")
    assert found == [
        ("bad_unicode", ""),
        ("bad_unicode", ""),
        ("odd_delivery", "Body"),
        ("odd_delivery", "SentTimestamp"),
        ("odd_delivery", "SentTimestamp"),
        ("odd_delivery", "SentTimestamp"),
    ]
    left = rows(database, "SELECT user_id FROM user_logins")
    assert {name for (name,) in left} == {f"u{n}" for n in (0, 1, 4, 6, 8, 9, 12, 13)}

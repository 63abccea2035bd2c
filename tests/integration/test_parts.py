"""Batches that expand too far to be written at once: parts, each in a transaction of its own."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence

import pytest

from sqs2pg.errors import PermanentFault, TransientFault
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.postgres.quarantine import Selection
from sqs2pg.postgres.sink import Batch, BatchResult, Sink
from sqs2pg.runners.assembly import assemble_replay
from tests.integration.support import Assemble, opened, rows
from tests.native import SENT_MS, extension

# 256 KiB and 512 records at once.
SMALL = {"source": {"in_flight_bytes_max": 2**20}, "sink": {"batch_rows_max": 10, "table": "t"}}
FIELDS = [
    {"source": "id", "column": "id", "required": True},
    {"source": "lines[].n", "column": "n", "type": "integer"},
]
RECORDS = 300
PARTS = "SELECT written, quarantined, duplicate FROM sqs2pg.tally ORDER BY id"


@pytest.fixture(params=["1", "0"], ids=["native", "python"], autouse=True)
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQS2PG_NATIVE", request.param)
    monkeypatch.setattr("sqs2pg.native.EXTENSION", extension())


def order(name: object, records: int = RECORDS) -> str:
    return json.dumps({"id": name, "lines": [{"n": n} for n in range(records)]})


def batch(bodies: Sequence[str]) -> list[Message]:
    sent = SystemAttributes(SENT_MS)
    return [
        Message(f"00000000-0000-4000-8000-{number:012}", "-", body, sent)
        for number, body in enumerate(bodies)
    ]


async def test_a_batch_of_many_records_is_written_in_several_transactions(
    pipeline: Assemble, database: str
) -> None:
    messages = batch([order(f"o{i}") for i in range(7)])
    async with pipeline(field=FIELDS, explode="lines", **SMALL) as ready:
        assert await ready.processors[0].process(messages) == [Outcome.WRITTEN] * 7
    # The message that reaches 512 records is the last of its part.
    assert rows(database, PARTS) == [(2, 0, 0), (2, 0, 0), (2, 0, 0), (1, 0, 0)]
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(7 * RECORDS, 7)]


async def test_faults_repeats_and_known_messages_keep_their_places(
    pipeline: Assemble, database: str
) -> None:
    bodies = [order("a"), order("b"), order(3), order("c"), "[", order("d"), order("e")]
    first = batch(bodies)
    messages = [*first, first[1], first[6]]
    async with pipeline(field=FIELDS, explode="lines", **SMALL) as ready:
        await ready.processors[0].process([first[3]])
        first[3].attributes = SystemAttributes(SENT_MS, 2)
        outcomes = await ready.processors[0].process(messages)
        refused = {messages[0].message_id: PermanentFault("kills_worker")}
        again = await ready.processors[1].process(messages, refused)
    written, duplicate, quarantined = Outcome.WRITTEN, Outcome.DUPLICATE, Outcome.QUARANTINED
    assert outcomes == [
        *(written, written, quarantined, duplicate, quarantined, written, written),
        *(duplicate, duplicate),
    ]  # fmt: skip
    assert again == [duplicate] * 9
    assert rows(database, "SELECT count(*), count(DISTINCT id) FROM t") == [(5 * RECORDS, 5)]


async def test_what_comes_after_a_part_that_is_released_is_released_too(
    pipeline: Assemble, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = batch([order(f"o{i}") for i in range(6)])
    notes: list[str] = []
    write = Sink.write

    async def refuse_the_second(sink: Sink, one: Batch) -> BatchResult:
        notes.append(sink.note)
        if len(notes) == 2:
            raise TransientFault("away", code="postgres_57P01")
        return await write(sink, one)

    monkeypatch.setattr(Sink, "write", refuse_the_second)
    async with pipeline(field=FIELDS, explode="lines", **SMALL) as ready:
        processor = ready.processors[0]
        outcomes = await processor.process_with_statement(messages, "SELECT 1")
        assert outcomes == [Outcome.WRITTEN] * 2 + [Outcome.RELEASED] * 4
        assert processor.last_fault is not None
        outcomes = await processor.process_with_statement(messages[2:], "SELECT 2")
        assert outcomes == [Outcome.WRITTEN] * 4
        assert processor.last_fault is None
    # The statement belongs to the last message's transaction.
    assert notes == ["", "", "", "SELECT 2"]
    assert rows(database, "SELECT count(*) FROM t") == [(6 * RECORDS,)]


async def test_decompressed_bytes_count(pipeline: Assemble, database: str) -> None:
    def packed(name: str) -> str:
        content = json.dumps({"id": name, "note": "x" * 200_000}).encode()
        return base64.b64encode(gzip.compress(content)).decode()

    messages = batch([packed(f"m{i}") for i in range(5)])
    async with pipeline(field=FIELDS[:1], envelope={"layers": ["gzip"]}, **SMALL) as ready:
        assert await ready.processors[0].process(messages) == [Outcome.WRITTEN] * 5
    assert rows(database, PARTS) == [(2, 0, 0), (2, 0, 0), (1, 0, 0)]


async def test_rows_of_one_message_that_repeat_a_long_value_have_a_bound(
    pipeline: Assemble, database: str
) -> None:
    body = json.dumps({"id": "x" * 3_000, "lines": [{"n": n} for n in range(1_000)]})
    messages = batch([order("a"), body, order("b")])
    envelope = {"decompressed_bytes_max": 1_500_000}
    async with pipeline(field=FIELDS, explode="lines", envelope=envelope, **SMALL) as ready:
        outcomes = await ready.processors[0].process(messages)
    assert outcomes == [Outcome.WRITTEN, Outcome.QUARANTINED, Outcome.WRITTEN]
    [(reason, detail)] = rows(database, "SELECT reason, detail FROM sqs2pg.quarantine")
    assert (reason, detail.split()[0]) == ("rows_too_large", "record")


async def test_a_replay_is_cut_like_a_batch(pipeline: Assemble, database: str) -> None:
    messages = batch([order(f"o{i}") for i in range(7)])
    refused = {one.message_id: PermanentFault("bad_ip") for one in messages}
    async with pipeline(field=FIELDS, explode="lines", **SMALL) as ready:
        outcomes = await ready.processors[0].process(messages, refused)
        assert outcomes == [Outcome.QUARANTINED] * 7
        async with opened(ready.settings) as session:
            number = ready.sink_plan.id
            replayer = await assemble_replay(session, ready.settings, ready.keyring, number)
            done = await replayer.run(Selection())
    assert (done.replayed, done.still_bad, done.already_done) == (7, 0, 0)
    replays = "SELECT written FROM sqs2pg.tally WHERE kind = 'replay' ORDER BY id"
    assert rows(database, replays) == [(2,), (2,), (2,), (1,)]
    assert rows(database, "SELECT count(*) FROM t") == [(7 * RECORDS,)]

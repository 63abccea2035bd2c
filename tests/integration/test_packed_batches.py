"""Batches that the fast path packs, with messages that it leaves to Python: all in one transaction,
with the same rows, books and outcomes as without the module.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from sqs2pg.mapping.native_encoder import NativeEncoder
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sink import Sink
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.pipeline import Pipeline
from tests import native
from tests.integration.support import Assemble, rows
from tests.logins import login

SENT_MS = 1_795_384_388_351
BOOKS = (
    "SELECT message_id, outcome FROM sqs2pg.delivery ORDER BY 1",
    "SELECT message_id, reason, detail FROM sqs2pg.quarantine ORDER BY 1",
    """SELECT written, quarantined, duplicate, target_rows, dropped, target
    FROM sqs2pg.tally ORDER BY id""",
)
LOGINS = "SELECT user_id, masked_ip IS NULL, locale FROM user_logins ORDER BY 1"
ROUTES: list[dict[str, Any]] = [
    {
        "table": "orders",
        "when": {"field": "type", "equals": "order"},
        "field": [
            {"source": "id", "column": "id", "required": True},
            {"source": "total", "column": "total", "type": "numeric"},
            {"column": "sent_at", "type": "timestamptz", "default": "sent_time"},
        ],
    },
    {
        "table": "order_lines",
        "when": {"field": "type", "equals": "order"},
        "explode": "lines",
        "field": [
            {"source": "id", "column": "order_id"},
            {"column": "line", "type": "integer", "default": "record_index"},
            {"source": "lines[].sku", "column": "sku", "length_max": 4},
        ],
    },
]
ORDERS = (
    "SELECT id, total, sent_at FROM orders ORDER BY 1",
    "SELECT order_id, line, sku FROM order_lines ORDER BY 1, 2",
)


@pytest.fixture(params=["1", "0"])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the module, which is compiled for the tests, and without."""
    monkeypatch.setenv("SQS2PG_NATIVE", request.param)
    monkeypatch.setattr("sqs2pg.native.EXTENSION", native.extension())
    return request.param == "1"


def batch(bodies: Sequence[str]) -> list[Message]:
    return [
        Message(
            f"00000000-0000-4000-8000-{number:012}", "-", body, SystemAttributes(SENT_MS - number)
        )
        for number, body in enumerate(bodies)
    ]


def order(number: int, *skus: Any) -> str:
    lines = [{"sku": sku} for sku in skus]
    return json.dumps({"type": "order", "id": f"o{number}", "total": 0.1, "lines": lines})


def faults(ready: Pipeline) -> dict[str, float]:
    """Return how often each fault was counted."""
    return {
        sample.labels["code"]: sample.value
        for metric in ready.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "sqs2pg_faults_total"
    }


MIXED = [
    login("a"),
    "not json",
    login("b", ip="::1"),  # left to Python, which writes it
    login("c", ip="300.1.1.1"),
    login("d", locale="ü\t\\"),
    login(""),
    login("e"),
    login("f", locale="\ud83d\ude00"),
]
OUTCOMES = [
    Outcome.QUARANTINED if number in (1, 3, 5) else Outcome.WRITTEN for number in range(len(MIXED))
]


async def test_what_is_left_is_written_and_quarantined_in_the_same_transaction(
    pipeline: Assemble, database: str, module: bool
) -> None:
    async with pipeline() as ready:
        assert isinstance(ready.processors[0].plan.encoder, NativeEncoder) is module
        messages = batch(MIXED)
        assert await ready.processors[0].process(messages) == OUTCOMES
        assert faults(ready) == {"not_json": 1, "empty_field": 1, "bad_ip": 1}
        assert await ready.processors[1].process(messages) == [Outcome.DUPLICATE] * len(MIXED)
    assert [row[0] for row in rows(database, LOGINS)] == ["a", "b", "d", "e", "f"]
    assert rows(database, LOGINS)[2:] == [
        ("d", False, "ü\t\\"), ("e", False, None), ("f", False, "\U0001f600"),
    ]  # fmt: skip
    delivered, quarantined, tallied = (rows(database, query) for query in BOOKS)
    assert [outcome for _, outcome in delivered] == [outcome.value for outcome in OUTCOMES]
    assert [tuple(row[1:]) for row in quarantined] == [
        ("not_json", ""), ("bad_ip", "ip"), ("empty_field", "user_id"),
    ]  # fmt: skip
    assert tallied == [(5, 3, 0, 5, 0, None), (0, 0, 8, 0, 0, None)]


async def test_a_batch_that_cannot_be_copied_counts_each_fault_once(
    pipeline: Assemble, database: str, module: bool
) -> None:
    async with pipeline() as ready:
        rows(database, "ALTER TABLE user_logins ADD CHECK (user_id <> 'e')")
        outcomes = await ready.processors[0].process(batch(MIXED))
        assert outcomes == [*OUTCOMES[:6], Outcome.QUARANTINED, Outcome.WRITTEN]
        counted = faults(ready)
        assert {code: counted[code] for code in ("not_json", "empty_field", "bad_ip")} == {
            "not_json": 1, "empty_field": 1, "bad_ip": 1,
        }  # fmt: skip
        assert sum(counted.values()) == 4
    assert [row[0] for row in rows(database, LOGINS)] == ["a", "b", "d", "f"]
    assert rows(database, BOOKS[2]) == [(4, 4, 0, 4, 0, None)]


async def test_several_lines_and_targets_are_in_the_books(
    pipeline: Assemble, database: str, module: bool
) -> None:
    bodies = [
        order(0, "a", "b", "c"),
        order(1),
        order(2, "ü", "too long"),
        json.dumps({"type": "unknown"}),
        json.dumps({"type": "order", "id": "o4", "total": 1e5, "lines": [{}]}),
        order(5, "z"),
    ]
    written = [0, 1, 3, 4, 5]
    async with pipeline(name="routed", route=ROUTES, unmatched="drop") as ready:
        assert isinstance(ready.processors[0].plan.encoder, NativeEncoder) is module
        outcomes = await ready.processors[0].process(batch(bodies))
        assert [i for i, one in enumerate(outcomes) if one is Outcome.WRITTEN] == written
        number = ready.sink_plan.id
    assert [row[:2] for row in rows(database, ORDERS[0])] == [
        ("o0", Decimal("0.1")), ("o1", Decimal("0.1")), ("o4", 100_000),
        ("o5", Decimal("0.1")),
    ]  # fmt: skip
    assert rows(database, ORDERS[1]) == [
        ("o0", 0, "a"), ("o0", 1, "b"), ("o0", 2, "c"), ("o4", 0, None), ("o5", 0, "z"),
    ]  # fmt: skip
    assert rows(database, BOOKS[2]) == [
        (5, 1, 0, 4, 1, None), (0, 0, 0, 5, 0, "public.order_lines"),
    ]  # fmt: skip
    session = await Session.connect(database)
    report = await verify(session, number)
    await session.close()
    assert report.ok, report.differences


async def test_a_delivery_that_comes_again_costs_its_batch_nothing(
    pipeline: Assemble, database: str, module: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pipeline() as ready:
        first = batch([login("a"), login("b"), "not json"])
        await ready.processors[0].process(first)
        again = [
            Message(
                one.message_id, "-", one.body, SystemAttributes(one.attributes.sent_timestamp, 2)
            )
            for one in first
        ]
        new = Message(str(uuid.uuid4()), "-", login("c"), SystemAttributes(SENT_MS))
        # By another processor of the process. What was quarantined, the ledger knows.
        mixed = [again[1], new, again[0], again[2]]
        assert await ready.processors[1].process(mixed) == [
            Outcome.DUPLICATE, Outcome.WRITTEN, Outcome.DUPLICATE, Outcome.DUPLICATE,
        ]  # fmt: skip
        monkeypatch.setattr(Sink, "_write_slow", None)  # whoever takes the slow path fails
        newer = Message(str(uuid.uuid4()), "-", login("d"), SystemAttributes(SENT_MS))
        assert await ready.processors[1].process([again[0], newer]) == [
            Outcome.DUPLICATE, Outcome.WRITTEN,
        ]  # fmt: skip
        assert await ready.processors[0].process(again[:2]) == [Outcome.DUPLICATE] * 2
        number = ready.sink_plan.id
    assert [row[0] for row in rows(database, LOGINS)] == ["a", "b", "c", "d"]
    assert rows(database, BOOKS[2]) == [
        (2, 1, 0, 2, 0, None), (1, 0, 3, 1, 0, None), (1, 0, 1, 1, 0, None),
        (0, 0, 2, 0, 0, None),
    ]  # fmt: skip
    session = await Session.connect(database)
    report = await verify(session, number)
    await session.close()
    assert report.ok, report.differences

"""Several targets, and several records per message: one transaction, and `verify` agrees."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from sqs2pg.message import Outcome
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.partitions import Converted, convert
from sqs2pg.postgres.verify import verify
from sqs2pg.runners.connect import connect
from sqs2pg.sqs.wire import OutgoingMessage
from tests.integration.support import Assemble, receive, rows, send
from tests.logins import login

ROUTES: list[dict[str, Any]] = [
    {
        "table": "orders",
        "when": {"field": "type", "equals": "order"},
        "field": [
            {"source": "id", "column": "id", "required": True},
            {"source": "total", "column": "total", "type": "numeric"},
            {"column": "tenant", "default": "attribute:tenant"},
            {"column": "sent_at", "type": "timestamptz", "default": "sent_time"},
        ],
    },
    {
        "table": "strange%s \"name'",
        "when": {"field": "type", "equals": "order"},
        "explode": "lines",
        "field": [
            {"source": "id", "column": "order_id"},
            {"source": "lines[].sku", "column": "sku", "length_max": 4},
            {"source": "lines[].gift", "column": "gift", "type": "boolean"},
        ],
    },
    {
        "table": "logins",
        "when": {"field": "type", "equals": "login"},
        "field": [{"source": "user", "column": "who", "type": "bigint", "mask": "pseudonymize"}],
    },
]
LINES = """SELECT order_id, sku, gift FROM "strange%s ""name'" ORDER BY 1, 2"""


def order(number: int, *skus: str) -> str:
    lines = [{"sku": sku, "gift": sku == "b"} for sku in skus]
    return json.dumps({"type": "order", "id": f"o{number}", "total": 0.1, "lines": lines})


async def balanced(database: str, pipeline: int, *, deep: bool = False) -> bool:
    session = await Session.connect(database)
    report = await verify(session, pipeline, deep=deep)
    await session.close()
    assert report.ok, report.differences
    return True


async def test_rows_of_several_targets_go_in_one_transaction(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(name="shop", route=ROUTES, unmatched="drop") as ready:
        bodies = [order(1, "a", "b"), order(2), '{"type": "login", "user": 9007199254740993}']
        await send(ready, [*bodies, '{"type": "ping"}', '{"type": "order"}'])
        messages = await receive(ready, 5)
        outcomes = await ready.processors[0].process(messages)
        assert outcomes.count(Outcome.WRITTEN) == 4
        assert outcomes.count(Outcome.QUARANTINED) == 1
        assert rows(database, "SELECT id, total::text FROM orders ORDER BY 1") == [
            ("o1", "0.1"),
            ("o2", "0.1"),
        ]
        assert rows(database, LINES) == [("o1", "a", False), ("o1", "b", True)]
        [(token,)] = rows(database, "SELECT who FROM logins")
        assert token.startswith("v1_")
        tally = rows(
            database,
            "SELECT target IS NULL, written, quarantined, target_rows, dropped FROM sqs2pg.tally"
            " ORDER BY id",
        )
        assert tally == [(True, 4, 1, 2, 1), (False, 0, 0, 2, 0), (False, 0, 0, 1, 0)]
        assert rows(database, "SELECT reason, detail FROM sqs2pg.quarantine") == [
            ("missing_field", "record 0 id")
        ]
        assert set(await ready.processors[1].process(messages)) == {Outcome.DUPLICATE}
        assert await balanced(database, ready.sink_plan.id)


async def test_a_row_rejected_in_one_target_sets_its_message_aside_alone(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(name="shop", route=ROUTES) as ready:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                """ALTER TABLE "strange%s ""name'" ADD CONSTRAINT no_x CHECK (sku <> 'x')"""
            )
        await send(ready, [order(i, "a", "b", *("x" if i in (7, 20) else "")) for i in range(30)])
        outcomes = await ready.processors[0].process(await receive(ready, 30))
        assert outcomes.count(Outcome.WRITTEN) == 28
        assert outcomes.count(Outcome.QUARANTINED) == 2
        assert rows(database, "SELECT count(*) FROM orders WHERE id IN ('o7', 'o20')") == [(0,)]
        assert len(rows(database, LINES)) == 56
        assert rows(database, "SELECT DISTINCT detail FROM sqs2pg.quarantine") == [("23514 no_x",)]
        assert await balanced(database, ready.sink_plan.id)


@pytest.mark.parametrize("table", ["orders", "logins", '"strange%s ""name\'"'])
async def test_verify_counts_every_target(pipeline: Assemble, database: str, table: str) -> None:
    async with pipeline(name="shop", route=ROUTES) as ready:
        await send(ready, [order(1, "a"), '{"type": "login", "user": 1}'])
        await ready.processors[0].process(await receive(ready, 2))
        assert await balanced(database, ready.sink_plan.id)
        rows(database, f"DELETE FROM {table}")
        session = await Session.connect(database)
        report = await verify(session, ready.sink_plan.id)
        await session.close()
        assert len(report.differences) == 1
        assert "(-1)" in report.differences[0]


async def test_an_attribute_is_asked_for_and_read(pipeline: Assemble, database: str) -> None:
    async with pipeline(name="shop", route=ROUTES) as ready:
        body = order(1)
        await send(ready, [OutgoingMessage(body, attributes={"tenant": "blue", "other": "x"})])
        [message] = await receive(ready, 1)
        assert set(message.message_attributes or {}) == {"tenant"}
        await ready.processors[0].process([message])
        assert rows(database, "SELECT tenant, sent_at FROM orders")[0][0] == "blue"


async def test_types_survive_the_way_into_the_database(pipeline: Assemble, database: str) -> None:
    types = {
        "integer": ("-2147483648", "-2147483648"),
        "bigint": ("9007199254740993", "9007199254740993"),
        "numeric": ("12345678901234567890.10", "12345678901234567890.10"),
        "double": ("0.1", "0.1"),
        "boolean": ("false", "false"),
        "date": ('"2020-02-29"', "2020-02-29"),
        "timestamptz": ('"2020-02-29T23:30:00.5-01:00"', "2020-03-01 00:30:00.5"),
        "uuid": ('"424CDD21-063A-43A7-B91B-7CA1A833AFAE"', "424cdd21-063a-43a7-b91b-7ca1a833afae"),
        "inet": ('"2001:DB8::1"', "2001:db8::1/128"),
        "jsonb": (r'{"a": "tab\t\\ \"é\"", "n": 1.10}', r'{"a": "tab\t\\ \"é\"", "n": 1.10}'),
        "version": ('"2.3"', "2003000"),
        "text": (r'"a\tb\\N\n"', "a\tb\\N\n"),
    }
    fields = [{"source": f"v.{name}", "column": name, "type": name} for name in types]
    body = ", ".join(f'"{name}": {given}' for name, (given, _) in types.items())
    async with pipeline(sink={"table": "everything"}, field=fields) as ready:
        await send(ready, [f'{{"v": {{{body}}}}}', '{"v": null}'])
        outcomes = await ready.processors[0].process(await receive(ready, 2))
        assert outcomes == [Outcome.WRITTEN] * 2
        names = ", ".join(f'"{name}"::text' for name in types)
        names = names.replace('"timestamptz"', "(\"timestamptz\" AT TIME ZONE 'UTC')")
        query = f'SELECT {names} FROM everything WHERE "text" IS NOT NULL'
        assert rows(database, query) == [tuple(expected for _, expected in types.values())]
        assert await balanced(database, ready.sink_plan.id)


async def test_a_conversion_moves_the_present_period_first_and_goes_on_where_it_ended(
    pipeline: Assemble, settings: Any, database: str
) -> None:
    """Once it is through, new rows pass the default partition, which the other moves lock."""
    parted = {"partition_by": "create_date", "partitions_ahead": 1}
    async with pipeline() as ready:
        present = rows(database, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-01')")[0][0]
        days = ["2024-02-29", present, "2023-05-01"]
        await send(ready, [login(i, create_date=day) for i, day in enumerate(days)])
        assert (await ready.consumer.run(drain_settle_s=0.2)).written == 3
    seen: list[int] = []

    def interrupt(done: Converted) -> None:
        seen.append(done.rows)
        raise InterruptedError

    session = await connect(settings(sink=parted))
    with pytest.raises(InterruptedError):
        await convert(session, settings(sink=parted), "user_logins", interrupt)
    left = "SELECT create_date::text FROM ONLY user_logins_default ORDER BY 1"
    assert rows(database, left) == [("2023-05-01",), ("2024-02-29",)]
    done = await convert(session, settings(sink=parted), "user_logins", lambda _: None)
    await session.close()
    assert (seen, done.rows, done.left) == ([1], 2, 0)
    assert rows(database, "SELECT count(*) FROM user_logins") == [(3,)]

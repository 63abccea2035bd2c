"""The vault on state tables: what is sealed, what an erasure leaves, and when a value goes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqs2pg.message import Outcome
from tests.integration.support import Assemble, rows
from tests.integration.test_state_tables import process
from tests.integration.vault_support import ON

FIELDS: list[dict[str, Any]] = [
    {"source": "id", "column": "order_id"},
    {"source": "v", "column": "version", "type": "bigint"},
    {"source": "user", "column": "user_id"},
    {"source": "ip", "column": "masked_ip", "mask": "pseudonymize", "kind": "ip", "recover": True},
    {"source": "phone", "column": "masked_phone", "mask": "pseudonymize", "recover": True},
    {"source": "note", "column": "note"},
]
COLUMNS = """(order_id text, version bigint, user_id text, masked_ip text, masked_phone text,
    note text CHECK (note <> 'bad'))"""
SINK: dict[str, Any] = {
    "table": "orders",
    "mode": "upsert",
    "key": ["order_id"],
    "newer": "version",
}
VAULT = {"vault": ON["vault"] | {"subject": "user"}, "field": FIELDS}
VALUES = "SELECT count(*) FROM pii.value"


def line(id_: str, version: int | None, user: str | None, ip: int = 0, **more: Any) -> str:
    """A message about an order; `ip` is the last number of the person's address."""
    address = f"192.0.2.{ip}" if ip else None
    return json.dumps({"id": id_, "v": version, "user": user, "ip": address} | more)


@pytest.fixture(autouse=True)
def orders(database: str, migrated_database: str) -> None:
    rows(database, f"CREATE TABLE orders {COLUMNS}; ALTER TABLE orders ADD PRIMARY KEY (order_id)")


def sealed(database: str) -> int:
    [(count,)] = rows(database, VALUES)
    assert isinstance(count, int)
    return count


def of_no_row(database: str) -> list[tuple[Any, ...]]:
    """Return the values that no row of the table has."""
    return rows(
        database,
        "SELECT v.field FROM pii.value v WHERE NOT EXISTS (SELECT FROM orders o"
        " WHERE v.token IN (o.masked_ip, o.masked_phone))",
    )


async def test_a_superseded_version_is_never_sealed(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=SINK, **VAULT) as ready:
        processor = ready.processors[0]
        await process(processor, [line("a", 5, "ann", 5), line("b", None, "bob", 6)])
        assert sealed(database) == 2
        outcomes = await process(
            processor,
            [
                line("a", 4, "ann", 4),  # older than the row
                line("a", 5, "ann", 55),  # as old
                line("b", None, "bob", 66),
                line("c", 1, "cid", 7),  # superseded in the batch
                line("c", 2, "cid", 8),
                line("c", 1, "cid", 9),
            ],
        )
        assert outcomes == [Outcome.WRITTEN] * 6
        assert of_no_row(database) == []
        assert sealed(database) == 3
        # Later it comes as the newest one, and is sealed: nothing has noted it as stored.
        await process(processor, [line("a", 6, "ann", 4)])
        assert sealed(database) == 4


async def test_a_person_whose_only_version_is_superseded_has_no_key(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink=SINK, **VAULT) as ready:
        await process(ready.processors[0], [line("a", 5, "ann", 1), line("a", 4, "bob", 1)])
        assert rows(database, "SELECT count(*) FROM pii.subject_key") == [(1,)]


async def test_an_ignored_row_is_never_sealed(pipeline: Assemble, database: str) -> None:
    sink = {"table": "orders", "mode": "ignore", "key": ["order_id"]}
    async with pipeline(sink=sink, **VAULT) as ready:
        processor = ready.processors[0]
        await process(processor, [line("a", 1, "ann", 1), line("a", 2, "ann", 2)])
        await process(processor, [line("a", 3, "ann", 3), line("b", 1, "bob", 4)])
        assert of_no_row(database) == []
        assert sealed(database) == 2
        await process(processor, [line("c", 1, "ann", 3)])
        assert sealed(database) == 3


async def test_what_a_row_keeps_of_an_older_line_is_sealed(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink=SINK | {"keep_if_null": True}, **VAULT) as ready:
        batch = [
            line("a", 1, "ann", 1, phone="1"),
            line("a", 2, "ann", phone="2"),
            line("a", 3, "ann"),
        ]
        await process(ready.processors[0], batch)
        assert of_no_row(database) == [("phone",)]  # of a line that the row has the address of
        assert sealed(database) == 3
        await process(ready.processors[0], [line("a", 2, "ann", 9)])
        assert sealed(database) == 3


@pytest.mark.parametrize("bad", [0, 3, 5])
async def test_the_slow_path_seals_what_is_left_in_the_end(
    pipeline: Assemble, database: str, bad: int
) -> None:
    batch = [line("a", version, "ann", version) for version in (1, 2, 3, 4)]
    batch += [line("b", 2, "bob", 22), line("b", 1, "bob", 21)]
    batch.insert(bad, line("c", 1, "cid", 3, note="bad"))
    async with pipeline(sink=SINK, **VAULT) as ready:
        outcomes = await process(ready.processors[0], batch)
        assert outcomes.count(Outcome.QUARANTINED) == 1
        assert rows(database, "SELECT order_id, version FROM orders ORDER BY 1") == [
            ("a", 4),
            ("b", 2),
        ]
        assert of_no_row(database) == []
        assert sealed(database) == 2


async def test_a_record_that_deletes_names_nobody_and_seals_nothing(
    pipeline: Assemble, database: str
) -> None:
    sink = SINK | {"delete_when": {"field": "op", "equals": "delete"}}
    async with pipeline(sink=sink, **VAULT) as ready:
        processor = ready.processors[0]
        await process(processor, [line("a", 1, "ann", 1)])
        outcomes = await process(
            processor,
            [
                line("a", 2, None, op="delete"),
                line("b", 2, "bob", 7, op="delete"),
                line("c", 2, None),
            ],
        )
        assert outcomes == [Outcome.WRITTEN, Outcome.WRITTEN, Outcome.QUARANTINED]
        assert rows(database, "SELECT reason FROM sqs2pg.quarantine") == [("no_subject",)]
        assert rows(database, "SELECT count(*) FROM orders") == [(0,)]
        assert rows(database, "SELECT count(*) FROM pii.subject_key") == [(1,)]


async def test_a_log_beside_the_state_table_has_every_version(
    pipeline: Assemble, database: str
) -> None:
    """Records of one message: some lines of it are superseded, in one target of two."""
    rows(database, f"CREATE TABLE order_log {COLUMNS}")
    route = {"field": FIELDS, "explode": "lines", "when": {"field": "lines", "exists": True}}
    fields = [field | {"source": f"lines[].{field['source']}"} for field in FIELDS]
    fields[2] = FIELDS[2]
    route |= {"field": fields}
    routes = [route | SINK, route | {"table": "order_log"}]

    def message(user: str, *lines: str) -> str:
        return json.dumps({"user": user, "lines": [json.loads(text) for text in lines]})

    async with pipeline(route=routes, vault=VAULT["vault"], sink={}) as ready:
        first = message("ann", line("a", 2, None, 2), line("a", 1, None, 1), line("b", 1, None, 3))
        assert await process(ready.processors[0], [first]) == [Outcome.WRITTEN]
        assert rows(database, "SELECT count(*) FROM order_log") == [(3,)]
        assert sealed(database) == 3  # the log holds all of them
    rows(database, "TRUNCATE order_log, orders, pii.value")
    async with pipeline(route=routes[:1], vault=VAULT["vault"], sink={}) as ready:
        assert await process(ready.processors[0], [first]) == [Outcome.WRITTEN]
        assert of_no_row(database) == []
        assert sealed(database) == 2

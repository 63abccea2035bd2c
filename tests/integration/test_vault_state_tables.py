"""The vault on state tables: what is sealed, what an erasure leaves, and when a value goes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sqs2pg.cli.forget import erase_people
from sqs2pg.mapping.native_encoder import NativeEncoder
from sqs2pg.message import Outcome
from sqs2pg.native import extension
from sqs2pg.postgres.maintenance import maintain
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.vault.reveal import reveal
from tests.integration.state_support import process
from tests.integration.support import Assemble, opened, rows
from tests.integration.vault_support import ON, keys_of
from tests.waiting import until

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


async def upkeep(ready: Pipeline) -> int:
    """Run upkeep as the pipeline's login; return how many values went."""
    async with opened(ready.settings) as session:
        return (await maintain(session, ready.sink_plan.id))["values_dropped"]


async def test_a_value_goes_once_no_row_has_its_token(pipeline: Assemble, database: str) -> None:
    async with pipeline(sink=SINK, **VAULT) as ready:
        processor = ready.processors[0]
        await process(processor, [line("a", 1, "ann", 1), line("b", 1, "ann", 1)])
        await process(processor, [line("a", 2, "ann", 2)])
        assert await upkeep(ready) == 0  # another row has it still
        await process(processor, [line("b", 2, "ann", 3)])
        assert await upkeep(ready) == 1
        assert of_no_row(database) == []
        assert sealed(database) == 2
        acts = "SELECT subject FROM sqs2pg.audit WHERE act = 'values_dropped'"
        assert rows(database, acts) == [("1 sealed values whose token no target holds any more",)]
        # Nobody takes it for stored: the same value that comes back is sealed again.
        await process(processor, [line("a", 3, "ann", 1)])
        assert sealed(database) == 3
        of_row = "SELECT count(*) FROM pii.value v JOIN orders o ON o.masked_ip = v.token"
        assert rows(database, of_row) == [(2,)]
        assert rows(database, "SELECT count(*) FROM pii.unheld") == [(0,)]


@pytest.mark.parametrize("recovers", [True, False])
async def test_what_a_log_holds_stays(pipeline: Assemble, database: str, *, recovers: bool) -> None:
    """Now or before, and whether the log's own fields are recoverable or not."""
    rows(database, f"CREATE TABLE order_log {COLUMNS}")
    unsealed = [field | {"recover": False} if "recover" in field else field for field in FIELDS]
    log = {"table": "order_log", "field": FIELDS if recovers else unsealed}
    state = SINK | {"field": FIELDS}
    ever = {"field": "id", "exists": True}
    routes = [state | {"when": ever}, log | {"when": ever}]
    async with pipeline(route=routes, vault=VAULT["vault"], sink={}) as ready:
        for version in (1, 2, 3):
            await process(ready.processors[0], [line("a", version, "ann", version)])
        assert await upkeep(ready) == 0
        assert sealed(database) == 3
    async with pipeline(route=routes[:1], vault=VAULT["vault"], sink={}) as ready:
        assert await upkeep(ready) == 0
        assert sealed(database) == 3


async def test_a_deleted_row_takes_its_values_along(pipeline: Assemble, database: str) -> None:
    sink = SINK | {"delete_when": {"field": "op", "equals": "delete"}}
    async with pipeline(sink=sink, **VAULT) as ready:
        processor = ready.processors[0]
        await process(processor, [line("a", 1, "ann", 1, phone="5"), line("b", 1, "bob", 2)])
        await process(processor, [line("a", 2, None, op="delete")])
        assert await upkeep(ready) == 2
        assert of_no_row(database) == []
        assert sealed(database) == 1


async def test_a_token_that_was_written_meanwhile_keeps_its_value(
    pipeline: Assemble, database: str
) -> None:
    """A batch writes it after the look for it, knows its value to be stored, and then commits."""
    async with pipeline(sink=SINK, **VAULT) as ready, opened(ready.settings) as session:
        processor = ready.processors[0]
        await process(processor, [line("a", 1, "ann", 1), line("b", 1, "bob", 3)])
        [(token,)] = rows(database, "SELECT masked_ip FROM orders WHERE order_id = 'a'")
        await process(processor, [line("a", 2, "ann", 2)])
        # The upkeep that has looked already waits for this batch.
        async with session.transaction():
            await session.execute("SELECT pii.lock_shared()")
            taking = asyncio.create_task(upkeep(ready))
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ExclusiveLock'"
            waits += " AND relation = 'pii.erasure_lock'::regclass"
            await until(lambda: rows(database, waits) == [(1,)], during=taking)
            await session.execute("UPDATE orders SET masked_ip = %s WHERE order_id = 'b'", [token])
        assert await taking == 0
        assert rows(database, "SELECT count(*) FROM pii.unheld") == [(0,)]
        [(kept,)] = rows(database, f"SELECT count(*) FROM pii.value WHERE token = '{token}'")
        assert kept == 1


async def test_a_value_that_is_taken_can_be_revealed_and_erased(
    pipeline: Assemble, database: str
) -> None:
    """Upkeep was killed between its two steps; the next one ends it."""
    async with pipeline(sink=SINK, **VAULT) as ready, opened(ready.settings) as session:
        processor = ready.processors[0]
        await process(processor, [line("a", 1, "ann", 1), line("b", 1, "bob", 2)])
        await process(processor, [line("a", 2, "ann", 3), line("b", 2, "bob", 4)])
        assert await session.execute("SELECT pii.take_unheld()") == [(2,)]
        keyring = keys_of(ready.settings)
        found = await reveal(session, keyring, user="ann", limit=9, reason="a test")
        assert sorted(one.value for one in found) == ["192.0.2.1", "192.0.2.3"]
        report = (await erase_people(ready.settings, ["ann"], "a test", "")).report
        assert report.values_removed == 2
        assert await upkeep(ready) == 1
        assert sealed(database) == 1


async def test_a_target_that_is_not_found_keeps_all_values(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(sink=SINK, **VAULT) as ready:
        await process(ready.processors[0], [line("a", 1, "ann", 1)])
        rows(database, "ALTER TABLE orders RENAME TO orders_before")
        assert await upkeep(ready) == 0
        assert sealed(database) == 1


async def test_a_rekey_goes_before_upkeep(pipeline: Assemble, database: str) -> None:
    """While rows have old tokens and the vault new ones, none is taken for unheld."""
    async with pipeline(sink=SINK, **VAULT) as ready:
        await process(ready.processors[0], [line("a", 1, "ann", 1)])
        rows(database, "INSERT INTO pii.token_map VALUES ('v1_00', 'v2_00')")
        rows(database, "UPDATE orders SET masked_ip = NULL")
        assert await upkeep(ready) == 0
        rows(database, "DELETE FROM pii.token_map")
        assert await upkeep(ready) == 1


async def test_the_extension_seals_and_remembers_as_python_does(
    pipeline: Assemble, database: str
) -> None:
    rows(database, "ALTER TABLE orders ALTER version TYPE text, DROP CONSTRAINT orders_pkey")
    rows(database, "ALTER TABLE orders ADD PRIMARY KEY (user_id, order_id)")
    fields = [FIELDS[0], {"source": "v", "column": "version"}, *FIELDS[2:5]]
    sink = SINK | {"key": ["user_id", "order_id"]}

    def text(id_: str, version: int, user: str, ip: int) -> str:
        return line(id_, version, user, ip).replace(f'"v": {version}', f'"v": "{version}"')

    async with pipeline(sink=sink, field=fields, vault=VAULT["vault"]) as ready:
        processor = ready.processors[0]
        assert isinstance(processor.plan.encoder, NativeEncoder) is (extension() is not None)
        batch = [text("a", 5, "ann", 5), text("a", 4, "ann", 4), text("b", 1, "ann", 1)]
        await process(processor, [*batch, text("c", 1, "bób", 8), text("c", 2, "bób", 9)])
        assert of_no_row(database) == []
        assert sealed(database) == 3
        await erase_people(ready.settings, ["ann", "bób"], "a test", "")
        assert rows(database, "SELECT count(*) FROM orders") == [(0,)]
        assert await process(processor, batch) == [Outcome.WRITTEN] * 3
        await process(processor, [text("c", 2, "bób", 9)])
        assert rows(database, "SELECT count(*) FROM orders") == [(0,)]
        assert sealed(database) == 0
        await process(processor, [text("a", 6, "ann", 6)])
        assert rows(database, "SELECT version FROM orders") == [("6",)]

"""Erasure on state tables: whose rows go, what is remembered of them, and what comes later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from sqs2pg.cli.forget import erase_people
from sqs2pg.message import RowChanges
from sqs2pg.settings import Settings
from sqs2pg.vault.erase import Erased
from tests.integration.state_support import write
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_targets import balanced
from tests.integration.vault_support import ON, rotate
from tests.waiting import BLOCKED, until

MASK = {"mask": "pseudonymize", "recover": True}
VERSION = {"source": "v", "column": "version", "type": "bigint"}
IP = {"source": "ip", "column": "masked_ip", "kind": "ip"} | MASK
ORDER_FIELDS = [
    {"source": "id", "column": "id"},
    VERSION,
    {"source": "user", "column": "user_id"},
    IP,
]
PERSON_FIELDS = [{"source": "user", "column": "user_id"}, VERSION, IP]
SINK: dict[str, Any] = {
    "table": "things",
    "mode": "upsert",
    "key": ["user_id"],
    "newer": "version",
    "digest": True,
}
VAULT = ON["vault"] | {"subject": "user"}
TOMBSTONES = "SELECT length(key), version::text FROM sqs2pg.tombstone ORDER BY 1, 2"
SUPERSEDED = RowChanges(superseded=1)
INSERTED = RowChanges(inserted=1)


def thing(user: str | None, version: int | None, ip: int = 7, **more: Any) -> str:
    address = f"192.0.2.{ip}" if ip else None
    return json.dumps({"user": user, "v": version, "ip": address} | more)


def table(database: str, columns: str, key: str) -> None:
    rows(database, f"CREATE TABLE things ({columns}, PRIMARY KEY ({key}))")


PEOPLE: dict[str, Any] = {"sink": SINK, "vault": VAULT, "field": PERSON_FIELDS}


@pytest.fixture
def person_table(database: str, migrated_database: str) -> None:
    table(database, "user_id text, version bigint, masked_ip text", "user_id")


@pytest.fixture
def erase(settings: Callable[..., Settings]) -> Any:
    async def run(overrides: dict[str, Any], *names: str, **options: Any) -> Erased:
        work = erase_people(settings(**overrides), list(names), "a test", "", **options)
        return (await work).report

    return run


@pytest.mark.usefixtures("person_table")
@pytest.mark.parametrize("masked", [False, True])
async def test_where_the_key_is_the_person_the_row_goes_and_stays_away(
    pipeline: Assemble, database: str, erase: Any, masked: bool
) -> None:
    person = PERSON_FIELDS[0] | (MASK if masked else {})
    chosen = {"sink": SINK, "vault": VAULT, "field": [person, *PERSON_FIELDS[1:]]}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5), thing("bob", 5))
        report = await erase(chosen, "ann")
        assert (report.found, report.rows_deleted, report.rows_changed) == (1, 1, 0)
        assert report.tables == {"public.things": 1}
        assert report.tables_deleted == ["public.things"]
        assert rows(database, TOMBSTONES) == [(16, "5")]
        for late in (4, 5, None):
            assert (await write(ready, thing("ann", late)))[1] == SUPERSEDED
        assert rows(database, "SELECT version FROM things") == [(5,)]
        assert rows(
            database, "SELECT count(*) FROM pii.subject_key WHERE destroyed_at IS NULL"
        ) == [(1,)]
        # A newer version is an event after the erasure: it is stored like a new person's.
        assert (await write(ready, thing("ann", 6)))[1] == INSERTED
        generations = "SELECT generation FROM pii.subject_key ORDER BY 1"
        assert rows(database, generations) == [(1,), (2,)]
        assert await balanced(database, ready.sink_plan.id, deep=True)
        tally = "SELECT sum(target_rows), sum(rows_deleted) FROM sqs2pg.tally WHERE kind = 'forget'"
        assert rows(database, tally) == [(-1, 1)]
        acts = "SELECT subject FROM sqs2pg.audit WHERE act = 'forget_done'"
        [(act,)] = rows(database, acts)
        assert act.endswith(", 1 rows deleted")


@pytest.mark.usefixtures("person_table")
async def test_a_tombstone_holds_nothing_personal(
    pipeline: Assemble, database: str, erase: Any
) -> None:
    async with pipeline(**PEOPLE) as ready:
        await write(ready, thing("ann", 5))
        [(reference,)] = rows(database, "SELECT subject FROM pii.subject_key")
        await erase(PEOPLE, "ann")
        [(key,)] = rows(database, "SELECT encode(key, 'hex') FROM sqs2pg.tombstone")
        assert key != reference.hex
        assert b"ann".hex() not in key


@pytest.mark.usefixtures("person_table")
async def test_a_row_without_a_version_is_remembered_as_the_oldest(
    pipeline: Assemble, database: str, erase: Any
) -> None:
    async with pipeline(**PEOPLE) as ready:
        await write(ready, thing("ann", None))
        await erase(PEOPLE, "ann")
        assert rows(database, TOMBSTONES) == [(16, "null")]
        assert (await write(ready, thing("ann", None)))[1] == SUPERSEDED
        assert (await write(ready, thing("ann", 0)))[1] == INSERTED
        await erase(PEOPLE, "ann")
        assert rows(database, TOMBSTONES) == [(16, "0")]


@pytest.mark.usefixtures("person_table")
@pytest.mark.parametrize("sink", [{"newer": ""}, {"newer": "", "mode": "ignore"}])
async def test_without_versions_a_later_message_is_a_new_persons(
    pipeline: Assemble, database: str, erase: Any, sink: dict[str, Any]
) -> None:
    chosen = {"sink": SINK | sink, "vault": VAULT, "field": PERSON_FIELDS}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5))
        assert (await erase(chosen, "ann")).rows_deleted == 1
        assert rows(database, TOMBSTONES) == []
        assert (await write(ready, thing("ann", 4)))[1] == INSERTED
        assert await balanced(database, ready.sink_plan.id, deep=True)


COMPOSITE = "user_id text, device text, version bigint, masked_ip text", "user_id, device"


@pytest.mark.parametrize(
    ("device", "column", "remembered"),
    [
        ({}, "text", [(32, "2"), (32, "9")]),
        ({"type": "integer"}, "integer", [(32, "2"), (32, "9")]),
        (MASK, "text", [(16, "9")]),  # nobody knows its value any more
        ({"mask": "pseudonymize"}, "text", [(16, "9")]),
        ({"type": "date"}, "date", [(32, "2"), (32, "9")]),
        ({"type": "timestamptz"}, "timestamptz(3)", [(32, "2"), (32, "9")]),
        ({}, "char(12)", [(32, "2"), (32, "9")]),
        ({"type": "interval"}, "interval", [(16, "9")]),  # it has several spellings
    ],
)
async def test_the_person_may_be_part_of_the_key(
    pipeline: Assemble,
    database: str,
    erase: Any,
    device: dict[str, Any],
    column: str,
    remembered: list[tuple[int, str]],
    migrated_database: str,
) -> None:
    table(database, COMPOSITE[0].replace("device text", f"device {column}"), COMPOSITE[1])
    fields = [*PERSON_FIELDS, {"source": "device", "column": "device"} | device]
    chosen = {"sink": SINK | {"key": ["device", "user_id"]}, "vault": VAULT, "field": fields}
    kind = device.get("type", "text")
    [one, other, third] = {
        "text": ["1", "2", "3"],
        "integer": [1, 2, 3],
        "date": ["2026-01-01", "2026-01-02", "2026-01-03"],
        "timestamptz": [f"2026-01-0{day}T10:00:00.1234+02:00" for day in (1, 2, 3)],
        "interval": ["P1D", "P2D", "P3D"],
    }[kind]
    async with pipeline(**chosen) as ready:
        both = thing("ann", 9, device=one), thing("ann", 2, device=other)
        await write(ready, *both, thing("bob", 1, device=one))
        assert (await erase(chosen, "ann")).rows_deleted == 2
        assert rows(database, TOMBSTONES) == remembered
        assert (await write(ready, thing("ann", 9, device=one)))[1] == SUPERSEDED
        assert (await write(ready, thing("ann", 2, device=other)))[1] == SUPERSEDED
        whole = remembered[0][0] == 32
        expected = INSERTED if whole else SUPERSEDED
        assert (await write(ready, thing("ann", 3, device=third)))[1] == expected
        assert (await write(ready, thing("ann", 10, device=other)))[1] == INSERTED
        assert (await write(ready, thing("bob", 2, device=one)))[1] == RowChanges(updated=1)
        assert await balanced(database, ready.sink_plan.id, deep=True)


@pytest.mark.usefixtures("person_table")
async def test_a_person_is_remembered_over_a_rotation(
    pipeline: Assemble,
    settings: Callable[..., Settings],
    database: str,
    erase: Any,
) -> None:
    """Their rows have old and new tokens, and their tombstone is found under either."""
    fields = [PERSON_FIELDS[0] | MASK, *PERSON_FIELDS[1:]]
    chosen = {"sink": SINK, "vault": VAULT, "field": fields}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 3), thing("bob", 3))
    rotate(settings(**chosen), database, "pseudonym")
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 7))
        assert (await erase(chosen, "ann", "bob")).rows_deleted == 3
        assert rows(database, TOMBSTONES) == [(16, "3"), (16, "7")]
        late = await write(ready, thing("ann", 7), thing("bob", 3), thing("bob", 2))
        assert late[1] == RowChanges(superseded=3)
    rotate(settings(**chosen), database, "pseudonym")
    async with pipeline(**chosen) as ready:
        late = await write(ready, thing("ann", 6), thing("bob", 2))
        assert late[1] == RowChanges(superseded=2)


ORDER_TABLE = "id text, version bigint, user_id text, masked_ip text", "id"
ORDERS = {"sink": SINK | {"key": ["id"]}, "vault": VAULT, "field": ORDER_FIELDS}


@pytest.mark.parametrize("more", [{}, {"keep_if_null": True}, {"newer": "", "mode": "ignore"}])
async def test_where_the_key_is_not_the_person_the_row_is_cleared(
    pipeline: Assemble, database: str, erase: Any, more: dict[str, Any], migrated_database: str
) -> None:
    table(database, *ORDER_TABLE)
    chosen = ORDERS | {"sink": ORDERS["sink"] | more}
    ignores = more.get("mode") == "ignore"
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5, id="a"), thing("bob", 5, id="b"))
        report = await erase(chosen, "ann")
        assert (report.rows_changed, report.rows_deleted, report.tables_deleted) == (1, 0, [])
        of_a = "SELECT version, user_id, masked_ip FROM things WHERE id = 'a'"
        [(version, random, token)] = rows(database, of_a)
        assert (version, token) == (5, None)
        assert random != "ann"
        for late in (4, 5, None):
            _, done = await write(ready, thing("ann", late, id="a"))
            assert done == (RowChanges(ignored=1) if ignores else SUPERSEDED)
        assert rows(database, of_a) == [(5, random, None)]
        assert rows(database, "SELECT count(*) FROM pii.value") == [(1,)]
        if not ignores:  # a newer version is a new event about them
            await write(ready, thing("ann", 6, id="a"))
            assert rows(database, of_a)[0][:2] == (6, "ann")
        assert await balanced(database, ready.sink_plan.id, deep=True)


async def test_a_masked_key_that_is_not_the_persons_id_stays(
    pipeline: Assemble, database: str, erase: Any, migrated_database: str
) -> None:
    """Two rows of one person would be one otherwise, and an older version would be a new row."""
    table(database, *ORDER_TABLE)
    chosen = ORDERS | {"field": [ORDER_FIELDS[0] | MASK, *ORDER_FIELDS[1:]]}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5, id="a"), thing("ann", 5, id="b"))
        assert (await erase(chosen, "ann")).rows_changed == 2
        assert (await write(ready, thing("ann", 4, id="a")))[1] == SUPERSEDED
        left = "SELECT count(DISTINCT id), count(masked_ip), count(DISTINCT user_id) FROM things"
        assert rows(database, left) == [(2, 0, 1)]


@pytest.mark.parametrize("masked", [False, True])
async def test_rows_may_be_deleted_instead(
    pipeline: Assemble, database: str, erase: Any, masked: bool, migrated_database: str
) -> None:
    """A key that is kept is remembered; of one that is masked nothing is known any more."""
    table(database, *ORDER_TABLE)
    key = ORDER_FIELDS[0] | (MASK if masked else {})
    chosen = ORDERS | {"field": [key, *ORDER_FIELDS[1:]]}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5, id="a"), thing("bob", 5, id="b"))
        report = await erase(chosen, "ann", delete_rows=True)
        assert report.rows_deleted == 1
        assert report.tables_forgotten == (["public.things"] if masked else [])
        assert rows(database, TOMBSTONES) == ([] if masked else [(16, "5")])
        _, done = await write(ready, thing("ann", 4, id="a"))
        assert done == (INSERTED if masked else SUPERSEDED)
        assert await balanced(database, ready.sink_plan.id, deep=True)


@pytest.mark.usefixtures("person_table")
async def test_what_came_before_is_not_kept_where_a_column_is_null(
    pipeline: Assemble, database: str, erase: Any
) -> None:
    """In one batch: an old version of an erased person, and a newer one that lacks the address."""
    chosen = {"sink": SINK | {"keep_if_null": True}, "vault": VAULT, "field": PERSON_FIELDS}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5))
        await erase(chosen, "ann")
        _, done = await write(ready, thing("ann", 4), thing("ann", 6, ip=0), thing("ann", 5))
        assert done == RowChanges(inserted=1, superseded=2)
        assert rows(database, "SELECT version, masked_ip FROM things") == [(6, None)]
        assert rows(database, "SELECT count(*) FROM pii.value") == [(0,)]


@pytest.mark.usefixtures("person_table")
async def test_a_record_that_deletes_and_an_erasure_share_tombstones(
    pipeline: Assemble, database: str, erase: Any
) -> None:
    sink = SINK | {"delete_when": {"field": "op", "equals": "delete"}}
    chosen = {"sink": sink, "vault": VAULT, "field": PERSON_FIELDS}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5))
        await write(ready, thing("ann", 7, op="delete"))
        report = await erase(chosen, "ann")
        assert (report.found, report.rows_deleted) == (1, 0)
        assert (await write(ready, thing("ann", 6)))[1] == SUPERSEDED
        await write(ready, thing("ann", 9))
        await erase(chosen, "ann")
        assert (await write(ready, thing("ann", 8)))[1] == SUPERSEDED
        assert rows(database, TOMBSTONES) == [(16, "9")]


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_person_stays_away_whether_the_vault_is_on_or_not(
    pipeline: Assemble, database: str, erase: Any, enabled: bool, migrated_database: str
) -> None:
    """Without an index that leads with the person's id, in a partitioned table."""
    rows(
        database,
        """CREATE TABLE things (device text, user_id text, version bigint, masked_ip text,
    PRIMARY KEY (device, user_id)) PARTITION BY LIST (device);
CREATE TABLE things_1 PARTITION OF things FOR VALUES IN ('1');
CREATE TABLE things_2 PARTITION OF things FOR VALUES IN ('2')""",
    )
    fields = [*PERSON_FIELDS, {"source": "device", "column": "device"}]
    if not enabled:
        fields = [*fields[:2], {"source": "ip", "column": "masked_ip"}, fields[3]]
    vault = VAULT | {"enabled": enabled}
    chosen = {"sink": SINK | {"key": ["device", "user_id"]}, "vault": vault, "field": fields}
    async with pipeline(**chosen) as ready:
        await write(ready, thing("ann", 5, device="1"), thing("ann", 6, device="2"))
        assert (await erase(chosen, "ann")).rows_deleted == 2
        assert rows(database, TOMBSTONES) == [(32, "5"), (32, "6")]
        assert (await write(ready, thing("ann", 5, device="2")))[1] == SUPERSEDED
        assert await balanced(database, ready.sink_plan.id, deep=True)


@pytest.mark.usefixtures("person_table")
async def test_a_dry_run_counts_what_would_be_deleted(
    pipeline: Assemble,
    settings: Callable[..., Settings],
    database: str,
) -> None:
    async with pipeline(**PEOPLE) as ready:
        await write(ready, thing("ann", 5))
        work = erase_people(settings(**PEOPLE), ["ann"], "a test", "", dry_run=True)
        report = (await work).report
        assert (report.rows_deleted, report.rows_changed, report.totals["rows"]) == (1, 0, 1)
        assert report.tables_deleted == ["public.things"]
        assert rows(database, TOMBSTONES) == []
        assert rows(database, "SELECT count(*) FROM things") == [(1,)]


@pytest.mark.usefixtures("person_table")
async def test_an_old_version_that_comes_beside_the_erasure_waits_for_it(
    pipeline: Assemble, database: str, erase: Any
) -> None:
    """A batch that has begun before the row is deleted looks for tombstones only afterwards."""
    async with pipeline(**PEOPLE) as ready, opened(ready.settings) as other:
        await write(ready, thing("ann", 5))
        # Holds up the erasure after it has locked the table, at the row that it deletes.
        async with other.transaction():
            await other.execute("SELECT FROM things WHERE user_id = 'ann' FOR UPDATE")
            erasing = asyncio.create_task(erase(PEOPLE, "ann"))
            await until(lambda: rows(database, BLOCKED) == [(1,)], during=erasing)
            writing = asyncio.create_task(write(ready, thing("ann", 4)))
            await until(lambda: rows(database, BLOCKED) == [(2,)], during=writing)
        report = await erasing
        _, done = await writing
        assert report.rows_deleted == 1
        assert done == SUPERSEDED
        assert rows(database, "SELECT count(*) FROM things") == [(0,)]
        assert await balanced(database, ready.sink_plan.id, deep=True)


@pytest.mark.parametrize(
    ("person", "column", "sent", "named"),
    [
        ({"trim": True, "lower": True}, "text", " Ann ", "ANN"),
        (MASK | {"kind": "email"}, "text", "Ann@Example.com", "ann@example.COM"),
        ({"type": "bigint"}, "bigint", 7, "7"),
        ({"type": "bigint"} | MASK, "text", 7, "7"),
        ({"type": "numeric"}, "numeric(12,2)", 7.5, "7.50"),
        (
            {"type": "uuid"},
            "uuid",
            "424CDD21-063A-43A7-B91B-7CA1A833AFAE",
            "424cdd21-063a-43a7-b91b-7ca1a833afae",
        ),
        ({}, "varchar(20)", "bób", "bo\u0301b"),
        ({"source": ["login", "user"]}, "text", "ann", "ann"),
        ({"mask": "encrypt_deterministic"}, "text", "ann", "ann"),
    ],
)
async def test_a_person_is_remembered_in_every_spelling(
    pipeline: Assemble,
    database: str,
    erase: Any,
    person: dict[str, Any],
    column: str,
    sent: Any,
    named: str,
    migrated_database: str,
) -> None:
    table(database, f"user_id {column}, version bigint, masked_ip text", "user_id")
    fields = [PERSON_FIELDS[0] | person, *PERSON_FIELDS[1:]]
    source = fields[0]["source"]
    vault = VAULT | {"subject": source[0] if isinstance(source, list) else source}
    chosen = {"sink": SINK, "vault": vault, "field": fields, "i_accept_reversible": True}
    async with pipeline(**chosen) as ready:
        assert (await write(ready, thing(sent, 5)))[1] == INSERTED
        assert (await erase(chosen, named)).rows_deleted == 1
        assert rows(database, TOMBSTONES) == [(16, "5")]
        assert (await write(ready, thing(sent, 4)))[1] == SUPERSEDED
        assert (await write(ready, thing(sent, 6)))[1] == INSERTED
        assert await balanced(database, ready.sink_plan.id, deep=True)

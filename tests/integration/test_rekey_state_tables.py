"""A rotation gives a masked key another token; a rekey makes one row of the two of each key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from sqs2pg.cli.keys import _refuse_split_keys
from sqs2pg.errors import SettingsError
from sqs2pg.message import Outcome
from sqs2pg.postgres.key_registry import verify_fingerprints
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.compile_subjects import recoverable_columns
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.vault.rekey import Rekeyed, Rekeyer
from tests.integration.state_support import process
from tests.integration.support import opened, rows
from tests.integration.test_targets import balanced
from tests.integration.vault_support import keys_of, rotate

MakeSettings = Callable[..., Settings]
PSEUDONYM = {"mask": "pseudonymize", "recover": True}
FIELDS: list[dict[str, Any]] = [
    {"source": "who", "column": "who", **PSEUDONYM},
    {"source": "shop", "column": "shop"},
    {"source": "version", "column": "version", "type": "bigint"},
    {"source": "state", "column": "state"},
    {"source": "address", "column": "address", **PSEUDONYM},
]
TABLE = """CREATE TABLE carts (
    part integer DEFAULT 7, who varchar(64), shop text, version bigint, state text, address text,
    PRIMARY KEY (shop, who))"""
UPSERT: dict[str, Any] = {
    "table": "carts",
    "mode": "upsert",
    "key": ["who", "shop"],
    "newer": "version",
    "digest": True,
}
ALL = "SELECT left(who, 3), shop, version, state, left(address, 3) FROM carts ORDER BY 2, 4, 1"
COLUMNS = ("who", "shop", "version", "state", "address")


@pytest.fixture
def carts(database: str, migrated_database: str) -> None:
    rows(database, TABLE)


pytestmark = pytest.mark.usefixtures("carts")


def chosen_with(settings: MakeSettings, **sink: Any) -> Settings:
    on = {"enabled": True, "subject": "who"}
    return settings(vault=on, sink=UPSERT | sink, field=FIELDS)


def cart(version: int | None, state: str | None, who: str = "ann", **more: Any) -> str:
    return json.dumps({"who": who, "shop": "s", "version": version, "state": state} | more)


async def write(chosen: Settings, *bodies: str) -> None:
    async with opened(chosen) as session:
        await migrate(session, chosen)
    async with Pipeline(chosen) as ready:
        assert set(await process(ready.processors[0], bodies)) <= {Outcome.WRITTEN}


async def rekey(chosen: Settings) -> Rekeyed:
    async with opened(chosen) as session:
        return await (await rekeyer(session, chosen)).run()


async def rekeyer(session: Any, chosen: Settings) -> Rekeyer:
    keyring = await verify_fingerprints(session, keys_of(chosen))
    columns = recoverable_columns(chosen, keyring)
    return Rekeyer(session, keyring, columns, chosen.targets)


async def assert_books_balance(chosen: Settings, database: str) -> None:
    [(number,)] = rows(database, "SELECT max(id) FROM sqs2pg.pipeline")
    assert await balanced(database, number, deep=True)


@pytest.mark.parametrize(
    ("sink", "before", "after", "left"),
    [
        ({}, (1, "old"), (2, "new"), (2, "new")),
        ({}, (3, "old"), (2, "new"), (3, "old")),
        ({}, (2, "old"), (2, "new"), (2, "old")),
        ({}, (None, "old"), (1, "new"), (1, "new")),
        ({}, (1, "old"), (None, "new"), (1, "old")),
        ({}, (None, "old"), (None, "new"), (None, "old")),
        ({}, (1, "old"), (2, None), (2, None)),
        ({"keep_if_null": True}, (1, "old"), (2, None), (2, "old")),
        ({"update": ["address"]}, (1, "old"), (2, "new"), (2, "old")),
        ({"newer": ""}, (2, "old"), (1, "new"), (1, "new")),
        ({"newer": "", "mode": "ignore"}, (1, "old"), (2, "new"), (1, "old")),
    ],
)
async def test_the_newest_version_stays(
    settings: MakeSettings, database: str, sink: dict[str, Any], before: Any, after: Any, left: Any
) -> None:
    chosen = chosen_with(settings, **sink)
    await write(chosen, cart(*before, address="a"), cart(1, "alone", who="bob"))
    rows(database, "UPDATE carts SET part = 1 WHERE state IS DISTINCT FROM 'alone'")
    rotate(chosen, database, "pseudonym")
    await write(chosen, cart(*after, address="b"), cart(1, "late", who="eve"))
    assert len(rows(database, ALL)) == 4
    await assert_books_balance(chosen, database)
    report = await rekey(chosen)
    assert (report.rows_merged, report.rows, report.rows_left) == (1, 2, 0)
    found = rows(database, ALL)
    assert ("v2_", "s", *left, "v2_") in found
    assert [state for _, _, _, state, _ in found if state in ("alone", "late")] == ["alone", "late"]
    assert len(found) == 3
    # A column that no message fills is the stored row's.
    assert rows(database, "SELECT count(*) FROM carts WHERE part = 1") == [(1,)]
    tally = "SELECT target_rows, rows_superseded FROM sqs2pg.tally WHERE kind = 'rekey'"
    assert rows(database, tally) == [(-1, 1)]
    await assert_books_balance(chosen, database)
    assert (await rekey(chosen)).rows_merged == 0
    await write(chosen, cart(9, "next"))
    assert ("v2_", "s", 9, "next", None) in rows(database, ALL) or sink
    await assert_books_balance(chosen, database)


@pytest.mark.parametrize("newer", ["version", ""])
@pytest.mark.parametrize("killed", [False, True])
async def test_rows_of_several_rotations_become_one(
    settings: MakeSettings, database: str, newer: str, *, killed: bool
) -> None:
    """`killed`: a rekey between the rotations has got no further than the values."""
    chosen = chosen_with(settings, newer=newer)
    await write(chosen, cart(1, "one"), cart(5, "one", who="bob"))
    rotate(chosen, database, "pseudonym")
    await write(chosen, cart(3, "two"), cart(4, "two", who="bob"))
    if killed:
        async with opened(chosen) as session:
            await (await rekeyer(session, chosen)).rekey_values()
    rotate(chosen, database, "pseudonym")
    await write(chosen, cart(2, "three"), cart(3, "three", who="bob"))
    assert len(rows(database, ALL)) == 6
    report = await rekey(chosen)
    assert (report.rows_merged, report.rows_left) == (4, 0)
    kept = [(3, "two"), (5, "one")] if newer else [(2, "three"), (3, "three")]
    found = [(version, state) for _, _, version, state, _ in rows(database, ALL)]
    assert sorted(found) == sorted(kept)
    assert rows(database, "SELECT DISTINCT left(who, 3) FROM carts") == [("v3_",)]
    await assert_books_balance(chosen, database)


async def test_a_value_that_has_tokens_of_two_older_versions_gets_one(
    settings: MakeSettings, database: str
) -> None:
    chosen = chosen_with(settings)
    await write(chosen, cart(1, "one", address="a"))
    rotate(chosen, database, "pseudonym")
    await write(chosen, cart(2, "two", address="a"))
    rotate(chosen, database, "pseudonym")
    await write(chosen)
    report = await rekey(chosen)
    assert (report.values, report.rows_merged, report.rows_left) == (4, 1, 0)
    assert rows(database, ALL) == [("v3_", "s", 2, "two", "v3_")]
    assert rows(database, "SELECT count(*) FROM pii.value") == [(2,)]
    await assert_books_balance(chosen, database)


def gone(version: int | None, who: str = "ann", **more: Any) -> str:
    return cart(version, None, who, op="delete", **more)


async def test_tombstones_hold_across_rotations(settings: MakeSettings, database: str) -> None:
    """A row with an old token, which no record that deletes finds, goes with the rekey."""
    chosen = chosen_with(settings, delete_when={"field": "op", "equals": "delete"})
    before = [
        cart(5, "deleted before", "ann"),
        cart(3, "deleted later", "bob"),
        cart(3, "deleted and back", "eve"),
        cart(3, "as new", "kim"),
        cart(9, "newer", "lee"),
        cart(None, "no version", "max"),
        cart(4, "merged and deleted", "zoe"),
    ]
    await write(chosen, *before)
    await write(chosen, gone(6, "ann"))
    rotate(chosen, database, "pseudonym")
    after = [
        cart(5, "late", "ann"),  # its tombstone is of the version before
        gone(5, "bob"),
        gone(5, "eve"),
        cart(7, "back", "eve"),
        gone(3, "kim"),
        gone(8, "lee"),
        gone(1, "max"),
        gone(6, "nobody"),
    ]
    await write(chosen, *after)
    rotate(chosen, database, "pseudonym")
    await write(chosen, gone(5, "zoe"), cart(4, "late", "bob"), cart(6, "again", "bob"))
    report = await rekey(chosen)
    assert (report.rows_deleted, report.rows_merged, report.rows_left) == (4, 0, 0)
    found = rows(database, "SELECT state, version FROM carts ORDER BY 1")
    assert found == [("again", 6), ("as new", 3), ("back", 7), ("newer", 9)]
    await write(chosen, cart(3, "late", "zoe"), cart(5, "late", "bob"), cart(8, "ann", "ann"))
    assert rows(database, "SELECT count(*) FROM carts WHERE state = 'late'") == [(0,)]
    assert rows(database, "SELECT count(*) FROM carts") == [(5,)]
    tally = "SELECT target_rows, rows_deleted FROM sqs2pg.tally WHERE kind = 'rekey'"
    assert rows(database, tally) == [(-4, 4)]
    await assert_books_balance(chosen, database)


async def test_a_deleted_row_of_a_key_with_other_columns_is_found(
    settings: MakeSettings, database: str
) -> None:
    """By what the table has of them, whatever spelling the messages had."""
    rows(
        database,
        """DROP TABLE carts;
CREATE TABLE carts (who varchar(64), shop char(4), day date, at timestamptz(0), price numeric(8, 2),
    id uuid, version bigint, state text, PRIMARY KEY (who, shop, day, at, price, id))""",
    )
    fields = [
        *FIELDS[:4],
        {"source": "day", "column": "day", "type": "date"},
        {"source": "at", "column": "at", "type": "timestamptz"},
        {"source": "price", "column": "price", "type": "numeric"},
        {"source": "id", "column": "id", "type": "uuid"},
    ]
    sink = UPSERT | {
        "key": ["shop", "day", "who", "at", "price", "id"],
        "delete_when": {"field": "op", "equals": "delete"},
    }
    chosen = settings(vault={"enabled": True, "subject": "who"}, sink=sink, field=fields)
    id_ = "018bcfe5-6c3a-7d2b-8e4f-0123456789ab"
    one = {"day": "2026-11-30", "at": "2026-11-30T10:00:00.2Z", "price": 7.5, "id": id_}
    other = {
        "day": "2026-11-30T05:00:00Z",
        "at": "2026-11-30T12:00:00+02:00",
        "price": 7.500,
        "id": id_.upper(),
        "shop": "s ",
    }
    await write(chosen, cart(1, "old", **one), cart(1, "stays", **one | {"price": 8}))
    rotate(chosen, database, "pseudonym")
    await write(chosen, gone(2, **other))
    assert (await rekey(chosen)).rows_deleted == 1
    assert rows(database, "SELECT state, left(who, 3) FROM carts") == [("stays", "v2_")]
    await assert_books_balance(chosen, database)


async def test_two_masked_columns_of_a_key_and_partitions(
    settings: MakeSettings, database: str
) -> None:
    rows(
        database,
        """DROP TABLE carts;
CREATE TABLE carts (who text, shop text, version bigint, state text, address text,
    PRIMARY KEY (who, address, shop)) PARTITION BY LIST (shop);
CREATE TABLE carts_s PARTITION OF carts FOR VALUES IN ('s');
CREATE TABLE carts_other PARTITION OF carts DEFAULT""",
    )
    chosen = chosen_with(settings, key=["who", "shop", "address"])
    bodies = [
        cart(version, f"{shop}{address}", shop=shop, address=address)
        for version in (1,)
        for shop in ("s", "t")
        for address in ("a", "b")
    ]
    await write(chosen, *bodies)
    rotate(chosen, database, "pseudonym")
    await write(chosen, cart(2, "new", shop="s", address="a"), cart(2, "more", address="c"))
    report = await rekey(chosen)
    assert (report.rows_merged, report.rows, report.rows_left) == (1, 4, 0)
    states = "SELECT state FROM carts ORDER BY 1"
    assert [s for (s,) in rows(database, states)] == ["more", "new", "sb", "ta", "tb"]
    await assert_books_balance(chosen, database)


async def test_the_merge_runs_while_messages_come_in(
    settings: MakeSettings, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqs2pg.vault.token_map.MERGED_AT_ONCE", 1)
    chosen = chosen_with(settings)
    people = [f"p{n}" for n in range(400)]
    await write(chosen, *(cart(1, "old", who=who) for who in people))
    rotate(chosen, database, "pseudonym")
    written = 1
    async with Pipeline(chosen) as ready:
        task = asyncio.create_task(rekey(chosen))
        while not task.done():
            written += 1
            bodies = [cart(written, "new", who=who) for who in people[::3]]
            outcomes = await process(ready.processors[0], bodies)
            assert set(outcomes) == {Outcome.WRITTEN}
        report = await task
    assert report.rows_left == 0
    assert report.rows == len(people)
    found = "SELECT count(*), count(DISTINCT who), max(version), left(min(who), 3) FROM carts"
    assert rows(database, found) == [(len(people), len(people), written, "v2_")]
    newest = "SELECT count(*) FROM carts WHERE version = (SELECT max(version) FROM carts)"
    assert rows(database, newest) == [(len(people[::3]),)]
    await assert_books_balance(chosen, database)


async def test_a_row_is_gone_before_its_values_go_to_another(
    settings: MakeSettings, database: str
) -> None:
    """Where another column than the key is unique, too."""
    chosen = chosen_with(settings)
    await write(chosen, cart(1, "old"))
    rotate(chosen, database, "pseudonym")
    await write(chosen, cart(2, "new"))
    rows(database, "CREATE UNIQUE INDEX ON carts (state)")
    assert (await rekey(chosen)).rows_merged == 1
    assert rows(database, ALL) == [("v2_", "s", 2, "new", None)]


@pytest.mark.parametrize(
    ("field", "vault", "refused"),
    [
        (PSEUDONYM, True, False),
        (PSEUDONYM | {"recover": False}, True, True),
        (PSEUDONYM, False, True),
        ({"mask": "encrypt_deterministic"}, True, True),
        ({"mask": "keep"}, True, False),
    ],
)
async def test_a_rotation_is_refused_only_where_a_key_is_not_recoverable(
    settings: MakeSettings, field: dict[str, Any], vault: bool, *, refused: bool
) -> None:
    fields = [{"source": "who", "column": "who"} | field, *FIELDS[1:4]]
    fields.append({"source": "id", "column": "id", "mask": "keep"})
    on = {"enabled": vault, "subject": "id"}
    chosen = settings(vault=on, sink=UPSERT, field=fields)
    if not refused:
        _refuse_split_keys(chosen)
        return
    with pytest.raises(SettingsError, match="who of carts") as told:
        _refuse_split_keys(chosen)
    assert told.value.code == "breaks_joins"
    assert "recover = true" in told.value.hint

"""People are erased from state tables while writers bring versions about them, in any order.

Random versions, redeliveries, cuts into batches and erasures, kills of writers and of erasures,
with several writers at once on a real PostgreSQL. At the end the newest version of each key is in
its row, or remembered as erased: whatever came late has changed nothing. And the vault has the
values of the rows, and no others.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from sqs2pg.cli.forget import erase_people
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline.processor import Processor
from sqs2pg.postgres.maintenance import maintain
from sqs2pg.runners.compile_subjects import person_columns_of
from sqs2pg.settings import Settings
from sqs2pg.vault.erased_keys import ErasedKeys
from sqs2pg.vault.reference_key import reference_key
from sqs2pg.vault.target_rows import with_column_types
from tests.integration.conftest import pipeline, settings  # noqa: F401  fixtures
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_targets import balanced
from tests.integration.vault_support import keys_of

WRITERS = 4
MESSAGES = 320
PEOPLE = 8
THINGS = 3
"""Devices, or orders, of a person."""
ERASURES = 12
KILL_SHARE = 0.2
"""Of the batches and of the erasures: they are cancelled at some point, and done again."""
KEYS = {"person": ["user_id"], "device": ["user_id", "thing"], "order": ["thing"]}
FIELDS: list[dict[str, Any]] = [
    {"source": "user", "column": "user_id"},
    {"source": "thing", "column": "thing"},
    {"source": "v", "column": "version", "type": "bigint"},
    {
        "source": "ip",
        "column": "masked_ip",
        "mask": "pseudonymize",
        "kind": "ip",
        "recover": True,
    },
]
OLDEST = -1
"""Stands for a version that is NULL."""


class Change(NamedTuple):
    """One message: a version of a key. A version has one content, wherever it comes again."""

    user: str
    thing: str
    version: int | None

    def body(self) -> str:
        content = (int(self.thing[1:]) * 7 + self.rank) % 250 + 1
        return json.dumps(
            {
                "user": self.user,
                "thing": self.thing,
                "v": self.version,
                "ip": f"192.0.{PEOPLE}.{content}",
            }
        )

    def key(self, columns: Sequence[str]) -> tuple[str, ...]:
        by_column = {"user_id": self.user, "thing": self.thing}
        return tuple(by_column[column] for column in columns)

    @property
    def rank(self) -> int:
        return OLDEST if self.version is None else self.version


def changes(draw: random.Random) -> list[Change]:
    made = []
    for _ in range(MESSAGES):
        person = draw.randrange(PEOPLE)
        thing = f"t{person}{draw.randrange(THINGS)}"
        made.append(Change(f"u{person}", thing, draw.choice([None, *range(40)])))
    return made


async def killed_now_and_then(begin: Callable[[], Any], draw: random.Random) -> Any:
    """Do some work to its end; cancel it before, now and then, and begin again."""
    kills = 0
    while True:
        task = asyncio.ensure_future(begin())
        if kills < 3 and draw.random() < KILL_SHARE:
            await asyncio.wait([task], timeout=draw.random() * 0.05)
            if task.cancel():
                kills += 1
        await asyncio.wait([task])
        if not task.cancelled():
            return task.result()


async def remembered(settings: Settings) -> ErasedKeys | None:  # noqa: F811
    keyring = keys_of(settings)
    async with opened(settings) as session:
        key = await reference_key(session, keyring)
        [target] = person_columns_of(settings, keyring, key)
        return (await with_column_types(session, target)).keys


def mark_of(keys: ErasedKeys, change: Change) -> bytes:
    by_column = {"user_id": change.user, "thing": change.thing}
    return keys.of_row(b"", [by_column[column] for column in keys.read])


def check_versions(
    database: str, history: Sequence[Change], key: Sequence[str], keys: ErasedKeys | None
) -> None:
    """Compare rows and tombstones with the newest version of each key."""
    newest: dict[tuple[str, ...], Change] = {}
    for change in sorted(history, key=lambda one: one.rank):
        newest[change.key(key)] = change
    found = rows(database, f"SELECT coalesce(version, {OLDEST}), {', '.join(key)} FROM things")
    held = {tuple(names): version for version, *names in found}
    erased = dict(rows(database, "SELECT key, coalesce(version::text, '') FROM sqs2pg.tombstone"))
    for name, change in newest.items():
        row = held.pop(name, None)
        gone = None
        if keys is not None and "user_id" in key:
            text = erased.get(mark_of(keys, change))
            gone = None if text is None else OLDEST if text == "null" else int(text)
        known = [version for version in (row, gone) if version is not None]
        assert known
        assert max(known) == change.rank
        assert row is None or gone is None or row > gone
    assert held == {}


@pytest.mark.parametrize("kind", KEYS)
async def test_nothing_that_comes_late_brings_a_person_back(
    settings: Callable[..., Settings],  # noqa: F811
    pipeline: Assemble,  # noqa: F811
    database: str,
    kind: str,
) -> None:
    draw = random.Random(kind)
    key = KEYS[kind]
    rows(
        database,
        "CREATE TABLE things (user_id text, thing text, version bigint, masked_ip text,"
        f" PRIMARY KEY ({', '.join(key)}))",
    )
    chosen: dict[str, Any] = {
        "sink": {
            "table": "things",
            "mode": "upsert",
            "key": key,
            "newer": "version",
            "connections": WRITERS,
            "digest": True,
        },
        "vault": {"enabled": True, "subject": "user"},
        "field": FIELDS,
    }
    history = changes(draw)
    now_ms = time.time_ns() // 10**6
    messages = [
        Message(
            str(UUID(int=draw.getrandbits(128), version=4)),
            "",
            change.body(),
            SystemAttributes(now_ms + draw.randrange(1000)),
        )
        for change in history
    ]
    delivered = [*messages, *draw.sample(messages, MESSAGES // 5)]
    draw.shuffle(delivered)
    batches = []
    while delivered:
        size = draw.choice([1, 2, 5, 15])
        batches.append(delivered[:size])
        del delivered[:size]

    async with pipeline(**chosen) as ready:
        ours = settings(**chosen)

        async def writer(processor: Processor, own: random.Random) -> None:
            while batches:
                batch = batches.pop()
                outcomes = [Outcome.RELEASED]
                while Outcome.RELEASED in outcomes:
                    outcomes = await killed_now_and_then(partial(processor.process, batch), own)

        async def eraser(own: random.Random) -> int:
            deleted = 0
            for _ in range(ERASURES):
                people = [f"u{n}" for n in own.sample(range(PEOPLE), own.choice([1, 1, 3]))]
                work = partial(erase_people, ours, people, "a test", "")
                report = (await killed_now_and_then(work, own)).report
                deleted += report.rows_deleted + report.rows_changed
            return deleted

        *_, deleted = await asyncio.gather(
            *(writer(one, random.Random(f"{kind} {i}")) for i, one in enumerate(ready.processors)),
            eraser(random.Random(f"{kind} erased")),
        )
        assert len(ready.processors) == WRITERS
        assert deleted > 0
        keys = await remembered(ours)
        check_versions(database, history, key, keys)
        before = rows(database, "SELECT * FROM things ORDER BY thing, user_id")
        # All of it once more, as other messages: no version is newer than what is known.
        again = [
            Message(str(UUID(int=draw.getrandbits(128), version=4)), "", m.body, m.attributes)
            for m in messages
        ]
        assert set(await ready.processors[0].process(again)) == {Outcome.WRITTEN}
        assert rows(database, "SELECT * FROM things ORDER BY thing, user_id") == before
        check_versions(database, history, key, keys)
        async with opened(ours) as session:
            await maintain(session, ready.sink_plan.id)
        values = rows(database, "SELECT DISTINCT token FROM pii.value ORDER BY 1")
        tokens = "SELECT DISTINCT masked_ip FROM things WHERE masked_ip IS NOT NULL ORDER BY 1"
        assert values == rows(database, tokens)
        assert rows(database, "SELECT count(*) FROM pii.unheld") == [(0,)]
        assert await balanced(database, ready.sink_plan.id, deep=True)

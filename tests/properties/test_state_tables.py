"""A state table ends as a model that sorts by version says, whatever happens on the way.

Random versions, deletes, redeliveries, cuts into batches and kills, with several writers at once on
a real PostgreSQL. Each version of a key has one content, or deletes: then the order of arrival says
nothing about the end.

`SQS2PG_STATE_KEYS=200000` makes the long run: four messages per key, and at least 50 kills.
`SQS2PG_STATE_SEEDS=50` tries the second test so often.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from sqs2pg.cli.forget import erase_people
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline.processor import Processor
from sqs2pg.postgres.key_registry import verify_fingerprints
from sqs2pg.runners.compile_subjects import recoverable_columns
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.settings import Settings
from sqs2pg.vault.rekey import Rekeyer
from tests.hypothesis_profiles import scaled
from tests.integration.conftest import pipeline, settings  # noqa: F401  fixtures
from tests.integration.support import Assemble, opened, rows
from tests.integration.test_targets import balanced
from tests.integration.vault_support import keys_of, rotate

WRITERS = 4
KEYS = int(os.environ.get("SQS2PG_STATE_KEYS", "150"))
LONG = KEYS >= 10_000
MESSAGES = 4 * KEYS
HOT = 25
"""Keys of every other message, so that writers and batches have versions of one key."""
SIZES = (20, 200, 1000, 2000) if LONG else (1, 2, 5, 20, 60)
"""Of batches."""
BAD_SHARE = 0.0005 if LONG else 0.03
KILL_SHARE = 0.1
"""Of the batches: their writer is killed at some point, and they are delivered again."""
KILL_S = 0.2 if LONG else 0.02
"""How long after its beginning a batch is killed, at most."""
KILLS_MIN = 50 if LONG else 1

VERSION = {"source": "version", "column": "version", "type": "bigint"}
STATE = {"source": "state", "column": "state"}
SINK: dict[str, Any] = {
    "table": "things",
    "mode": "upsert",
    "newer": "version",
    "delete_when": {"field": "op", "equals": "delete"},
    "connections": WRITERS,
    "digest": True,
}
NOT_BAD = "ALTER TABLE things ADD CHECK (state <> 'bad')"


class Shape(NamedTuple):
    """A form of the table and of its key."""

    table: str
    key: list[str]
    fields: list[dict[str, Any]]


SHAPES = {
    "plain": Shape(
        "CREATE TABLE things (id text PRIMARY KEY, version bigint, state text)",
        ["id"],
        [{"source": "id", "column": "id"}, VERSION, STATE],
    ),
    "masked": Shape(
        "CREATE TABLE things (who text UNIQUE, id text, version bigint, state text)",
        ["who"],
        [
            {"source": "id", "column": "who", "mask": "pseudonymize"},
            {"source": "name", "column": "id", "required": True},
            VERSION,
            STATE,
        ],
    ),
    "partitioned": Shape(
        """CREATE TABLE things (gone text, region text, id text, version bigint, state text,
    UNIQUE (id, region)) PARTITION BY LIST (region);
ALTER TABLE things DROP COLUMN gone;
CREATE TABLE things_east PARTITION OF things FOR VALUES IN ('east');
CREATE TABLE things_west (state text, version bigint, id text, region text);
ALTER TABLE things ATTACH PARTITION things_west FOR VALUES IN ('west')""",
        ["id", "region"],
        [
            {"source": "region", "column": "region"},
            {"source": "id", "column": "id"},
            VERSION,
            STATE,
        ],
    ),
}


class Change(NamedTuple):
    """One message: a version of a key, or its deletion, or one that PostgreSQL rejects."""

    key: int
    version: int | None
    deletes: bool
    bad: bool

    @property
    def state(self) -> str:
        return "bad" if self.bad else f"{self.key} as of {self.version}"

    def body(self) -> str:
        name = f"k{self.key}"
        said = {"id": name, "name": name, "region": "east" if self.key % 2 else "west"}
        said |= {"op": "delete" if self.deletes else "set", "state": self.state}
        return json.dumps(said | {"version": self.version})


def changes(draw: random.Random) -> list[Change]:
    """Draw a history. A version deletes or not, and is bad or not, wherever it comes again."""
    kinds: dict[tuple[int, int | None], tuple[bool, bool]] = {}
    made = []
    for number in range(MESSAGES):
        key = draw.randrange(HOT) if number % 2 else number // 2 % KEYS
        version = draw.choice([None, *range(12)])
        deletes = version is not None and draw.random() < 0.25
        bad = not deletes and draw.random() < BAD_SHARE
        made.append(Change(key, version, *kinds.setdefault((key, version), (deletes, bad))))
    return made


def model(history: Iterable[Change]) -> list[tuple[str, int | None, str]]:
    """Return the rows that are left: sorted by version, the last one of each key counts."""
    last: dict[int, Change] = {}
    for change in sorted(history, key=lambda one: (one.version is not None, one.version or 0)):
        if not change.bad:
            last[change.key] = change
    return sorted((f"k{c.key}", c.version, c.state) for c in last.values() if not c.deletes)


class Deliveries:
    """A history as messages, in batches cut at random, with redeliveries to any writer."""

    def __init__(self, history: Sequence[Change], draw: random.Random) -> None:
        self._history = history
        self._ids = [draw.getrandbits(128) for _ in history]
        self._now_ms = time.time_ns() // 10**6
        order = [*range(len(history)), *draw.sample(range(len(history)), len(history) // 5)]
        draw.shuffle(order)
        self.batches: list[list[int]] = []
        while order:
            size = draw.choice(SIZES)
            self.batches.append(order[:size])
            del order[:size]

    def next(self) -> list[Message]:
        """Return the messages of the next batch."""
        return [
            Message(
                str(UUID(int=self._ids[index], version=4)),
                "",
                self._history[index].body(),
                SystemAttributes(self._now_ms + self._ids[index] % 1000),
            )
            for index in self.batches.pop()
        ]


class Killer:
    """Kills the writer of a batch now and then: by itself, or its session by the server."""

    def __init__(self, draw: random.Random, database: str) -> None:
        self._draw = draw
        self._database = database
        self.kills = 0

    async def settle(self, processor: Processor, batch: Sequence[Message]) -> None:
        """Process a batch until it is settled."""
        kills = 0
        while True:
            task = asyncio.ensure_future(processor.process(batch))
            # The first batch is killed at once, so that there are kills on a fast machine, too.
            at_once = not self.kills
            if at_once or (kills < 3 and self._draw.random() < KILL_SHARE):
                await asyncio.wait([task], timeout=0 if at_once else self._draw.random() * KILL_S)
                if not task.done():
                    kills += 1
                    self.kills += 1
                    if at_once or self._draw.random() < 0.5:
                        task.cancel()
                    else:
                        self._terminate_one()
            await asyncio.wait([task])
            if task.cancelled():
                continue
            if Outcome.RELEASED not in task.result():
                return

    def _terminate_one(self) -> None:
        """End one of the sessions that write, whichever it is."""
        writing = "datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
        rows(
            self._database,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {writing} LIMIT 1",
        )


async def deliver(
    ready: Pipeline, deliveries: Deliveries, draw: random.Random, database: str, left: int = 0
) -> int:
    """Let all writers deliver until so many batches are left; return the number of kills."""

    async def writer(processor: Processor, seed: float) -> int:
        killer = Killer(random.Random(seed), database)
        while len(deliveries.batches) > left:
            await killer.settle(processor, deliveries.next())
        return killer.kills

    return sum(await asyncio.gather(*(writer(one, draw.random()) for one in ready.processors)))


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_table_ends_as_the_model_says(
    pipeline: Assemble,  # noqa: F811
    database: str,
    shape: str,
) -> None:
    draw = random.Random(shape)
    made = SHAPES[shape]
    rows(database, f"{made.table}; {NOT_BAD}")
    history = changes(draw)
    deliveries = Deliveries(history, draw)
    async with pipeline(sink=SINK | {"key": made.key}, field=made.fields) as ready:
        assert len(ready.processors) == WRITERS

        kills = await deliver(ready, deliveries, draw, database)
        assert kills >= KILLS_MIN
        assert rows(
            database, 'SELECT id, version, state FROM things ORDER BY id COLLATE "C"'
        ) == model(history)
        # One that is superseded on arrival is never looked at.
        [(quarantined,)] = rows(database, "SELECT count(*) FROM sqs2pg.quarantine")
        assert quarantined <= sum(change.bad for change in history)
        assert rows(database, "SELECT count(*) FROM sqs2pg.key_guard") == [(0,)]
        [(deleted,)] = rows(database, "SELECT sum(rows_deleted) FROM sqs2pg.tally")
        assert deleted > 0
        assert await balanced(database, ready.sink_plan.id, deep=True)
        print(f"{shape}: {KEYS} keys, {MESSAGES} messages, {kills} kills")


PEOPLE = Shape(
    "CREATE TABLE things (who text PRIMARY KEY, id text, version bigint, state text)",
    ["who"],
    [
        {"source": "id", "column": "who", "mask": "pseudonymize", "recover": True},
        {"source": "name", "column": "id", "required": True},
        VERSION,
        STATE,
    ],
)
ROUNDS = 5
SEEDS = int(os.environ.get("SQS2PG_STATE_SEEDS", scaled(2, 50)))


async def rekeyed(chosen: Settings) -> None:
    """Give all rows the tokens of the active root."""
    async with opened(chosen) as session:
        keyring = await verify_fingerprints(session, keys_of(chosen))
        columns = recoverable_columns(chosen, keyring)
        await Rekeyer(session, keyring, columns, chosen.targets).run()


async def erased(chosen: Settings, database: str, draw: random.Random) -> list[Change]:
    """Erase a few of the people in the table; return what the model has to know of it."""
    found = dict(rows(database, "SELECT id, max(version) FROM things GROUP BY 1"))
    people = draw.sample(sorted(found), min(3, len(found)))
    report = (await erase_people(chosen, people, "a test", "")).report
    assert report.found == len(people)
    return [Change(int(name[1:]), found[name], deletes=True, bad=False) for name in people]


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_rotations_and_erasures_change_nothing_of_that(
    pipeline: Assemble,  # noqa: F811
    settings: Callable[..., Settings],  # noqa: F811
    database: str,
    seed: int,
) -> None:
    """The key is the person: an erasure is a deletion of the version that was there."""
    draw = random.Random(seed)
    rows(database, f"{PEOPLE.table}; {NOT_BAD}")
    history = changes(draw)
    deliveries = Deliveries(history, draw)
    size = len(deliveries.batches)
    ends: list[Change] = []
    options: dict[str, Any] = {
        "sink": SINK | {"key": PEOPLE.key},
        "field": PEOPLE.fields,
        "vault": {"enabled": True, "subject": "id"},
    }
    chosen = settings(**options)
    for number in reversed(range(ROUNDS)):
        async with pipeline(**options) as ready:
            await deliver(ready, deliveries, draw, database, left=size * number // ROUNDS)
        ends += await erased(chosen, database, draw)
        if draw.random() < 0.7:
            rotate(chosen, database, "pseudonym")
        if draw.random() < 0.4:
            await rekeyed(chosen)
    await rekeyed(chosen)
    # Of equal versions an erasure is the last: the row had come before.
    assert rows(database, 'SELECT id, version, state FROM things ORDER BY id COLLATE "C"') == model(
        [*history, *ends]
    )
    [(pipeline_id,)] = rows(database, "SELECT max(id) FROM sqs2pg.pipeline")
    assert await balanced(database, pipeline_id, deep=True)

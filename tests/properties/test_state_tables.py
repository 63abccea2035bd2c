"""A state table ends as a model that sorts by version says, whatever happens on the way.

Random versions, deletes, redeliveries, cuts into batches and kills, with several writers at once on
a real PostgreSQL. Each version of a key has one content, or deletes: then the order of arrival says
nothing about the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline.processor import Processor
from tests.integration.conftest import pipeline, settings  # noqa: F401  fixtures
from tests.integration.support import Assemble, rows
from tests.integration.test_targets import balanced

WRITERS = 4
MESSAGES = 600
KEYS = 25
KILL_SHARE = 0.1
"""Of the batches: their writer is cancelled at some point, and they are delivered again."""
FIELDS: list[dict[str, Any]] = [
    {"source": "id", "column": "id"},
    {"source": "version", "column": "version", "type": "bigint"},
    {"source": "state", "column": "state"},
]
SINK: dict[str, Any] = {
    "table": "things",
    "mode": "upsert",
    "key": ["id"],
    "newer": "version",
    "delete_when": {"field": "op", "equals": "delete"},
    "connections": WRITERS,
    "digest": True,
}
TABLE = """CREATE TABLE things (id text PRIMARY KEY, version bigint, state text);
ALTER TABLE things ADD CHECK (state <> 'bad')"""


class Change(NamedTuple):
    """One message: a version of a key, or its deletion, or one that PostgreSQL rejects."""

    key: str
    version: int | None
    deletes: bool
    bad: bool

    @property
    def state(self) -> str:
        return "bad" if self.bad else f"{self.key} as of {self.version}"

    def body(self) -> str:
        op = "delete" if self.deletes else "set"
        return json.dumps({"id": self.key, "version": self.version, "op": op, "state": self.state})


def changes(draw: random.Random) -> list[Change]:
    """Draw a history. A version deletes or not, and is bad or not, wherever it comes again."""
    kinds: dict[tuple[str, int | None], tuple[bool, bool]] = {}
    made = []
    for _ in range(MESSAGES):
        key = f"k{draw.randrange(KEYS)}"
        version = draw.choice([None, *range(12)])
        deletes = version is not None and draw.random() < 0.25
        bad = not deletes and draw.random() < 0.03
        made.append(Change(key, version, *kinds.setdefault((key, version), (deletes, bad))))
    return made


def model(history: Sequence[Change], *, deletes: bool = True) -> list[tuple[str, int | None, str]]:
    """Return the rows that are left: sorted by version, the last one of each key counts."""
    last: dict[str, Change] = {}
    for change in sorted(history, key=lambda one: (one.version is not None, one.version or 0)):
        if not change.bad:
            last[change.key] = change
    return sorted((c.key, c.version, c.state) for c in last.values() if not c.deletes)


async def settle(
    processor: Processor, batch: Sequence[Message], draw: random.Random, *, first: bool
) -> int:
    """Process a batch until it is settled; return how many kills that took.

    A writer's first batch is killed at once, so that there are kills however fast the machine is.
    """
    kills = 0
    while True:
        task = asyncio.ensure_future(processor.process(batch))
        at_once = first and not kills
        if at_once or (kills < 3 and draw.random() < KILL_SHARE):
            await asyncio.wait([task], timeout=0 if at_once else draw.random() * 0.02)
            if task.cancel():
                kills += 1
            await asyncio.wait([task])
            if task.cancelled() or task.exception() is not None:
                continue
        outcomes = await task
        if Outcome.RELEASED not in outcomes:
            return kills


@pytest.mark.parametrize("seed", range(3))
async def test_the_table_ends_as_the_model_says(
    pipeline: Assemble,  # noqa: F811
    database: str,
    seed: int,
) -> None:
    draw = random.Random(seed)
    rows(database, TABLE)
    history = changes(draw)
    now_ms = time.time_ns() // 10**6
    messages = [
        Message(str(UUID(int=draw.getrandbits(128), version=4)), "", change.body(), attributes)
        for change, attributes in (
            (change, SystemAttributes(now_ms + draw.randrange(1000))) for change in history
        )
    ]
    again = draw.sample(messages, MESSAGES // 5)  # redeliveries, to any writer
    delivered = [*messages, *again]
    draw.shuffle(delivered)
    batches = []
    while delivered:
        size = draw.choice([1, 2, 5, 20, 60])
        batches.append(delivered[:size])
        delivered = delivered[size:]

    async with pipeline(sink=SINK, field=FIELDS) as ready:

        async def writer(processor: Processor, own: random.Random) -> int:
            kills = 0
            while batches:
                kills += await settle(processor, batches.pop(), own, first=not kills)
            return kills

        kills = await asyncio.gather(
            *(writer(one, random.Random(f"{seed} {i}")) for i, one in enumerate(ready.processors))
        )
        assert len(ready.processors) == WRITERS
        assert sum(kills) > 0
        assert rows(database, "SELECT id, version, state FROM things ORDER BY 1") == model(history)
        bad = len({m.message_id for m, c in zip(messages, history, strict=True) if c.bad})
        [(quarantined,)] = rows(database, "SELECT count(*) FROM sqs2pg.quarantine")
        assert quarantined <= bad  # one that is superseded on arrival is never looked at
        assert rows(database, "SELECT count(*) FROM sqs2pg.key_guard") == [(0,)]
        [(deleted,)] = rows(database, "SELECT sum(rows_deleted) FROM sqs2pg.tally")
        assert deleted > 0
        assert await balanced(database, ready.sink_plan.id, deep=True)

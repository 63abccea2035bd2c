"""The search for messages that PostgreSQL refuses alone, with a database that is made up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline import isolation
from sqs2pg.pipeline.isolation import AWAY_FIRST_S, AWAY_MAX_S, Isolation
from sqs2pg.pipeline.poison import Suspects
from sqs2pg.pipeline.refusals import ALIKE_MIN, ATTEMPTS, TIMEOUT_ATTEMPTS, WORLD_ATTEMPTS
from sqs2pg.telemetry.metrics import Metrics


def message(number: int, receives: int = 1, group: str | None = None) -> Message:
    attributes = SystemAttributes(0, receives, group, str(number) if group else None)
    return Message(f"m{number}", "-", "{}", attributes)


class Database:
    """Refuses the batches that have one of `bad`, as processor and sink of one."""

    def __init__(self, bad: Collection[str], code: str = "postgres_42P01") -> None:
        self.bad, self.code = set(bad), code
        self.sink = self
        self.batch_id = "b"
        self.last_fault: TransientFault | None = None
        self.written: list[str] = []
        self.rehearses: Callable[[], object] = lambda: None
        self.failed = 0
        self.limit_s: int | None = None

    async def process(self, messages: Sequence[Message], *_: object) -> list[Outcome]:
        names = [one.message_id for one in messages]
        if self.bad & set(names):
            self.failed += 1
            self.last_fault = TransientFault("", code=self.code, table="public.t")
            return [Outcome.RELEASED] * len(names)
        self.written += names
        return [Outcome.WRITTEN] * len(names)

    async def rehearse(self) -> Any:
        return self.rehearses()

    @contextmanager
    def probing(self, timeout_s: int) -> Iterator[None]:
        self.limit_s = timeout_s
        yield
        self.limit_s = None


class Queue:
    """What is released, and for how long it is invisible."""

    def __init__(self, *, fifo: bool) -> None:
        self.is_fifo = fifo
        self.away: dict[str, int] = {}

    async def release(self, messages: Sequence[Message], visible_in_s: int = 0) -> None:
        self.away |= {one.message_id: visible_in_s for one in messages}


class World:
    """One isolation between a made-up database and queue."""

    def __init__(
        self,
        bad: Collection[str],
        code: str = "postgres_42P01",
        *,
        fifo: bool = False,
        buffered: Sequence[Message] = (),
    ) -> None:
        self.database, self.queue = Database(bad, code), Queue(fifo=fifo)
        self.ended: list[str] = []
        self.isolation = Isolation(
            cast("Any", self.queue),
            Suspects(100, fifo=fifo),
            Metrics(),
            lambda groups: [m for m in buffered if m.attributes.message_group_id in groups],
        )

    def end(self, batch: list[Message], outcomes: Sequence[Outcome]) -> list[Message]:
        done = [m for m, o in zip(batch, outcomes, strict=True) if o.settled]
        self.ended += [m.message_id for m in done]
        return [m for m in batch if m not in done]

    async def search(self, batch: Sequence[Message]) -> isolation.Found:
        await self.database.process(batch)
        assert self.database.last_fault
        self.database.failed = 0
        processor = cast("Any", self.database)
        fault = self.database.last_fault
        return await self.isolation.search(processor, batch, fault, self.end, time.monotonic())


BATCH = [message(n) for n in range(1_000)]


@pytest.mark.parametrize("bad", [0, 1, 499, 500, 998, 999])
async def test_one_bad_message_costs_at_most_as_many_failures_as_halvings(bad: int) -> None:
    world = World([f"m{bad}"])
    found = await world.search(BATCH)
    assert (found.left, found.released, world.queue.away) == ([], 1, {f"m{bad}": AWAY_FIRST_S})
    assert sorted(world.ended) == sorted(world.database.written)
    assert len(world.ended) == 999
    assert world.database.failed <= 12
    assert world.isolation.away() == [f"m{bad}"]


@pytest.mark.parametrize("count", [2, 30, 300, 990])
async def test_many_bad_messages_are_all_found_and_no_other(count: int) -> None:
    bad = {f"m{n}" for n in range(count)}
    world = World(bad)
    found = await world.search(BATCH)
    if found.left:  # 990 of 1,000: ten of ten may be bad
        assert count == 990
        assert {m.message_id for m in found.left} == {m.message_id for m in BATCH} - {*world.ended}
        assert not world.queue.away
    else:
        assert world.queue.away.keys() == bad
        assert len(world.ended) == 1_000 - count


async def test_where_all_are_refused_alike_the_world_is_at_fault() -> None:
    world = World([m.message_id for m in BATCH])
    found = await world.search(BATCH)
    assert [m.message_id for m in found.left] == [m.message_id for m in BATCH]
    assert found.alike
    assert not world.queue.away
    assert world.database.failed <= 3 * ALIKE_MIN + 10


@pytest.mark.parametrize(("bad", "alike"), [(1, False), (9, False), (10, True)])
async def test_ten_refused_before_one_is_written_may_be_all_and_fewer_are_not(
    bad: int, alike: bool
) -> None:
    batch = [message(n, group=f"g{n}") for n in range(40)]
    world = World([f"m{n}" for n in range(bad)], fifo=True)  # in order: the bad ones come first
    found = await world.search(batch)
    assert found.alike is alike
    assert len(world.queue.away) == (0 if alike else bad)
    assert len(world.ended) == (0 if alike else 40 - bad)


@pytest.mark.parametrize("at", [0, 1])
async def test_a_rehearsal_that_fails_before_or_after_leaves_everything_held(at: int) -> None:
    world = World(["m3"])
    answers: list[Any] = [None, None]

    def away() -> object:
        raise TransientFault("away", code="postgres_08001")

    world.database.rehearses = lambda: away() if len(answers) == 2 - at else answers.pop()
    found = await world.search(BATCH[:8])
    held = [m.message_id for m in found.left]
    assert held == (["m3"] if at else [m.message_id for m in BATCH[:8]])
    assert not world.queue.away


@pytest.mark.parametrize("code", ["postgres_08006", "postgres_53100", "postgres_no_answer"])
async def test_a_fault_of_connection_or_disk_needs_another_message_that_is_written(
    code: str,
) -> None:
    alone = World(["m3"], code)
    assert [m.message_id for m in (await alone.search([BATCH[3]])).left] == ["m3"]
    assert not alone.queue.away
    among = World(["m3"], code)
    assert (await among.search(BATCH[:8])).left == []
    assert among.queue.away.keys() == {"m3"}


async def test_a_fault_that_is_not_postgresqls_ends_the_search() -> None:
    world = World(["m3"])

    async def process(messages: Sequence[Message], *_: object) -> list[Outcome]:
        world.database.last_fault = TransientFault("", code="aws_timeout")
        return [Outcome.RELEASED] * len(messages)

    await world.database.process(BATCH[:8])
    fault = world.database.last_fault
    assert fault
    world.database.process = process  # type: ignore[method-assign]  # S3 goes away meanwhile
    found = await world.isolation.search(
        cast("Any", world.database), BATCH[:8], fault, world.end, 0.0
    )
    assert len(found.left) == 8


async def test_an_isolated_message_is_tried_alone_and_put_away_for_twice_as_long() -> None:
    world = World(["m3"])
    await world.search(BATCH[:8])
    seen = []
    for receives in range(2, 12):
        again = message(3, receives)
        parts = world.isolation.split([again, BATCH[9]])
        assert [[m.message_id for m in part] for part in parts] == [["m9"], ["m3"]]
        outcomes = await world.isolation.process(cast("Any", world.database), [again])
        assert outcomes == [Outcome.RELEASED]
        assert world.isolation.is_due([again], world.database.last_fault, 1)
        await world.search([again])
        seen.append(world.queue.away["m3"])
        await world.isolation.process(cast("Any", world.database), [BATCH[9]])  # written meanwhile
    doubled = [AWAY_FIRST_S * 2**n for n in range(1, 11)]
    assert seen == [min(AWAY_MAX_S, away) for away in doubled]
    world.database.bad.clear()
    assert await world.isolation.process(cast("Any", world.database), [message(3, 20)]) == [
        Outcome.WRITTEN
    ]
    assert world.isolation.away() == []


async def test_batches_of_one_are_held_too_until_another_message_is_written() -> None:
    """A slow queue has batches of one: a table at fault must not send all to the dead letters."""
    world = World([f"m{n}" for n in range(30)])
    for n in range(ALIKE_MIN - 1):
        assert not (await world.search([message(n)])).left
    found = await world.search([message(20)])
    assert ([m.message_id for m in found.left], found.alike) == (["m20"], True)
    assert not (await world.search([message(0, 2)])).left, "isolated before"
    await world.isolation.process(cast("Any", world.database), [message(99)])
    assert not (await world.search([message(20)])).left
    assert world.queue.away.keys() == {"m20", *(f"m{n}" for n in range(ALIKE_MIN - 1))}


@pytest.mark.parametrize("codes", [["postgres_57014"], []])
async def test_one_that_is_not_refused_twice_alike_is_not_isolated(codes: list[str]) -> None:
    world = World([])
    left = list(codes)

    async def process(messages: Sequence[Message], *_: object) -> list[Outcome]:
        if left:
            world.database.last_fault = TransientFault("", code=left.pop(0))
            return [Outcome.RELEASED]
        return [Outcome.WRITTEN] * len(messages)

    world.database.process = process  # type: ignore[method-assign]  # faults that change, or pass
    fault = TransientFault("", code="postgres_42P01")
    found = await world.isolation.search(
        cast("Any", world.database), [BATCH[3]], fault, world.end, time.monotonic()
    )
    assert [m.message_id for m in found.left] == ["m3"] * len(codes)
    assert not world.queue.away


async def test_what_another_writer_has_written_meanwhile_shows_whose_fault_it_is() -> None:
    world = World([f"m{n}" for n in range(20)])
    began = time.monotonic()
    await world.isolation.process(cast("Any", world.database), [message(99)])
    await world.database.process(BATCH[:20])
    fault = world.database.last_fault
    assert fault
    processor = cast("Any", world.database)
    found = await world.isolation.search(processor, BATCH[:20], fault, world.end, began)
    assert (found.left, len(world.queue.away)) == ([], 20)


async def test_on_a_fifo_queue_the_group_goes_back_with_it() -> None:
    batch = [message(n, group=f"g{n % 2}") for n in range(8)]
    buffered = [message(n, group=f"g{n % 2}") for n in range(8, 12)]
    world = World(["m2"], fifo=True, buffered=buffered)
    found = await world.search(batch)
    assert (found.left, found.groups, found.released) == ([], {"g0"}, 5)
    assert world.ended == ["m0", "m1", "m3", "m5", "m7"], "in order"
    assert world.queue.away == {"m2": AWAY_FIRST_S, **dict.fromkeys(["m4", "m6", "m8", "m10"], 0)}


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        ("postgres_57014", TIMEOUT_ATTEMPTS),
        ("postgres_55P03", TIMEOUT_ATTEMPTS),
        ("postgres_42P01", ATTEMPTS),
        ("postgres_XX000", ATTEMPTS),
        ("postgres_23514", ATTEMPTS),
        ("postgres_40P01", WORLD_ATTEMPTS),
        ("postgres_08006", WORLD_ATTEMPTS),
        ("postgres_no_answer", WORLD_ATTEMPTS),
        ("target_column", 0),
        ("aws_timeout", 0),
    ],
)
def test_when_a_search_is_due(code: str, attempts: int) -> None:
    fault = TransientFault("", code=code)
    due = [n for n in range(1, 42) if World([]).isolation.is_due(BATCH, fault, n)]
    assert due == [attempts * 2**n for n in range(6) if 0 < attempts * 2**n < 42]

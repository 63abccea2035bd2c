"""Deletes in the background: ten messages per request, and what failed again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from sqs2pg.message import Message, SystemAttributes
from sqs2pg.sqs.chained_calls import DeleteBatches
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.concurrency import CONCURRENCY_MIN, RoundTripTime
from sqs2pg.sqs.deleter import BESIDE_OTHERS_MIN, Deleter
from sqs2pg.sqs.wire import EntryFailure
from sqs2pg.telemetry.metrics import Metrics


class Client:
    """Notes the handles of each request, and answers with the failures that `answer` returns."""

    def __init__(self, answer: Callable[[list[str]], list[EntryFailure]]) -> None:
        self.requests: list[list[str]] = []
        self._answer = answer

    async def delete_batches(self, batches: DeleteBatches) -> list[EntryFailure]:
        self.requests.append(list(batches.handles))
        return self._answer(batches.handles)


class Held(Client):
    """As `Client`, but answers no request until `go` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _: [])
        self.go = asyncio.Event()

    async def delete_batches(self, batches: DeleteBatches) -> list[EntryFailure]:
        answer = await super().delete_batches(batches)
        await self.go.wait()
        return answer


def messages(number: int, first: int = 0) -> list[Message]:
    return [Message(str(n), f"r{n}", "{}", SystemAttributes(0)) for n in range(first, number)]


def deleter(
    client: Client,
    ended: list[str],
    requests_max: int = 4,
    round_trip: RoundTripTime | None = None,
) -> Deleter:
    def on_end(batch: list[Message]) -> None:
        ended.extend(message.receipt_handle for message in batch)

    given = cast("SqsClient", client)
    return Deleter(
        given,
        "https://queue",
        Metrics(),
        requests_max=requests_max,
        on_end=on_end,
        round_trip=round_trip,
    )


@pytest.mark.parametrize("parts", [[1], [10], [11], [7, 3], [7, 5, 23], [9, 11], [20, 1, 9, 10]])
async def test_each_message_is_in_one_request_of_at_most_ten(parts: list[int]) -> None:
    ended: list[str] = []
    client, first = Client(lambda _: []), 0
    deletes = deleter(client, ended)
    for size in parts:
        deletes.delete(messages(first + size, first))
        first += size
    await deletes.finished()
    handles = [f"r{n}" for n in range(first)]
    assert sorted(h for request in client.requests for h in request) == sorted(handles)
    assert sorted(ended) == sorted(handles)
    assert max(map(len, client.requests)) <= 10
    assert len(client.requests) == -(-first // 10), "a request is filled before the next one"


@pytest.mark.parametrize(("sender_fault", "attempts"), [(False, 3), (True, 1)])
async def test_what_failed_is_tried_three_times_unless_it_is_our_fault(
    sender_fault: bool, attempts: int
) -> None:
    def second_fails(handles: list[str]) -> list[EntryFailure]:
        failing = handles.index("r1") if "r1" in handles else None
        return [] if failing is None else [EntryFailure(failing, "InternalError", sender_fault)]

    ended: list[str] = []
    client = Client(second_fails)
    deletes = deleter(client, ended)
    deletes.delete(messages(3))
    await deletes.finished()
    assert client.requests == [["r0", "r1", "r2"], ["r1"], ["r1"]][:attempts]
    assert ended == ["r0", "r1", "r2"], "held no longer, whatever became of it"


async def test_queues_of_one_process_make_few_more_requests_at_once_than_one_queue_does() -> None:
    round_trip, client, ended = RoundTripTime(lambda: 0.0), Held(), list[str]()
    round_trip.concurrency = lambda _: CONCURRENCY_MIN  # type: ignore[method-assign]
    several = [deleter(client, ended, 128, round_trip) for _ in range(3)]
    count, wanted = 10 * 100, CONCURRENCY_MIN
    for one in several:
        one.delete(messages(count))
        await asyncio.sleep(0)
        assert len(client.requests) == wanted
        wanted += BESIDE_OTHERS_MIN
    client.go.set()
    for one in several:
        await one.finished()
    assert len(ended) == 3 * count
    assert round_trip.under_way == 0

"""Calls that follow each other on one connection, against a scripted server.

Anything unusual ends the chain and is handled as after a single call; what was taken stays taken.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.message import Message
from sqs2pg.sqs.credentials import Provided
from sqs2pg.sqs.signer import AwsKeys
from sqs2pg.sqs.wire import EntryFailure

from .loopback import answer
from .scripted import CLOSE, MESSAGE, URL, Bench, error, ok


def brought(*names: str) -> bytes:
    return ok(Messages=[MESSAGE | {"MessageId": name} for name in names])


def done(*ids: str, failed: list[dict[str, Any]] | None = None) -> bytes:
    return ok(Successful=[{"Id": each} for each in ids], Failed=failed or [])


class Taker:
    """Takes a number of replies, then refuses."""

    def __init__(self, replies: int) -> None:
        self.replies = replies
        self.took: list[list[str]] = []

    def __call__(self, messages: list[Message]) -> bool:
        if len(self.took) == self.replies:
            return False
        self.took.append([message.message_id for message in messages])
        return True


class Handles:
    """Batches of handles to delete, as the client asks for them."""

    def __init__(self, *batches: list[str]) -> None:
        self.queue_url = URL
        self.handles, *self.later = batches

    def advance(self) -> bool:
        if not self.later:
            return False
        self.handles = self.later.pop(0)
        return True


async def receive_while(bench: Bench, take: Taker, *script: bytes, **options: Any) -> list[str]:
    messages = await bench.client(*script, **options).receive_while(take, URL)
    return [message.message_id for message in messages]


async def test_replies_are_taken_until_one_is_left(bench: Bench) -> None:
    take = Taker(2)
    last = await receive_while(bench, take, brought("a", "b"), brought("c"), brought("d"))
    assert (take.took, last) == ([["a", "b"], ["c"]], ["d"])
    assert bench.queue.connections == 1
    assert bench.queue.targets == ["AmazonSQS.ReceiveMessage"] * 3
    assert len({json.dumps(body) for _, _, body in bench.queue.requests}) == 1


async def test_an_empty_reply_is_not_shown(bench: Bench) -> None:
    take = Taker(9)
    assert await receive_while(bench, take, brought("a"), ok()) == []
    assert take.took == [["a"]]


async def test_a_large_reply_is_not_shown(bench: Bench) -> None:
    large = ok(Messages=[MESSAGE | {"Body": "x" * 70_000}])
    take = Taker(9)
    assert await receive_while(bench, take, brought("a"), large) == ["m-1"]
    assert take.took == [["a"]]


async def test_an_error_answer_is_tried_again_as_of_a_single_call(bench: Bench) -> None:
    take = Taker(9)
    script = (brought("a"), error("InternalError", 500), brought("b"), brought("c"))
    assert await receive_while(bench, take, *script) == ["b"], (
        "a retried call does not continue the chain"
    )
    assert take.took == [["a"]]


async def test_each_call_of_a_chain_has_all_its_attempts(bench: Bench) -> None:
    take = Taker(9)
    failing = [error("InternalError", 500)] * 2
    script = (brought("a"), brought("b"), *failing, brought("c"))
    assert await receive_while(bench, take, *script, attempts_max=3) == ["c"]
    assert take.took == [["a"], ["b"]]


@pytest.mark.parametrize("bad", [answer(b"{garbled"), answer(b'{"Messages": 7}')])
async def test_a_garbled_answer_is_a_fault(bench: Bench, bad: bytes) -> None:
    take = Taker(9)
    with pytest.raises(TransientFault) as caught:
        await receive_while(bench, take, brought("a"), bad)
    assert caught.value.code == "aws_garbled_reply"
    assert take.took == [["a"]]


async def test_a_connection_that_closes_in_between_is_no_attempt_spent(bench: Bench) -> None:
    take = Taker(9)
    script = (brought("a"), CLOSE, brought("b"))
    assert await receive_while(bench, take, *script, attempts_max=1) == ["b"]
    assert bench.queue.connections == 2


async def test_credentials_due_for_renewal_end_a_chain(bench: Bench) -> None:
    provided: list[Provided] = [(AwsKeys("OLD", "sk"), None), (AwsKeys("NEW", "sk"), None)]
    client = bench.client(brought("a"), provide=lambda: provided[0])
    seen = 0

    def take(messages: list[Message]) -> bool:
        nonlocal seen
        seen += 1
        bench.credentials.refresh_at = 0.0
        return True

    [last] = await client.receive_while(take, URL)
    assert (seen, last.message_id) == (1, "a")
    assert len(bench.queue.requests) == 2


async def test_a_call_that_waits_for_the_connection_gets_its_turn(bench: Bench) -> None:
    client = bench.client(brought("a"), max_connections=1)
    others: list[asyncio.Task[list[Message]]] = []

    def take(messages: list[Message]) -> bool:
        if not others:
            others.append(asyncio.create_task(client.receive(URL)))
        return True

    await client.receive_while(take, URL)
    assert await others[0]


async def test_an_exception_of_the_callback_is_raised(bench: Bench) -> None:
    def take(messages: list[Message]) -> bool:
        raise ZeroDivisionError

    client = bench.client(brought("a"))
    with pytest.raises(ZeroDivisionError):
        await client.receive_while(take, URL)
    assert [message.message_id for message in await client.receive(URL)] == ["a"]


async def test_after_a_cancellation_no_reply_is_taken(bench: Bench) -> None:
    client = bench.client(brought("a"))
    took = 0

    def take(messages: list[Message]) -> bool:
        nonlocal took
        took += 1
        if took == 3:
            task.cancel()
        return True

    task = asyncio.create_task(client.receive_while(take, URL))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert took == 3


async def test_batches_are_deleted_one_after_another(bench: Bench) -> None:
    handles = Handles(["h1", "h2"], ["h3"], ["h4"])
    client = bench.client(done("0", "1"), done("0"), done("0"))
    assert await client.delete_batches(handles) == []
    assert handles.handles == ["h4"]
    sent = [
        [entry["ReceiptHandle"] for entry in body["Entries"]] for *_, body in bench.queue.requests
    ]
    assert sent == [["h1", "h2"], ["h3"], ["h4"]]
    assert bench.queue.connections == 1


async def test_a_batch_that_failed_in_part_is_the_last(bench: Bench) -> None:
    failed = [{"Id": "1", "Code": "InternalError", "SenderFault": False}]
    handles = Handles(["h1", "h2"], ["h3", "h4"], ["h5"])
    client = bench.client(done("0", "1"), done("0", failed=failed), done("0"))
    assert await client.delete_batches(handles) == [EntryFailure(1, "InternalError", False)]
    assert handles.handles == ["h3", "h4"]
    assert len(bench.queue.requests) == 2


@pytest.mark.parametrize("again", [CLOSE, error("InternalError", 500)])
async def test_a_retry_sends_the_current_batch_again(bench: Bench, again: bytes) -> None:
    handles = Handles(["h1"], ["h2"])
    client = bench.client(done("0"), again, done("0"))
    assert await client.delete_batches(handles) == []
    sent = [body["Entries"][0]["ReceiptHandle"] for *_, body in bench.queue.requests]
    assert sent == ["h1", "h2", "h2"]


async def test_a_final_fault_belongs_to_the_current_batch(bench: Bench) -> None:
    handles = Handles(["h1"], ["h2"], ["h3"])
    client = bench.client(done("0"), error("InternalError", 500), attempts_max=2)
    with pytest.raises(TransientFault):
        await client.delete_batches(handles)
    assert handles.handles == ["h2"]

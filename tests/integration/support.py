"""What integration tests share: getting messages on and off a queue, and rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg

from sqs2pg.message import Message
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.sqs.wire import OutgoingMessage

Assemble = Callable[..., AbstractAsyncContextManager[Pipeline]]


async def send(ready: Pipeline, bodies: Sequence[str | OutgoingMessage]) -> None:
    """Put bodies on the pipeline's queue."""
    for start in range(0, len(bodies), 10):
        assert await ready.client.send(ready.source.queue_url, bodies[start : start + 10]) == []


async def receive(ready: Pipeline, count: int) -> list[Message]:
    """Receive until `count` different messages are in hand."""
    messages: list[Message] = []
    while len(messages) < count:
        fresh, _ = await ready.source.poll(wait_s=1)
        messages += fresh
    return messages


def rows(database: str, query: str) -> list[tuple[Any, ...]]:
    """Run a query on a connection of its own."""
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []

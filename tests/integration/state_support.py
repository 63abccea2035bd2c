"""What the tests of state tables share: bodies processed in one batch, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import uuid4

from sqs2pg.message import Message, Outcome, RowChanges, SystemAttributes
from sqs2pg.pipeline.processor import Processor
from sqs2pg.runners.pipeline import Pipeline


async def process(processor: Processor, bodies: Sequence[str]) -> list[Outcome]:
    """Process bodies in one batch, as sent one after the other; return their outcomes."""
    now_ms = time.time_ns() // 10**6
    messages = [
        Message(str(uuid4()), "", body, SystemAttributes(now_ms + number))
        for number, body in enumerate(bodies)
    ]
    return await processor.process(messages)


async def write(ready: Pipeline, *bodies: str) -> tuple[list[Outcome], RowChanges]:
    """As `process`, by the first writer; return also how many rows were changed and how."""
    processor = ready.processors[0]
    before = processor.rows
    outcomes = await process(processor, bodies)
    done = RowChanges(*(now - was for now, was in zip(processor.rows, before, strict=True)))
    return outcomes, done

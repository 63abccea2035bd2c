"""An invocation of the Lambda function and the time that is left to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline.processor import Processor
from sqs2pg.runners.aws_lambda import Invocation
from sqs2pg.settings import load

MARGIN_S = 5.0
BATCH_S = 2.0


class Processing:
    """Stands for a processor that takes BATCH_S for each batch, by a clock of the test."""

    objects = None

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s
        self.batches: list[list[str]] = []

    async def process(self, batch: Sequence[Message], *_: Any) -> list[Outcome]:
        self.batches.append([message.message_id for message in batch])
        self.left_s -= BATCH_S
        return [Outcome.WRITTEN] * len(batch)


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
async def test_no_batch_is_begun_within_the_margin(batches: int) -> None:
    processing = Processing(MARGIN_S + batches * BATCH_S)
    begun = [["m0", "m1"], ["m2", "m3"], ["m4"]][:batches]
    settings = load(
        environ={
            "SQS2PG_AWS_LAMBDA__MARGIN_S": str(MARGIN_S),
            "SQS2PG_SINK__BATCH_ROWS_MAX": "2",
        },
        discover=False,
    )
    invocation = Invocation(
        cast("Processor", processing), settings, lambda: processing.left_s, fifo=False
    )
    messages = [Message(f"m{n}", "-", "{}", SystemAttributes(0, 1)) for n in range(5)]
    given_back = await invocation.settle(messages)
    assert processing.batches == begun
    assert given_back == [f"m{n}" for n in range(5)][sum(map(len, begun)) :]

"""Payloads: what is left of a part when the store fails in the middle of it."""

from __future__ import annotations

import asyncio
import json

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.pipeline.large_payloads import Payloads
from sqs2pg.settings import EnvelopeSettings

SETTINGS = EnvelopeSettings(layers=("s3",), s3_bytes_max=1024)


class Store:
    """`quick` comes at once, `broken` fails once it came, `slow` never comes."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.cancelled = False

    async def fetch(self, bucket: str, key: str, bytes_max: int, /) -> bytes:
        if key == "quick":
            self.came.set()
            return b"{}"
        await self.came.wait()
        if key == "broken":
            raise TransientFault("no", code="s3_unreachable")
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True
        return b""

    async def delete(self, bucket: str, key: str, /) -> None:
        raise NotImplementedError


def pointing(key: str, size: str = "10") -> Message:
    place = {"s3BucketName": "b", "s3Key": key}
    pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", place]
    attributes = {"ExtendedPayloadSize": MessageAttribute("Number", size)}
    return Message(key, "h", json.dumps(pointer), SystemAttributes(1), attributes)


async def test_a_store_that_fails_leaves_no_payload_and_no_fetch_behind() -> None:
    store = Store()
    messages = [pointing(key) for key in ("slow", "broken", "quick")]
    with pytest.raises(TransientFault):
        await Payloads(store, SETTINGS, 2**20).fetch(messages)
    await asyncio.sleep(0)
    assert store.cancelled
    assert [message.payload for message in messages] == [None] * 3


@pytest.mark.parametrize("size", ["", "x", "-1", "\u00b2", "9" * 5000])
async def test_a_size_that_is_none_counts_as_the_largest(size: str) -> None:
    payloads = Payloads(
        Store(), EnvelopeSettings(layers=("s3",), s3_bytes_max=100 * 2**20), 128 * 2**20
    )
    parts = list(payloads.parts([pointing("a", size), pointing("b", size), pointing("c", "1")]))
    assert [len(part) for part in parts] == [1, 2]

"""A connection that ends, and its fault, are freed at once: nothing waits for the collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, cast

from sqs2pg.errors import TransientFault
from sqs2pg.sqs.connection import HttpConnection


class FakeTransport:
    """Takes what is written and is closed at once."""

    def write(self, _data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...


async def test_a_fault_and_its_connection_are_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        connection = HttpConnection(lambda _: None)
        connection.connection_made(cast("asyncio.Transport", FakeTransport()))
        known: list[weakref.ref[Any]] = [weakref.ref(connection)]

        async def exchange(one: HttpConnection) -> None:
            try:  # pytest.raises would hold the fault in a cycle of its own
                await one.exchange(b"", 1.0)
            except TransientFault as fault:
                known.append(weakref.ref(fault))

        asked = asyncio.create_task(exchange(connection))
        await asyncio.sleep(0)
        connection.connection_lost(None)
        await asked
        del asked, connection
        await asyncio.sleep(0)  # the loop lets go of what it has called
        assert len(known) == 2
        assert [one() for one in known] == [None, None]
    finally:
        gc.enable()

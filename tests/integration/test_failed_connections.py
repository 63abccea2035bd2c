"""What is left of a connection to PostgreSQL that did not open."""

from __future__ import annotations

import asyncio
import gc

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.connection import Session


async def test_an_attempt_that_fails_leaves_no_socket() -> None:
    """Not even where the caller keeps the fault, and the cyclic collector never runs."""
    peers: set[asyncio.StreamWriter] = set()
    all_gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take bytes and never answer, as a server does whose processes are stopped."""
        peers.add(writer)
        while await reader.read(1000):
            pass
        peers.remove(writer)
        writer.close()
        if not peers:
            all_gone.set()

    gc.disable()
    try:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            dsn = f"postgresql://u@127.0.0.1:{port}/x?connect_timeout=2"
            attempts = [asyncio.create_task(Session.connect(dsn)) for _ in range(4)]
            async with asyncio.timeout(30):
                while len(peers) < len(attempts):
                    await asyncio.sleep(0)
                for cancelled in attempts[:2]:
                    cancelled.cancel()
                faults = await asyncio.gather(*attempts, return_exceptions=True)
                await all_gone.wait()
    finally:
        gc.enable()
    assert [type(fault) for fault in faults] == [asyncio.CancelledError] * 2 + [TransientFault] * 2

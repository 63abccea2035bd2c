"""Loopback servers that send crafted bytes, under both event loops the program may run on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from .loopback import Handler, Listen
from .scripted import Bench, Queue


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Start a server for each handler given; returns its port on 127.0.0.1 (or `host`)."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    async def start(
        handler: Handler, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client went away, or the test is over
            except BaseException as error:  # noqa: BLE001  raised when the test ends
                failures.append(error)
            finally:
                tasks.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(serve, host, 0, ssl=tls)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield start
    for server in servers:
        server.close()
    await asyncio.sleep(0)  # what was just accepted begins, and is among the tasks
    for task in list(tasks):
        task.cancel()
    if tasks:
        await asyncio.wait(set(tasks))
    await asyncio.sleep(0)
    assert not failures, failures


@pytest.fixture
async def bench(listen: Listen) -> AsyncIterator[Bench]:
    queue = Queue()
    made = Bench(await listen(queue), queue)
    yield made
    for client in made.clients:
        await client.close()

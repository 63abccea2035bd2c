"""Reach the environment's SQS, for commands that need no database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqs2pg.sqs.client import SqsClient


@asynccontextmanager
async def queue_client() -> AsyncIterator[SqsClient]:
    """Yield a client of the environment's SQS; close it at the end. Raises SettingsError."""
    client = SqsClient.from_environment()
    try:
        yield client
    finally:
        await client.close()

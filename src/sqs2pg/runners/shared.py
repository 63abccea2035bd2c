"""What the pipelines of one process share: the client of SQS, sessions, and how much they may hold.

Bounds, whatever the number of pipelines: `process.connections_max` sessions for batches, as many
long polls as `process.receivers_max`, and `process.in_flight_bytes_max` bytes held. Databases with
one connection string share their sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from sqs2pg.pipeline.books_upkeep import SharedUpkeep
from sqs2pg.pipeline.pause_watch import PauseWatch
from sqs2pg.postgres.dsn import resolve_dsn
from sqs2pg.postgres.session_pool import SessionPool, SessionPools
from sqs2pg.postgres.workers import SharedHeadRoom
from sqs2pg.runners.connect import Connector
from sqs2pg.runners.start_reads import Once, SharedReads
from sqs2pg.settings import CONNECTIONS_MAX, IN_FLIGHT_BYTES_MAX, ProcessSettings, Settings
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.in_flight import InFlight
from sqs2pg.sqs.turns import Turns

STARTS_AT_ONCE = 8
"""Pipelines of one database that start at the same time: more would only open more sessions."""
READING_SESSIONS = 2
"""Sessions per database for readings and upkeep, which must not wait for batches."""


class Shared:
    """See the module. For one event loop; close it after the last pipeline."""

    def __init__(self, process: ProcessSettings, every: Iterable[Settings]) -> None:
        """`every`: the settings of the pipelines to begin with.

        Blocking, for seconds where credentials come from a role. Raises SettingsError where the
        AWS environment is not usable.
        """
        settings = list(every)
        self.one = len(settings) == 1
        """Whether there was one pipeline to begin with."""
        self.client = SqsClient.from_environment(max_connections=process.receivers_max)
        self.in_flight = InFlight(
            process.in_flight_bytes_max
            or max([IN_FLIGHT_BYTES_MAX, *(one.source.in_flight_bytes_max for one in settings)])
        )
        self.sessions = SessionPools(
            process.connections_max
            or max([CONNECTIONS_MAX, *(one.sink.connections for one in settings)])
        )
        self.turns = Turns()
        self._readings: dict[str, SessionPools] = {}
        self._watches: dict[str, dict[int, PauseWatch]] = {}
        self._upkeep: dict[str, SharedUpkeep] = {}
        self._rooms: dict[str, SharedHeadRoom] = {}
        self._reads = SharedReads()
        self._starting: dict[str, asyncio.Semaphore] = {}

    def join(self, settings: Settings) -> tuple[SessionPool, SessionPool]:
        """Return the sessions of a pipeline's database for batches, and those for readings.

        Each one's `leave` is called at the end. Raises SettingsError for a wrong connection string.
        """
        key = _database(settings)
        # In pools of their own: a reading tells whether the database answers, and waits for no
        # batch. One pipeline alone keeps none open between its readings.
        readings = self._readings.setdefault(key, SessionPools(READING_SESSIONS, kept_for=2))
        connect = Connector(settings)
        return self.sessions.join(key, connect), readings.join(key, connect)

    @asynccontextmanager
    async def starting(self, settings: Settings) -> AsyncIterator[Once | None]:
        """Wait until a pipeline may start; yield what it reads together with others meanwhile.

        None where there is nobody to read with. Pipelines of a database that does not answer keep
        none of another database waiting.
        """
        if self.one:
            yield None
            return
        database = _database(settings)
        reads = self._reads.begin(database)
        try:
            async with self._starting.setdefault(database, asyncio.Semaphore(STARTS_AT_ONCE)):
                yield reads.once
        finally:
            reads.end()

    def watches(self, settings: Settings) -> dict[int, PauseWatch]:
        """Return what watches the pauses of the pipelines of the same database, by number.

        A pipeline enters itself, and removes itself at the end.
        """
        return self._watches.setdefault(_database(settings), {})

    def upkeep(self, settings: Settings) -> SharedUpkeep:
        """Return the upkeep of the books of a pipeline's database."""
        return self._upkeep.setdefault(_database(settings), SharedUpkeep())

    def head_room(self, settings: Settings) -> SharedHeadRoom:
        """Return what the server of a pipeline's database uses and allows."""
        return self._rooms.setdefault(_database(settings), SharedHeadRoom())

    async def close(self) -> None:
        """Close the client. May be repeated."""
        await self.client.close()


def _database(settings: Settings) -> str:
    """Return what those pipelines have in common that use one database with one login."""
    return f"{resolve_dsn(settings.sink.dsn)} {settings.sink.iam_auth}"

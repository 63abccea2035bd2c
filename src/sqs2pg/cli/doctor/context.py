"""Context: what checks share. Each part is made at its first use and closed at the end.

A part that is missing is reported once, by the check it belongs to. For every other check that
needs it the Context raises NotChecked, so that one cause does not fill the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqs2pg.errors import FatalFault, Sqs2pgError
from sqs2pg.keys.keyring import Keyring
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.sqlstate import explained
from sqs2pg.runners.connect import connect, endpoint_hosts, keyring_of
from sqs2pg.settings import Settings, load
from sqs2pg.sqs.client import SqsClient


class NotChecked(Exception):
    """A check could not be made, for a reason that another check reports."""


class Context:
    """The settings, keyring, connection and client of one run of the doctor."""

    def __init__(
        self, config: Path | None = None, read: Callable[[], Settings] | None = None
    ) -> None:
        """`config` is the settings' file. `read` returns them in place of `load`."""
        self.config = config
        self._read = read or partial(load, config)
        self._settings: Settings | None = None
        self._keyring: Keyring | None = None
        self._session: Session | None = None
        self._client: SqsClient | None = None
        self._queue_url: str | None = None
        self._failed: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
        if self._client is not None:
            await self._client.close()

    # -- for the check that a part belongs to: raises what is wrong -------------------------

    def load_settings(self) -> Settings:
        """Read the settings. Raises SettingsError."""
        with self._noting("settings"):
            self._settings = self._read()
        return self._settings

    def load_keyring(self) -> Keyring:
        """Load the keys. Raises SettingsError or KeyFault."""
        settings = self.settings
        with self._noting("keys"):
            try:
                hosts = endpoint_hosts(settings)
            except Sqs2pgError:  # the queue's or the database's check reports it
                hosts = ["(unknown)"]  # as of another machine, where a development key is refused
            self._keyring = keyring_of(settings, hosts)
        return self._keyring

    async def connect(self) -> Session:
        """Connect to the database. Raises TransientFault or FatalFault."""
        settings = self.settings
        with self._noting("database"):
            self._session = await connect(settings)
        return self._session

    async def find_queue(self) -> str:
        """Find the queue; return its URL. Raises SettingsError, TransientFault or FatalFault."""
        settings = self.settings
        with self._noting("queue"):
            self._client = self._client or SqsClient.from_environment()
            self._queue_url = await self._client.queue_url(settings.source.queue)
            await self._client.attributes(self._queue_url, ["QueueArn"])
        return self._queue_url

    # -- for every other check: raises NotChecked -------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings. Raises NotChecked where they are wrong."""
        if self._settings is None:
            raise NotChecked("the settings could not be read")
        return self._settings

    def keyring(self) -> Keyring:
        """Return the keys. Raises NotChecked where there are none."""
        if self._keyring is None:
            self._give_up_if_failed("keys", "there are no keys")
            self.load_keyring()
        assert self._keyring is not None
        return self._keyring

    async def session(self) -> Session:
        """Return the connection to the database. Raises NotChecked where there is none."""
        if self._session is None or self._session.broken:
            self._give_up_if_failed("database", "the database could not be reached")
            await self.connect()
        assert self._session is not None
        return self._session

    async def queue(self) -> tuple[SqsClient, str]:
        """Return the client and the queue's URL. Raises NotChecked where it is not reachable."""
        if self._queue_url is None:
            self._give_up_if_failed("queue", "the queue could not be reached")
            await self.find_queue()
        assert self._client is not None
        assert self._queue_url is not None
        return self._client, self._queue_url

    async def query(
        self, statement: str, parameters: Sequence[Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Return a statement's rows. Raises FatalFault with the SQLSTATE; NotChecked."""
        session = await self.session()
        try:
            with explained():
                return await session.execute(statement, parameters)
        except FatalFault:
            await session.rollback()
            raise

    def _give_up_if_failed(self, part: str, why: str) -> None:
        if part in self._failed:
            raise NotChecked(why)

    def _noting(self, part: str) -> _Noting:
        return _Noting(self._failed, part)


class _Noting:
    """Notes that a part is not available, and lets the error through."""

    def __init__(self, failed: set[str], part: str) -> None:
        self._failed = failed
        self._part = part

    def __enter__(self) -> None:
        self._failed.add(self._part)  # also if the check is cut off by its limit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if kind is None:
            self._failed.discard(self._part)
        elif isinstance(error, Sqs2pgError):
            error.hint = error.hint or "see docs/reference"

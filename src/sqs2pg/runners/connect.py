"""Reach what settings name: the database and the keys that belong to it.

The order is keys first, then the database: a wrong key is reported before anything is touched.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqs2pg.errors import FatalFault, Sqs2pgError, TransientFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.keys.providers import load_keyring
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.dsn import hosts, logins_of, resolve_dsn
from sqs2pg.postgres.key_registry import verify_fingerprints
from sqs2pg.postgres.migrate import pipeline_id
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.sqs.client import SqsClient

LOGIN_PATIENCE_S = 600.0
"""How long a login that was good before may be refused in a running pipeline, seconds."""


async def connect(settings: Settings) -> Session:
    """Connect to the settings' database. Raises SettingsError, TransientFault or FatalFault."""
    dsn = resolve_dsn(settings.sink.dsn)
    return await (_connect_by_token(dsn) if settings.sink.iam_auth else Session.connect(dsn))


async def _connect_by_token(dsn: str) -> Session:
    """Connect to the first server of the string that admits us; each has a token of its own."""
    from sqs2pg.sqs.rds_token import login_token  # loads botocore

    away: Sqs2pgError | None = None
    for login in logins_of(dsn):
        # In a thread: providers of credentials do blocking I/O.
        token = await asyncio.to_thread(login_token, login.host, login.port, login.user)
        try:
            return await Session.connect(login.dsn, password=token)
        except (TransientFault, FatalFault) as fault:
            # One that may be there later counts for more than one that refuses.
            if away is None or isinstance(fault, TransientFault):
                away = fault
    assert away is not None, "a string without a server is refused"
    raise away


class Connector:
    """Connects for a running pipeline. What has admitted it once is expected to do so again.

    A password, certificate or role is changed at the server and at this process minutes apart. So
    after a first good login a refusal counts as passing, and messages are held. Refused for
    LOGIN_PATIENCE_S without a good login in between, it counts as a refusal: a supervisor's new
    process may have what this one lacks, such as a variable with the new password.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admitted = False
        self._refused_at: float | None = None

    async def __call__(self) -> Session:
        """Connect. Raises SettingsError, TransientFault or FatalFault."""
        try:
            session = await connect(self._settings)
        except FatalFault as fault:
            if not self._admitted:
                raise
            now = time.monotonic()
            self._refused_at = self._refused_at or now
            if now - self._refused_at >= LOGIN_PATIENCE_S:
                raise
            raise TransientFault(fault.what, code=fault.code, hint=fault.hint) from None
        self._admitted, self._refused_at = True, None
        return session

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Session]:
        """Yield a session of its own for the block. Raises as the call."""
        session = await self()
        try:
            yield session
        finally:
            await session.close()


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Session]:
    """Yield a session with the settings' database; close it at the end. Raises as `connect`."""
    session = await connect(settings)
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[tuple[Session, int]]:
    """Yield a session and the pipeline's number, for commands that only read or write books."""
    async with connected(settings) as session:
        yield session, await pipeline_id(session, settings)


@asynccontextmanager
async def database_and_keys(settings: Settings) -> AsyncIterator[tuple[Session, int, Keyring]]:
    """Yield a session, the pipeline's number and the keys, checked against the database's record.

    Only the database is in use, so only its hosts decide whether a development key is allowed.
    Raises KeyFault or SettingsError before it connects, then as `connect` and
    `verify_fingerprints`.
    """
    keyring = keyring_of(settings, database_hosts(settings))
    async with database(settings) as (session, pipeline):
        yield session, pipeline, await verify_fingerprints(session, keyring)


def database_hosts(settings: Settings) -> list[str]:
    """Return the hosts of the settings' database."""
    return [*hosts(resolve_dsn(settings.sink.dsn))]


def endpoint_hosts(settings: Settings, client: SqsClient | None = None) -> list[str]:
    """Return the hosts of queue and database; without `client`, those the environment leads to."""
    if client is None:
        from sqs2pg.sqs.client import SqsClient  # not for commands that use the database alone

        client = SqsClient.from_environment()
    return [client.endpoint_host, *database_hosts(settings)]


def keyring_of(
    settings: Settings, endpoints: list[str], environ: Mapping[str, str] = os.environ
) -> Keyring:
    """Return the keys of the settings' provider.

    `endpoints` are the hosts in use: a development key is refused unless all are loopback.
    """
    keys = settings.keys
    return load_keyring(
        provider_of(settings, environ),
        file=Path(keys.file) if keys.file else None,
        secret=keys.secret,
        environ=environ,
        endpoints=endpoints,
        allow_development=keys.allow_development,
    )


def provider_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> str:
    """Return the provider that the keys come from, `auto` resolved."""
    keys = settings.keys
    if keys.provider != "auto":
        return keys.provider
    in_environment = bool(environ.get("SQS2PG_KEYS__PSEUDONYM_ROOT"))
    return "file" if keys.file else "environment" if in_environment else "development"

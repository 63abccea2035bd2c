"""The embedded servers for commands: start them, point the environment at them, end them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

from sqs2pg.cli.embedded import (
    ENV_FILE,
    OVERRIDING,
    Servers,
    remove_env_file,
    servers,
    write_env_file,
)
from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.settings import Settings

_WAITING = "ApproximateNumberOfMessages"


@contextmanager
def pointed_at(running: Servers, keeps: Callable[[str], bool] = lambda _: False) -> Iterator[None]:
    """Point this process's environment at the servers, while the block runs.

    Variables that would lead elsewhere are unset, except those for which `keeps` is true.
    """
    before = dict(os.environ)
    for name in OVERRIDING:
        if not keeps(name):
            os.environ.pop(name, None)
    os.environ.update(running.environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def local_environment(
    *, keep_file: bool, fast: bool = False, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Servers]:
    """Start both servers and point this process's environment at them, while the block runs.

    The embedded database wins over one that a settings file names. With `keep_file`,
    `.sqs2pg/local.env` points other shells at the servers while they run, with `more` variables.
    """
    with servers(fast=fast) as running, pointed_at(running):
        os.environ["SQS2PG_SINK__DSN"] = running.database_url
        if keep_file:
            write_env_file(running, more=more)
        try:
            yield running
        finally:
            if keep_file:
                remove_env_file(running)


def source_command() -> str:
    """Return what to type in another shell, in whatever folder, to point it at the servers."""
    return f"source {shlex.quote(str(ENV_FILE.absolute()))}"


def development_key(every: Sequence[Settings]) -> dict[str, str]:
    """Return the variables that give shells in other folders the development key of this one.

    Nothing if any of the settings have keys of their own. Elsewhere a command would make a
    development key of its own, which is not the one on record in the database.
    """
    from sqs2pg.keys.provider_development import FILE_NAME, FOLDER
    from sqs2pg.runners.connect import provider_of

    if any(provider_of(settings) != "development" for settings in every):
        return {}
    file = str((FOLDER / FILE_NAME).absolute())
    return {"SQS2PG_KEYS__PROVIDER": "file", "SQS2PG_KEYS__FILE": file}


async def messages_wait(queues: Sequence[str]) -> bool:
    """Return whether messages wait on any of the queues; no where the server does not say."""
    from sqs2pg.runners.queue_client import queue_client

    try:
        async with queue_client() as client:
            for queue in queues:
                counts = await client.attributes(await client.queue_url(queue), [_WAITING])
                if int(counts[_WAITING]) > 0:
                    return True
    except (Sqs2pgError, KeyError, ValueError):
        pass
    return False


async def prepare(settings: Settings) -> None:
    """Make the queue and migrate the database of embedded servers that have just started.

    A state table gets the unique index of its key, too: `migrate` leaves that to the table's owner,
    but here nobody could make it before `run` needs it.
    """
    from sqs2pg.postgres.identifiers import quote_identifier, quote_table
    from sqs2pg.postgres.migrate import migrate
    from sqs2pg.runners.connect import connected
    from sqs2pg.runners.queue_client import queue_client

    queue = settings.source.queue
    if "/" in queue or ":" in queue:
        name = re.split("[/:]", queue)[-1]
        raise SettingsError(
            "source.queue is the URL or ARN of a queue, and the local server makes its own",
            hint=f"name the queue alone, such as SQS2PG_SOURCE__QUEUE={name or 'login-queue'}",
        )
    attributes = {"VisibilityTimeout": str(settings.source.visibility_timeout_s)}
    if queue.endswith(".fifo"):
        attributes["FifoQueue"] = "true"
    async with queue_client() as client:
        await client.create_queue(queue, attributes)
    async with connected(settings) as session:
        await migrate(session, settings)
        for target in settings.targets:
            if target.write.keeps_state:
                key = ", ".join(map(quote_identifier, target.write.key))
                made = f"CREATE UNIQUE INDEX ON {quote_table(target.table)} ({key})"
                await session.execute(made)

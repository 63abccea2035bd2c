"""The embedded servers as commands use them: started, pointed at, announced, gone at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sqs2pg.cli.embedded import ENV_FILE, OVERRIDING, remove_env_file, servers, write_env_file


@contextmanager
def local_environment(*, keep_file: bool) -> Iterator[None]:
    """Start both servers and point this process's environment at them, until closed.

    The embedded database wins over one that a settings file names. With `keep_file`,
    `.sqs2pg/local.env` points other shells at the servers while they run.
    """
    before = dict(os.environ)
    with servers() as running:
        for name in OVERRIDING:
            os.environ.pop(name, None)
        os.environ.update(running.environment())
        os.environ["SQS2PG_SINK__DSN"] = running.database_url
        if keep_file:
            path = write_env_file(running)
            print(f"servers are up; `source {path}` points a shell at them", file=sys.stderr)
        try:
            yield
        finally:
            if keep_file:
                remove_env_file(running)
            os.environ.clear()
            os.environ.update(before)


__all__ = ["ENV_FILE", "local_environment"]

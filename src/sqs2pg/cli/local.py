"""The embedded servers as commands use them: started, pointed at, announced, gone at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqs2pg.errors import SettingsError
from sqs2pg.settings import ENVIRONMENT_PREFIX

ENV_FILE = Path(".sqs2pg/local.env")


@contextmanager
def local_environment(*, keep_file: bool) -> Iterator[None]:
    """Start both servers and point this process's environment at them, until closed.

    With `keep_file`, `.sqs2pg/local.env` points other shells at them too while they run. Raises
    SettingsError where the settings name a database of their own.
    """
    from sqs2pg.local import remove_env_file, servers, write_env_file

    if f"{ENVIRONMENT_PREFIX}SINK__DSN" in os.environ:
        raise SettingsError(
            "--local starts a database of its own, but SQS2PG_SINK__DSN names another",
            hint="unset it, or leave --local out",
        )
    before = dict(os.environ)
    with servers() as running:
        os.environ.update(running.environment())
        # Another profile or service endpoint would win over the local one.
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_SQS", "AWS_SESSION_TOKEN"):
            os.environ.pop(name, None)
        if keep_file:
            write_env_file(running, ENV_FILE)
            print(f"servers are up; `source {ENV_FILE}` points a shell at them", file=sys.stderr)
        try:
            yield
        finally:
            if keep_file:
                remove_env_file(ENV_FILE)
            os.environ.clear()
            os.environ.update(before)

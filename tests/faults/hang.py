"""Hang a PostgreSQL server: the kernel takes connections and bytes, and no process answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqs2pg.cli.embedded import Postgres


def stop_all(server: Postgres) -> None:
    """Stop all processes of the server (SIGSTOP)."""
    _signal_all(server, signal.SIGSTOP)


def go_on(server: Postgres) -> None:
    """Let them go on (SIGCONT). May be repeated."""
    _signal_all(server, signal.SIGCONT)


@contextmanager
def hung(server: Postgres) -> Iterator[None]:
    """All processes of the server are stopped while the block runs."""
    stop_all(server)
    try:
        yield
    finally:
        go_on(server)


def _signal_all(server: Postgres, number: signal.Signals) -> None:
    """Send a signal to the postmaster, which then starts no more children, and to its children."""
    postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, number)
    for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(child), number)

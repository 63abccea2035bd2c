"""`run --workers N`: several processes, each a whole pipeline, as one command.

SQS hands each message to one consumer, so the workers need no word between them. A worker that
is killed is started again; one that stops with an error stops all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import structlog

from sqs2pg.cli import live_view
from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.consumer import Totals
from sqs2pg.runners.assembly import about_of
from sqs2pg.settings import Settings
from sqs2pg.status.access import Access
from sqs2pg.status.fleet import Fleet
from sqs2pg.status.recorder import recording
from sqs2pg.status.server import status_server
from sqs2pg.telemetry import log

_STOPPED = {0, 130, -signal.SIGTERM, -signal.SIGINT}
"""Exit codes of a worker that was asked to stop; but for 0, before it had begun."""

logger = structlog.get_logger(__name__)


class _Worker:
    """One worker process; its last line of stdout is its totals."""

    def __init__(
        self, number: int, command: list[str], folder: Path, *, status: bool, relay: bool = False
    ) -> None:
        """`relay`: what it says on stderr goes above the live view."""
        self.number = number
        self._relay = relay
        self._command = [*command, "--status-file", str(folder / f"{number}.address")]
        # Their parent answers at the address that is set, for all of them.
        self._environment = os.environ | {"SQS2PG_STATUS__BIND": "127.0.0.1:0" if status else ""}
        self.totals = Totals()
        self.start()

    def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        assert self.process.stdout is not None
        with self.process.stdout:
            last = _last_line(self.process.stdout)
        self.process.wait()
        if self.process.returncode == 0 and last:
            report = json.loads(last)
            rate = report.pop("messages_per_second")
            self.totals = Totals(**report)
            self.totals.busy_seconds = self.totals.settled / rate if rate else 0.0
        return self.process.returncode

    def start(self) -> None:
        """Start the process, the first time or again."""
        self.process = subprocess.Popen(  # noqa: S603  our own command
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self._relay else None,
            text=True,
            env=self._environment,
        )
        if self._relay:
            threading.Thread(target=_pass_on, args=[self.process.stderr], daemon=True).start()


def run_workers(
    count: int,
    *,
    config: Path | None,
    drain: bool,
    drain_timeout_s: float | None,
    settings: Settings,
    verbose: bool = False,
) -> Totals:
    """Run `count` workers to their end; return the sum of their totals.

    The status of all of them is served at `status.bind`.

    Raises FatalFault where one ended with an error, of its own accord or when all were asked to
    stop, with its exit code; its own words are on stderr already. Of one that was killed it is 1.
    """
    command = [sys.executable, "-m", "sqs2pg", "run", "--json"]
    command += ["-c", str(config)] if config else []
    command += ["--drain"] if drain else []
    command += ["--drain-timeout-s", str(drain_timeout_s)] if drain_timeout_s else []
    with tempfile.TemporaryDirectory(prefix="sqs2pg-") as name:
        folder = Path(name)
        status = settings.status
        access = Access.of(status)
        fleet = Fleet(folder, token=access.token, about=about_of(settings))
        view = live_view.wanted()
        with (
            recording(fleet.snapshot, wanted=bool(status.bind or view)) as recorder,
            status_server(
                status.bind,
                fleet.registry,
                fleet.health,
                ready=fleet.ready,
                access=access,
                take=fleet.snapshot,
                recorder=recorder,
            ),
            live_view.live_view(recorder, verbose=verbose) if view and recorder else nullcontext(),
        ):
            answering = bool(status.bind or view)
            return _run(
                [_Worker(n, command, folder, status=answering, relay=view) for n in range(count)]
            )


def _run(workers: Sequence[_Worker]) -> Totals:
    stopping = threading.Event()
    failed: list[tuple[int, int]] = []  # (exit code, worker)

    def stop_all(number: int) -> None:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    def watch(worker: _Worker) -> None:
        while (code := worker.wait()) < 0 and not stopping.is_set():
            logger.warning("worker was killed; starting it again", worker=worker.number)
            worker.start()
            if stopping.is_set():  # meanwhile: the word to stop went to the one before it
                worker.process.send_signal(signal.SIGTERM)
        if stopping.is_set():
            if code not in _STOPPED:
                failed.append((code, worker.number))
        elif code != 0:
            failed.append((code, worker.number))
            stopping.set()
            stop_all(signal.SIGTERM)

    watchers = [threading.Thread(target=watch, args=(worker,)) for worker in workers]
    with _relaying(stopping, stop_all):
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join()
    if failed:
        raise _failed(*failed[0])
    return _sum(worker.totals for worker in workers)


def _failed(code: int, worker: int) -> FatalFault:
    if code < 0:
        killed = signal.Signals(-code).name
        return FatalFault(
            f"worker {worker} was killed by {killed} while it stopped",
            code="worker_failed",
            hint="what it had in hand comes back when the leases end",
        )
    fault = FatalFault(
        f"worker {worker} stopped with exit code {code}",
        code="worker_failed",
        hint="its own words are above",
    )
    fault.exit_code = code
    return fault


def _sum(parts: Iterator[Totals]) -> Totals:
    total = Totals()
    for part in parts:
        for name in ("received", "written", "duplicate", "quarantined", "released"):
            setattr(total, name, getattr(total, name) + getattr(part, name))
        total.seconds = max(total.seconds, part.seconds)
        total.busy_seconds = max(total.busy_seconds, part.busy_seconds)
    return total


def _last_line(lines: IO[str]) -> str:
    """Return the last line of a worker's stdout that is not blank; "" where there is none."""
    last = ""
    for line in lines:
        last = line.strip() or last
    return last


def _pass_on(lines: IO[str]) -> None:
    """Print a worker's log above the view, short, less what the view shows: batches, progress."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            print(line, end="", file=sys.stderr)
            continue
        if event.get("event") not in {"batch", "more batches", "consuming"}:
            print(log.short_line(event), file=sys.stderr)


@contextmanager
def _relaying(stopping: threading.Event, stop_all: object) -> Iterator[None]:
    assert callable(stop_all)

    def relay(_number: int, _frame: object) -> None:
        if stopping.is_set():
            stop_all(signal.SIGKILL)
            os._exit(1)
        stopping.set()
        stop_all(signal.SIGTERM)

    before = {s: signal.signal(s, relay) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

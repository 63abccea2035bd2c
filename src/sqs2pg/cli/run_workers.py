"""`run --workers N`: several processes as one command.

Of one pipeline each worker is a whole one: SQS hands each message to one consumer, so the workers
need not talk to each other. Several pipelines are spread over the workers; where there are more
workers than pipelines, some pipelines have several. A worker that is killed is started again, with
the pipelines it had; one that stops with an error stops all.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import structlog

from sqs2pg.cli import live_view
from sqs2pg.cli.options import named_pipeline
from sqs2pg.cli.run_pipeline import Ended, Failure
from sqs2pg.cli.run_process import StatusOutput, run_process
from sqs2pg.cli.worker_shares import Shares
from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.totals import Totals, summed
from sqs2pg.runners.assembly import about_of
from sqs2pg.settings import Settings
from sqs2pg.status.access import Access
from sqs2pg.status.fleet import WorkerGroup
from sqs2pg.status.snapshot import About
from sqs2pg.telemetry import log

_STOPPED = {0, 130, -signal.SIGTERM, -signal.SIGINT}
"""Exit codes of a worker that was asked to stop: all but 0 mean that it had not begun yet."""
_WORKERS_END_S = 0.5
"""Past their grace period, the workers end first."""

logger = structlog.get_logger(__name__)


class WorkerProcess:
    """One worker process; its last line of stdout is its totals."""

    def __init__(
        self,
        number: int,
        command: list[str],
        folder: Path,
        *,
        status: bool,
        relay: bool = False,
        share: Path | None = None,
    ) -> None:
        """`status`: it serves its status, for us. `relay`: its log goes above the live view.
        `share`: the file that names the pipelines that are its own, where there are several.
        """
        self.number = number
        self._relay = relay
        self._command = [*command, "--status-file", str(folder / f"{number}.address")]
        # The parent answers for all workers at the address that is set.
        self._environment = os.environ | {"SQS2PG_STATUS__BIND": "127.0.0.1:0" if status else ""}
        if share:
            self._command += ["--share-file", str(share)]
        self.totals = Totals()
        self.each: dict[str, Totals] = {}
        """Of each of several pipelines, by name."""
        self.faults: dict[str, Failure] = {}
        self.start()

    def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        assert self.process.stdout is not None
        with self.process.stdout:
            last = _last_line(self.process.stdout)
        self.process.wait()
        if self.process.returncode == 0 and last:
            report = json.loads(last)
            each, faults = report.pop("pipelines", {}), report.pop("faults", {})
            self.totals = _totals_of(report)
            self.each = {name: _totals_of(one) for name, one in each.items()}
            self.faults = {name: Failure(*one) for name, one in faults.items()}
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


class Workers:
    """Several worker processes as one piece of work, each watched by a thread."""

    def __init__(
        self, workers: Sequence[WorkerProcess], before_reload: Callable[[], bool] = lambda: True
    ) -> None:
        """`workers` are processes that have been started. `before_reload` is called when the
        settings are to be read again; it returns whether the workers are to do it.
        """
        self._workers = workers
        self._before_reload = before_reload
        self._stopping = threading.Event()
        self._failed: list[tuple[int, int]] = []  # (exit code, worker)

    @property
    def totals(self) -> Totals:
        """The sum of what the workers did that have ended."""
        return summed(worker.totals for worker in self._workers)

    async def run(self, *, drain_settle_s: float | None = None) -> Totals:
        """Wait until all have ended; return the sum of their totals.

        Each waits for itself until the queue is empty. Raises FatalFault where one failed.
        """
        del drain_settle_s
        return await asyncio.to_thread(self._watch_all)

    def request_stop(self) -> None:
        """Ask every worker to stop; one that was killed is not started again."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def request_reload(self) -> None:
        """Have every worker read its settings again."""
        if self._before_reload():
            self._signal(signal.SIGHUP)

    @property
    def each(self) -> dict[str, Totals]:
        """What was done for each of several pipelines, by name."""
        names = sorted({name for worker in self._workers for name in worker.each})
        return {
            name: summed(w.each[name] for w in self._workers if name in w.each) for name in names
        }

    @property
    def faults(self) -> dict[str, Failure]:
        """What ended some of several pipelines for good, by name."""
        return {name: fault for worker in self._workers for name, fault in worker.faults.items()}

    def kill(self) -> None:
        """Kill every worker."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    def _watch_all(self) -> Totals:
        watchers = [threading.Thread(target=self._watch, args=(one,)) for one in self._workers]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join()
        if self._failed:
            raise _failed(*self._failed[0])
        return self.totals

    def _watch(self, worker: WorkerProcess) -> None:
        while (code := worker.wait()) < 0 and not self._stopping.is_set():
            logger.warning("worker was killed; starting it again", worker=worker.number)
            worker.start()
            if self._stopping.is_set():  # the stop came too early to reach the new process
                worker.process.send_signal(signal.SIGTERM)
        if self._stopping.is_set():
            if code not in _STOPPED:
                self._failed.append((code, worker.number))
        elif code != 0:
            self._failed.append((code, worker.number))
            self.request_stop()


async def run_workers(
    count: int,
    every: Sequence[Settings],
    *,
    files: Sequence[Path],
    several: bool,
    drain: bool,
    drain_timeout_s: float | None,
    verbose: bool = False,
) -> Ended:
    """Run `count` workers to their end; return what they did.

    `every` are the settings of the only pipeline, or of all; `files` is where they stand. The
    status of all of them is served at `status.bind`.

    Raises FatalFault where one ended with an error, by itself or after all were asked to stop. Its
    exit code is the worker's, 1 for one that was killed; the worker's own error is on stderr
    already.
    """
    settings = every[0]
    command = [sys.executable, "-m", "sqs2pg", "run", "--json"]
    for file in files:
        command += ["-c", str(file)]
    command += ["--pipeline", name] if (name := named_pipeline()) else []
    command += ["-v"] if verbose else []
    command += ["--drain"] if drain else []
    command += ["--drain-timeout-s", str(drain_timeout_s)] if drain_timeout_s else []
    with tempfile.TemporaryDirectory(prefix="sqs2pg-") as place:
        folder = Path(place)
        shares = Shares(folder, files, count) if several else None
        access = Access.from_settings(settings.status)
        about = About() if several else about_of(settings)
        fleet = WorkerGroup(folder, token=access.token, about=about, several=several)
        view = live_view.wanted() and not several
        answering = bool(settings.status.address or view)
        workers = Workers(
            [
                WorkerProcess(
                    number,
                    command,
                    folder,
                    status=answering,
                    relay=view,
                    share=shares.file_of(number) if shares else None,
                )
                for number in range(count)
            ],
            shares.read_again if shares else lambda: True,
        )
        totals = await run_process(
            workers,
            status=StatusOutput(
                fleet,
                settings.status,
                view=view,
                tapped=fleet.tapped if settings.status.tap else None,
            ),
            abort=workers.kill,
            reload=workers.request_reload,
            exit_within_s=settings.shutdown_grace_s + _WORKERS_END_S,
        )
        return Ended(totals, several, workers.each, workers.faults)


def _totals_of(report: dict[str, Any]) -> Totals:
    del report["messages_per_second"]
    return Totals(**report)


def _failed(code: int, worker: int) -> FatalFault:
    if code < 0:
        killed = signal.Signals(-code).name
        return FatalFault(
            f"worker {worker} was killed by {killed} while it stopped",
            code="worker_failed",
            hint="what it held comes back when the leases end",
        )
    fault = FatalFault(
        f"worker {worker} stopped with exit code {code}",
        code="worker_failed",
        hint="its own error is above",
    )
    fault.exit_code = code
    return fault


def _last_line(lines: IO[str]) -> str:
    """Return the last line of a worker's stdout that is not blank; "" where there is none."""
    last = ""
    for line in lines:
        last = line.strip() or last
    return last


def _pass_on(lines: IO[str]) -> None:
    """Print a worker's log above the view, in short lines, without what the view shows."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            print(line, end="", file=sys.stderr)
            continue
        if "exit_code" in event and event.get("level") == "error":
            log.report_error(event["event"], event.get("hint", ""), code=event.get("code", ""))
        elif event.get("event") not in {"batch", "more batches", "consuming"}:
            print(line.rstrip() if log.is_json() else log.short_line(event), file=sys.stderr)

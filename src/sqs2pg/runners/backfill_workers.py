"""`backfill --workers N`: archives over several processes. Each writes one archive at a time.

    parent ─ find ─▶ archives, the largest first ─ one line of JSON ─▶ worker: as `backfill` alone
           ◀─ one line of JSON: what it has done so far, and how the archive ended ┘

The progress is in the table, so a worker needs to know nothing of the others. It ends when its
standard input does: it does not outlive the parent. No line of an archive passes through here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from typing import IO, NamedTuple

import msgspec
import structlog

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.pipeline import archive_reader
from sqs2pg.pipeline.archive_check import ArchiveRefused, refusal_of
from sqs2pg.pipeline.archive_objects import Objects
from sqs2pg.pipeline.archive_reader import Archive
from sqs2pg.pipeline.archive_stdin import NAME as STDIN
from sqs2pg.pipeline.backfill import Backfill, Done

REPORT_S = 0.5
"""How often a worker says how far it is."""

log = structlog.get_logger(__name__)


class Report(msgspec.Struct):
    """What a worker says: how far it is, or how an archive ended."""

    done: Done
    bytes_done: int
    is_ready: bool = False
    """It has no archive: the next one may be given."""
    refused: str = ""
    """Why the archive was refused: nothing of it was written."""
    hint: str = ""


class Assignment(msgspec.Struct):
    """The archive that a worker is given."""

    name: str
    digest: str
    size: int
    day: date


class WorkerPipes(NamedTuple):
    """A worker process, as its parent sees it."""

    pid: int
    given: int
    """The file descriptor of its standard input."""
    said: int
    """That of its standard output."""


def fork_workers(count: int) -> list[WorkerPipes] | None:
    """Fork worker processes; return them, or None in each of these.

    A fork and not a new interpreter: what is imported is there at once. Call it before the first
    event loop, thread or connection.
    """
    gc.freeze()  # the cyclic collector would write to what the processes share
    workers: list[WorkerPipes] = []
    for _ in range(count):
        (taken, given), (said, saying) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            # It must not keep the ends of others: they would not see that the parent is gone.
            for end in (given, said, *(end for one in workers for end in one[1:])):
                os.close(end)
            for end, to in ((taken, sys.stdin.fileno()), (saying, sys.stdout.fileno())):
                os.dup2(end, to)
                os.close(end)
            return None
        os.close(taken)
        os.close(saying)
        workers.append(WorkerPipes(pid, given, said))
    return workers


class BackfillWorkers:
    """The parent's side: gives archives to worker processes until all are written."""

    def __init__(self, workers: Sequence[WorkerPipes], *, store: Objects | None = None) -> None:
        """`workers`: those of `fork_workers`, which run `serve`."""
        self._workers = workers
        self._store = store
        self._reports: dict[int, Report] = {}
        self._refused: list[ArchiveRefused] = []
        self._waiting: deque[Archive] = deque()
        self.bytes_total = 0
        """Stored bytes of all archives."""

    @property
    def bytes_done(self) -> int:
        """Stored bytes that have been read, as far as workers have reported."""
        return sum(report.bytes_done for report in self._reports.values())

    @property
    def done(self) -> Done:
        """What all workers have done, as far as they have reported."""
        return Done.sum(report.done for report in self._reports.values())

    async def run(self, paths: Sequence[str]) -> Done:
        """As `Backfill.run`. Raises FatalFault where a worker ends before its work."""
        found = await asyncio.to_thread(archive_reader.find_all, paths, self._store)
        if any(one.name == STDIN for one in found):
            raise SettingsError(
                "standard input is one archive, for one worker", hint="leave --workers away"
            )
        self.bytes_total = sum(one.size for one in found)
        # The largest first: a large one that comes last would have one worker at the end.
        self._waiting.extend(sorted(found, key=lambda one: one.size, reverse=True))
        works = [asyncio.create_task(self._work(n, one)) for n, one in enumerate(self._workers)]
        try:
            await asyncio.gather(*works)
        finally:
            for work in works:
                work.cancel()
            await asyncio.wait(works)
        if self._refused:
            raise refusal_of(self._refused)
        return self.done

    async def _work(self, number: int, worker: WorkerPipes) -> None:
        """Give one worker archives until there are none."""
        name = ""
        code: int | None = None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        with os.fdopen(worker.said, "rb", buffering=0) as said:
            try:
                with os.fdopen(worker.given, "wb", buffering=0) as given:
                    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), said)
                    while line := await reader.readline():
                        report = msgspec.json.decode(line, type=Report)
                        self._note(number, name, report)
                        if report.is_ready:
                            name = self._give(given)
                            if not name:
                                break
                code = await asyncio.to_thread(_exit_code, worker.pid)
            finally:
                if code is None:
                    with suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
                    await asyncio.to_thread(_exit_code, worker.pid)
        if name or code:
            raise _ended(code, name)

    def _note(self, number: int, name: str, report: Report) -> None:
        self._reports[number] = report
        if report.refused:
            log.warning("an archive is refused", where=name, code="archive_format")
            self._refused.append(
                ArchiveRefused(report.refused, code="archive_format", hint=report.hint)
            )

    def _give(self, given: IO[bytes]) -> str:
        """Give the next archive to a worker; return its name, "" where there is none."""
        if not self._waiting:
            return ""
        one = self._waiting.popleft()
        given.write(
            msgspec.json.encode(Assignment(one.name, one.digest, one.size, one.date)) + b"\n"
        )
        return one.name


def _exit_code(pid: int) -> int:
    """Wait for the end of a process. Blocking."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _ended(code: int, name: str) -> FatalFault:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    fault = FatalFault(
        f"a worker {how}" + (f" while it wrote {name}" if name else ""),
        code="worker_failed",
        hint="its own error is above, if it had one; the same command goes on where it ended",
    )
    fault.exit_code = max(1, code)
    return fault


async def serve(work: Backfill) -> None:
    """Write the archives that standard input names, one by one; report on standard output.

    Returns at the end of standard input, also in the middle of an archive. Raises as
    `Backfill.write`, but for an archive that is refused, which is reported.
    """
    given = await _stdin()
    passed = 0  # bytes of archives that were done before, or are refused
    following = asyncio.create_task(given.readline())
    _say(Report(work.done, 0, is_ready=True))
    while line := await following:
        one = msgspec.json.decode(line, type=Assignment)
        following = asyncio.create_task(given.readline())  # while it writes: the end of the input
        before = work.bytes_done
        archive = Archive(one.name, one.digest, one.size, one.day)
        writing = asyncio.create_task(work.write(archive))
        while not writing.done():
            await asyncio.wait(
                [writing, following], timeout=REPORT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if following.done() and not writing.done():  # the parent is gone
                writing.cancel()
                await asyncio.wait([writing])
                return
            _say(Report(work.done, passed + work.bytes_done))
        last = Report(work.done, 0, is_ready=True)
        try:
            writing.result()
        except ArchiveRefused as refusal:
            last.refused, last.hint = refusal.what, refusal.hint
        if work.bytes_done == before:
            passed += one.size
        last.bytes_done = passed + work.bytes_done
        _say(last)


def _say(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


async def _stdin() -> asyncio.StreamReader:
    # No thread: one that waits for standard input would keep the interpreter from ending.
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader

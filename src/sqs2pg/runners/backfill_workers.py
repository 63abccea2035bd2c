"""`backfill --workers N`: archives over several processes. Each writes one archive at a time.

    parent ─ find ─▶ archives, the largest first ─ one line of JSON ─▶ worker: as `backfill` alone
           ◀─ one line of JSON: what it has done so far, and how the archive ended ┘

The progress is in the table, so a worker needs to know nothing of the others. It ends when its
standard input does: it does not outlive the parent. No line of an archive passes through here.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from datetime import date

import msgspec
import structlog

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.pipeline import archive_reader
from sqs2pg.pipeline.archive_check import ArchiveRefused, refusal_of
from sqs2pg.pipeline.archive_reader import Archive, Objects
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


class BackfillWorkers:
    """The parent's side: gives archives to worker processes until all are written."""

    def __init__(self, command: Sequence[str], count: int, *, store: Objects | None = None) -> None:
        """`command` starts a worker (`serve`)."""
        self._command = command
        self._count = count
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
        parts = [report.done for report in self._reports.values()]
        names = Done.__struct_fields__
        return Done(**{name: sum(getattr(part, name) for part in parts) for name in names})

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
        works = [asyncio.create_task(self._work(n)) for n in range(min(self._count, len(found)))]
        try:
            await asyncio.gather(*works)
        finally:
            for work in works:
                work.cancel()
            await asyncio.wait(works)
        if self._refused:
            raise refusal_of(self._refused)
        return self.done

    async def _work(self, number: int) -> None:
        """Start one worker; give it archives until there are none."""
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        name = ""
        try:
            while line := await process.stdout.readline():
                report = msgspec.json.decode(line, type=Report)
                self._reports[number] = report
                if report.refused:
                    log.warning("an archive is refused", where=name, code="archive_format")
                    refusal = ArchiveRefused(
                        report.refused, code="archive_format", hint=report.hint
                    )
                    self._refused.append(refusal)
                if not report.is_ready:
                    continue
                if not self._waiting:
                    process.stdin.close()
                    name = ""
                    continue
                archive = self._waiting.popleft()
                name = archive.name
                given = Assignment(name, archive.digest, archive.size, archive.date)
                process.stdin.write(msgspec.json.encode(given) + b"\n")
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if name or code:
            raise _ended(code, name)


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

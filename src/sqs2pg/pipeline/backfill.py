"""Backfill: archived lines through the same path as messages of the queue.

    archive ─lines─▶ messages ─process─▶ rows ┐ one transaction
                                     progress ┘

Each batch's transaction also moves the archive's line number in `sqs2pg.backfill`, so that a run
that was killed goes on at the line after the last one committed. An archive that is finished is not
written again. One run at a time has an archive (`postgres/backfill_progress.py`).

A line that also came over SQS is not recognised, since it has no MessageId. `ledger.dedupe_key`
covers that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import date
from itertools import islice

import msgspec
import structlog

from sqs2pg.errors import PermanentFault, Stage, TransientFault
from sqs2pg.mapping.ledger_key import line_id, line_mark, line_prefix
from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.pipeline import archive_reader
from sqs2pg.pipeline.archive_check import ArchiveRefused, check_lines, refusal_of
from sqs2pg.pipeline.archive_lines import Line
from sqs2pg.pipeline.archive_reader import Archive, Objects
from sqs2pg.pipeline.backoff import backoff_s
from sqs2pg.pipeline.isolation import OF_A_PERSON
from sqs2pg.pipeline.processor import Processor
from sqs2pg.postgres.backfill_progress import BackfillProgress
from sqs2pg.postgres.connection import Session

TRIES_MAX = 12
"""Attempts at one batch, over some minutes, before a run ends. The next run goes on from there."""
BATCHES_AT_ONCE = 5
"""A backfill's batch is as large as this many of the queue's: no line has to be visible soon, and
each batch costs a commit."""
BATCH_BYTES_MAX = 32 * 2**20
"""Bodies of a batch; the line that reaches it is its last."""

CLAIM_WAIT_S = 5.0
"""How long a run waits for one that has the archive: it may have been killed a moment ago."""

_OTHER_FORMS = {
    *("not_json", "bad_unicode", "not_an_object", "not_an_array", "not_base64", "not_gzip"),
    *("not_zstd", "unknown_encoding", "not_sns", "not_eventbridge"),
}
"""Faults of a line that is not what the settings say lines are."""

log = structlog.get_logger(__name__)


class Done(msgspec.Struct):
    """What a run did so far; lines."""

    files: int = 0
    skipped: int = 0
    """Files that an earlier run had finished."""
    lines: int = 0
    written: int = 0
    duplicate: int = 0
    quarantined: int = 0
    resumed: int = 0
    """Lines that an earlier run had committed."""


class Backfill:
    """One run over archives, through one processor."""

    def __init__(
        self,
        session: Session,
        processor: Processor,
        pipeline: int,
        *,
        batch_lines: int,
        day: date | None = None,
        store: Objects | None = None,
        claim_wait_s: float = CLAIM_WAIT_S,
        begun: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`session` is the run's own: it holds the claim. `batch_lines` is the size of the queue's
        batches. `day` dates the lines that have no time of their own; without it their archive's
        day does. `begun` is awaited once it is known how many lines of an archive are committed,
        before the next one is written.
        """
        self._session = session
        self._processor = processor
        self._pipeline = pipeline
        self._batch_lines = BATCHES_AT_ONCE * batch_lines
        self._day = day
        self._store = store
        self._claim_wait_s = claim_wait_s
        self._begun = begun
        self.done = Done()
        self.bytes_total = 0
        """Stored bytes of the archives that are not done yet, or were done by this run."""
        self._bytes_before = 0
        self._reader: archive_reader.Reader | None = None

    @property
    def bytes_done(self) -> int:
        """Stored bytes of the archives that have been read."""
        return self._bytes_before + (self._reader.bytes_read if self._reader else 0)

    async def run(self, paths: Sequence[str]) -> Done:
        """Write the lines of every archive under `paths` that no run has finished.

        An archive of another format does not keep the others; ArchiveRefused is raised after them.
        Raises SettingsError for a path that names nothing, Sqs2pgError for a damaged archive, and
        what the processor raises. May be repeated, and goes on where it ended.
        """
        found = await asyncio.to_thread(archive_reader.find_all, paths, self._store)
        self.bytes_total = sum(one.size for one in found)
        refused: list[ArchiveRefused] = []
        for one in found:
            try:
                await self.write(one)
            except ArchiveRefused as refusal:
                log.warning("an archive is refused", where=one.name, code=refusal.code)
                refused.append(refusal.with_traceback(None))
                self.bytes_total -= one.size
        if refused:
            raise refusal_of(refused)
        return self.done

    async def write(self, archive: Archive) -> None:
        """Write the lines of one archive that `find` has found, unless a run has finished it.

        Raises as `run`; FatalFault `backfill_twice` where another run has it.
        """
        archive = await asyncio.to_thread(archive_reader.identify, archive)
        progress = BackfillProgress(self._session, self._pipeline, archive.digest, archive.name)
        writer = await self._processor.sink.connected()
        async with progress.claimed(archive.size, self._claim_wait_s, writer):
            await self._write_claimed(archive, progress)

    async def _write_claimed(self, archive: Archive, progress: BackfillProgress) -> None:
        line, finished_at = await progress.read()
        if finished_at is not None:
            self.done.skipped += 1
            self.bytes_total -= archive.size
            log.info("done before", where=archive.name)
            return
        self.done.files += 1
        self.done.resumed += line
        if self._begun is not None:
            await self._begun()
        first, before = line, self.done.written + self.done.duplicate
        self._reader = archive_reader.read(archive, self._store)
        lines = self._reader.lines()
        if line:
            lines = islice(lines, line, None)
        else:
            lines = await asyncio.to_thread(check_lines, archive.name, lines, self._is_readable)
        batch = await asyncio.to_thread(self.read_batch, archive, lines, line)
        while batch:
            # The next one is read while this one is written.
            after = line + len(batch)
            reading = asyncio.create_task(asyncio.to_thread(self.read_batch, archive, lines, after))
            try:
                await self._write_batch(progress, batch, line)
            except BaseException:
                await asyncio.wait([reading])
                reading.exception()  # seen: the one raised here comes first
                raise
            line = after
            batch = await reading
        await progress.finish(line)
        if line and not first and self.done.written + self.done.duplicate == before:
            log.warning(
                "no line of an archive was written: correct the mapping, replay the quarantine",
                where=archive.name,
                quarantined=line,
            )
        self._bytes_before += archive.size
        self._reader = None

    def _is_readable(self, body: bytes) -> bool:
        """Whether the mapping can read a line's form, whatever is in it."""
        message = Message("", "", body.decode("utf-8", "surrogateescape"), SystemAttributes(0))
        try:
            self._processor.plan.encoder.mapping.decode(message)
        except PermanentFault as fault:
            return fault.code not in _OTHER_FORMS
        return True

    def read_batch(self, archive: Archive, lines: Iterator[Line], first: int) -> list[Message]:
        """Read the next batch; it is empty at the end of the archive. May block.

        `first` is the number of its first line in the archive. Raises FatalFault for a number of
        `LINES_MAX` or more.
        """
        day = SystemAttributes(archive_reader.day_ms(self._day or archive.date))
        mark = line_mark(self._pipeline, archive.digest)
        prefix = line_prefix(mark)
        messages: list[Message] = []
        size = 0
        for number, (body, sent_ms) in enumerate(islice(lines, self._batch_lines), first):
            attributes = day if sent_ms is None else SystemAttributes(sent_ms)
            text = body.decode("utf-8", "surrogateescape")
            messages.append(Message(f"{prefix}{number:08x}", "", text, attributes))
            size += len(body)
            if size >= BATCH_BYTES_MAX:
                break
        if messages:
            line_id(mark, first + len(messages) - 1)  # raises where the numbers end
        return messages

    async def _write_batch(
        self, progress: BackfillProgress, messages: list[Message], line: int
    ) -> None:
        """Process one batch, with the progress in its transactions, until it is settled.

        A line of a person whose data key does not open is quarantined: no queue would hold it.
        """
        parts = [messages]
        to_quarantine: dict[str, PermanentFault] = {}
        while parts:
            part = parts.pop()
            fault = await self._write_part(progress, part, line, to_quarantine)
            if fault is None:
                line += len(part)
            elif len(part) == 1:
                why = PermanentFault(fault.code, stage=Stage.WRITE)
                to_quarantine[part[0].message_id] = why
                parts.append(part)
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]

    async def _write_part(
        self,
        progress: BackfillProgress,
        messages: list[Message],
        line: int,
        to_quarantine: dict[str, PermanentFault],
    ) -> TransientFault | None:
        """Process the lines from number `line` on until they are settled.

        Returns the fault where the data key of some line's person does not open.
        """
        after = line + len(messages)
        note = progress.move_statement(line, after)
        for attempt in range(1, TRIES_MAX + 1):
            outcomes = await self._processor.process_with_statement(messages, note, to_quarantine)
            if Outcome.RELEASED not in outcomes:
                break
            fault = self._processor.last_fault
            if fault and fault.code in OF_A_PERSON:
                return fault
            log.warning(
                "write failed; it will be tried again",
                code=fault.code if fault else "released",
                table=fault.table if fault else "",
                day=fault.day if fault else "",
                attempt=attempt,
            )
            await asyncio.sleep(backoff_s(attempt))
        else:
            raise TransientFault(
                "the database did not take a batch",
                code=fault.code if fault else "released",
                hint="run the same command again when it does: it goes on where it ended",
            )
        reached, _ = await progress.read()
        if reached != after:
            raise progress.already_running()
        done = self.done
        done.lines += len(messages)
        done.written += outcomes.count(Outcome.WRITTEN)
        done.duplicate += outcomes.count(Outcome.DUPLICATE)
        done.quarantined += outcomes.count(Outcome.QUARANTINED)
        return None

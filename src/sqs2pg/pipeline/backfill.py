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
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from datetime import date
from typing import Self

import msgspec
import structlog

from sqs2pg.errors import PermanentFault, Stage, TransientFault
from sqs2pg.mapping.encoder import EncodedAhead
from sqs2pg.mapping.ledger_key import line_mark
from sqs2pg.message import Message, OutcomeCounts, RowChanges
from sqs2pg.pipeline import archive_reader
from sqs2pg.pipeline.archive_batches import LineBatch, batches, lines_at_once, made_ahead
from sqs2pg.pipeline.archive_check import ArchiveRefused, check_chunks, has_form, refusal_of
from sqs2pg.pipeline.archive_lines import LineChunk
from sqs2pg.pipeline.archive_objects import Objects
from sqs2pg.pipeline.archive_reader import (
    ANY_FORM,
    Archive,
    ArchiveForm,
    Reader,
)
from sqs2pg.pipeline.backoff import backoff_s
from sqs2pg.pipeline.processor import Processor
from sqs2pg.pipeline.refusals import PROBE_TIMEOUT_S
from sqs2pg.pipeline.refused_lines import REFUSED_MAX, RefusedLines, log_left
from sqs2pg.postgres.backfill_progress import BackfillProgress
from sqs2pg.postgres.connection import Session
from sqs2pg.settings import ArchiveFormat
from sqs2pg.vault.crypto import OF_A_PERSON

TRIES_MAX = 12
"""Attempts at one batch, over some minutes, before a run ends. The next run goes on from there."""
CLAIM_WAIT_S = 5.0
"""How long a run waits for one that has the archive: it may have been killed a moment ago."""

log = structlog.get_logger(__name__)


ROWS = tuple(f"rows_{name}" for name in RowChanges._fields)
"""What became of lines in their table, by the names of `Done`."""


class Done(msgspec.Struct):
    """What a run did so far; lines."""

    files: int = 0
    skipped: int = 0
    """Files that an earlier run had finished."""
    lines: int = 0
    written: int = 0
    duplicate: int = 0
    quarantined: int = 0
    left: int = 0
    """Lines that PostgreSQL does not take; the next run tries them first."""
    resumed: int = 0
    """Lines that an earlier run had committed."""
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_superseded: int = 0
    rows_ignored: int = 0
    rows_deleted: int = 0

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> Self:
        """Return what several runs did."""
        each = list(map(msgspec.structs.astuple, parts))
        return cls(*map(sum, zip(*each, strict=True)))


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
        format: ArchiveFormat | None = None,  # noqa: A002  as the option is called
        form: ArchiveForm = ANY_FORM,
    ) -> None:
        """`session` is the run's own: it holds the claim. `batch_lines` is the size of the queue's
        batches. `day` dates the lines that have no time of their own; without it their archive's
        day does. `begun` is awaited once it is known how many lines of an archive are committed,
        before the next one is written. `form`: what the settings say about archives; `format` wins
        over its own.
        """
        self._form = form if format is None else form._replace(format=format)
        self._session = session
        self._processor = processor
        self._pipeline = pipeline
        self._batch_lines = lines_at_once(batch_lines)
        self._day = day
        self._store = store
        self._claim_wait_s = claim_wait_s
        self._begun = begun
        self.done = Done()
        self._rows_before = processor.rows
        self._refused = RefusedLines(processor.sink)
        self.bytes_total = 0
        """Stored bytes of the archives that are not done yet, or were done by this run."""
        self._bytes_before = 0
        self._reader: Reader | None = None
        self._checking: asyncio.Task[None] | None = None

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
        archive = await asyncio.to_thread(archive_reader.identify, archive, self._store)
        progress = BackfillProgress(self._session, self._pipeline, archive.digest, archive.name)
        writer = await self._processor.sink.connected()
        try:
            async with progress.claimed(archive.size, self._claim_wait_s, writer):
                await self._write_claimed(archive, progress)
        finally:
            self._reader = None
        if archive.spool is not None:
            archive.spool.close()

    async def _write_claimed(self, archive: Archive, progress: BackfillProgress) -> None:
        line, finished_at, left = await progress.read()
        if finished_at is not None:
            self.done.skipped += 1
            self.bytes_total -= archive.size
            log.info("done before", where=archive.name)
            return
        self.done.files += 1
        self.done.resumed += line - len(left)
        if self._begun is not None:
            await self._begun()
        if left:
            await self._catch_up(archive, left, progress)
        first, before = line, self.done.written + self.done.duplicate
        self._reader = archive_reader.read(archive, self._store, self.form())
        line = await self._write_batches(archive, self._reader, line, progress)
        reached, _, left = await progress.read()
        if reached != line:
            raise progress.already_running()
        await progress.finish(line)
        self.done.left += len(left)
        if line and not first and self.done.written + self.done.duplicate == before:
            log.warning(
                "no line of an archive was written: correct the mapping, replay the quarantine",
                where=archive.name,
                quarantined=line - len(left),
            )
        self._bytes_before += archive.size
        self._reader = None  # not before: `bytes_done` never falls

    async def _write_batches(
        self, archive: Archive, reader: Reader, line: int, progress: BackfillProgress
    ) -> int:
        """Write an archive from a line on; return the number of its lines."""
        cut = self.batches(archive, reader.chunks(line), line)

        def make() -> tuple[LineBatch, EncodedAhead | None] | None:
            batch = next(cut, None)
            if batch is None:
                return None
            return batch, self._processor.encode_ahead(batch.units, batch.faults)

        try:
            async with aclosing(made_ahead(make)) as made:
                async for batch, ahead in made:
                    await self._write_batch(progress, batch, line, ahead)
                    line += len(batch.units)
            await self._checked()
        finally:
            if self._checking is not None:
                await asyncio.wait([self._checking])  # nobody else may use its session meanwhile
                self._checking = None
        return line

    async def _checked(self) -> None:
        """Wait until the progress of the batch before has been checked."""
        checking, self._checking = self._checking, None
        if checking is not None:
            try:
                await asyncio.shield(checking)
            except asyncio.CancelledError:
                self._checking = checking
                raise

    async def _check(self, progress: BackfillProgress, line: int) -> None:
        """Raise FatalFault where the progress has not come to a line that was committed."""
        if (await progress.read()).line < line:
            raise progress.already_running()

    def batches(
        self, archive: Archive, chunks: Iterator[LineChunk], first: int
    ) -> Iterator[LineBatch]:
        """Yield the lines of an archive from number `first` on; blocking.

        Raises ArchiveRefused where a whole archive holds nothing that can be read, and what
        `chunks` and `archive_batches.batches` raise.
        """
        if not first:
            chunks = check_chunks(archive.name, chunks, self._is_readable)
        yield from batches(
            chunks,
            mark=line_mark(self._pipeline, archive.digest),
            day_ms=archive_reader.line_ms(archive, self._day),
            first=first,
            lines_max=self._batch_lines,
            attributes=archive_reader.attributes_of(archive),
        )

    def _is_readable(self, body: bytes) -> bool:
        return has_form(self._processor.plan.encoder.mapping, body)

    def form(self) -> ArchiveForm:
        """Return what mapping and command line say about archives."""
        return archive_reader.form_for(self._is_readable, self._form)

    async def _write_batch(
        self, progress: BackfillProgress, batch: LineBatch, line: int, ahead: EncodedAhead | None
    ) -> None:
        """Process one batch, with the progress in its transactions, until it is settled.

        A line of a person whose data key does not open is quarantined: no queue would hold it. A
        line that PostgreSQL does not take is left behind (`refused_lines.py`).
        """
        # What replaces bodies needs messages that keep what it puts into them.
        is_plain = self._processor.plan.payloads is None
        parts: list[Sequence[Message]] = [batch.units if is_plain else list(batch.units)]
        to_quarantine = dict(batch.faults)
        searching = False
        while parts:
            part = parts.pop()
            after = line + len(part)
            note = progress.move_statement(line, after)
            fault = await self._settle(
                progress.source, part, note, to_quarantine, ahead, searching=searching
            )
            if fault is None:
                await self._checked()
                # While the next batch is written: no line's row depends on it.
                self._checking = asyncio.create_task(self._check(progress, after))
                line = after
                continue
            searching = searching or fault.code not in OF_A_PERSON
            if len(part) > 1:
                half = len(part) // 2
                parts += [part[half:], part[:half]]
            elif fault.code in OF_A_PERSON:
                why = PermanentFault(fault.code, stage=Stage.WRITE)
                to_quarantine[part[0].message_id] = why
                parts.append(part)
            else:
                await self._leave(progress, line, fault)
                line += 1

    async def _leave(self, progress: BackfillProgress, line: int, fault: TransientFault) -> None:
        """Leave a line behind. Raises TransientFault where not the line may be at fault."""
        left = len((await progress.read()).left)
        if self._refused.refuse(fault) or left >= REFUSED_MAX:
            raise _refused(progress.source, fault)
        await progress.leave(line, await self._processor.sink.connected())
        log_left(progress.source, line, fault)

    async def _catch_up(
        self, archive: Archive, left: Sequence[int], progress: BackfillProgress
    ) -> None:
        """Try the lines that earlier runs have left behind."""
        reader = archive_reader.read(archive, self._store, self.form())
        cut = self.batches(archive, reader.chunks(left[0]), left[0])
        waiting = list(reversed(left))

        def make() -> LineBatch | None:
            return next(cut, None) if waiting else None

        async with aclosing(made_ahead(make)) as made:
            async for batch in made:
                units, faults = batch
                while waiting and waiting[-1] < units.first + len(units):
                    line = waiting.pop()
                    index = line - units.first
                    fault = await self._settle(
                        archive.name,
                        units[index : index + 1],
                        progress.catch_up_statement(line),
                        faults,
                        searching=True,
                    )
                    if fault is not None:
                        log_left(archive.name, line, fault)
                        if self._refused.refuse(fault):
                            return  # the others would most likely be refused, too

    async def _settle(
        self,
        archive: str,
        messages: Sequence[Message],
        note: str,
        to_quarantine: Mapping[str, PermanentFault],
        ahead: EncodedAhead | None = None,
        *,
        searching: bool,
    ) -> TransientFault | None:
        """Process lines until they are settled, with the statement `note` in their transaction.

        Returns the fault of one of them: the data key of its person does not open, or PostgreSQL
        does not take it. `searching`: they are a part of lines that had such a fault.
        """
        processor, attempt, alike, code = self._processor, 0, 0, ""
        probing = processor.sink.probing(PROBE_TIMEOUT_S) if searching else nullcontext()
        with probing:
            while True:
                attempt += 1
                outcomes = await processor.process_with_statement(
                    messages, note, to_quarantine, ahead
                )
                counts = OutcomeCounts.of(outcomes)
                if not counts.released:
                    self._count(counts)
                    return None
                fault = processor.last_fault
                assert fault is not None
                if fault.code in OF_A_PERSON:
                    return fault
                alike, code = (alike + 1 if fault.code == code else 1), fault.code
                if await self._refused.is_of_a_line(
                    fault, alike, len(messages), searching=searching
                ):
                    return fault
                log.warning(
                    "write failed; it will be tried again",
                    code=code,
                    **fault.named,
                    attempt=attempt,
                )
                if attempt == TRIES_MAX:
                    raise _refused(archive, fault)
                await asyncio.sleep(backoff_s(attempt))

    def _count(self, counts: OutcomeCounts) -> None:
        done = self.done
        done.lines += counts.written + counts.duplicate + counts.quarantined
        done.written += counts.written
        done.duplicate += counts.duplicate
        done.quarantined += counts.quarantined
        for name, now, was in zip(ROWS, self._processor.rows, self._rows_before, strict=True):
            setattr(done, name, now - was)
        if counts.written:
            self._refused.note_written()


def _refused(archive: str, fault: TransientFault) -> TransientFault:
    """Return the fault that ends a run."""
    about = " ".join(filter(None, (fault.table and f"for {fault.table}", fault.day)))
    return TransientFault(
        f"the database did not take a batch of {archive}: {fault.what}"
        + (f", {about}" if about else ""),
        code=fault.code,
        hint="correct the cause, then run the same command again: it goes on where it ended",
        table=fault.table,
        day=fault.day,
    )

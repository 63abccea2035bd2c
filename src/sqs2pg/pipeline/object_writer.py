"""Write a piece of S3 objects in one transaction, or without the lines that cannot be written.

Place in the flow: between `s3_objects.py` and the processor. A piece with a line that cannot be
written is halved, and halves of halves, until what is good is committed. The lines that are left
are quarantined in the last transaction, which moves the progress and ends the notifications. Such a
line belongs to a person whose data key does not open, or PostgreSQL does not take it though it
takes the others (`refused_lines.py`).

What is committed before the last transaction is known by the ledger if it is read again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import Protocol

from sqs2pg.errors import PermanentFault, Stage, TransientFault
from sqs2pg.mapping.encoder import EncodedAhead
from sqs2pg.mapping.object_batch import ObjectBatch, ObjectLines
from sqs2pg.message import Message, Outcome
from sqs2pg.pipeline.object_feed import Piece
from sqs2pg.pipeline.plan import Plan
from sqs2pg.pipeline.refusals import PROBE_TIMEOUT_S, may_be_set_aside
from sqs2pg.pipeline.refused_lines import REFUSED_MAX, RefusedLines
from sqs2pg.postgres.object_claims import ObjectClaims
from sqs2pg.postgres.sink import Sink
from sqs2pg.vault.crypto import OF_A_PERSON

REJECTED = "rejected_by_database"


class LineWriter(Protocol):
    """What the processor does for us (`processor.py`)."""

    plan: Plan
    """What it does to lines."""
    sink: Sink
    """Where it writes."""
    last_fault: TransientFault | None
    """Why messages were released."""

    async def process_lines(
        self,
        batch: ObjectBatch,
        to_quarantine: Mapping[str, PermanentFault],
        statement: str,
        ahead: EncodedAhead | None,
    ) -> list[Outcome]:
        """Process a batch, with a statement in its last transaction."""

    def encode_ahead(
        self, messages: ObjectBatch, to_quarantine: Mapping[str, PermanentFault], /
    ) -> EncodedAhead | None:
        """Encode a batch while another one is written."""

    def release(self, fault: TransientFault) -> None:
        """Note why messages are released."""

    def key_of(self, message: Message) -> str:
        """Return a notification's ledger key."""


class PieceWriter:
    """Writes pieces, one at a time."""

    def __init__(self, writer: LineWriter, claims: ObjectClaims) -> None:
        self._writer = writer
        self._claims = claims
        self._refused = RefusedLines(writer.sink)
        self._alike, self._code = 0, ""
        self.searches_at_once = False
        """Whether a piece is searched when it fails for the first time: nobody soon tries again."""

    async def write(self, piece: Piece, keep: Callable[[], Awaitable[None]]) -> list[Outcome]:
        """Write a piece that has units; return their outcomes. Released ones come last.

        `keep` is awaited between transactions: it keeps the claims, and raises TransientFault where
        there is no time left. Raises as `Processor.process`.
        """
        batch = piece.batch
        tried = list(map(self._writer.key_of, (one.message for one in piece.tried)))
        statement = self._claims.move_statement(piece.moves, tried)
        outcomes = await self._writer.process_lines(batch, piece.unread, statement, piece.ahead)
        if outcomes[-1] is not Outcome.RELEASED:
            self._alike, self._code = 0, ""
            self._refused.note_written()
            return outcomes
        first, fault = outcomes.index(Outcome.RELEASED), self._writer.last_fault
        lines = batch.line_count - first
        if lines < 1 or fault is None or not await self._is_of_a_line(fault, lines):
            return outcomes
        still = [move._replace(after=move.before, ended=False) for move in piece.moves]
        search = _Search(
            self._writer, self._refused, piece, keep, self._claims.move_statement(still, ())
        )
        if not await search.run(first, fault):
            return outcomes
        return outcomes[:first] + await self._finish(search, first, statement)

    async def _is_of_a_line(self, fault: TransientFault, lines: int) -> bool:
        """Whether one of the lines is at fault, as far as it is known."""
        if fault.code in OF_A_PERSON:
            return True
        if not may_be_set_aside(fault):
            return False
        self._alike = self._alike + 1 if fault.code == self._code else 1
        self._code = fault.code
        if self.searches_at_once:
            return not await self._refused.is_everything_refused()
        return await self._refused.is_of_a_line(fault, self._alike, lines, searching=False)

    async def _finish(self, search: _Search, first: int, statement: str) -> list[Outcome]:
        """Quarantine the lines that are set aside, end the notifications and move the progress.

        Returns the outcomes of the piece from unit `first` on.
        """
        piece, batch = search.piece, search.piece.batch
        unread, aside = dict(piece.unread), sorted(search.aside)
        lines: list[ObjectLines] = []
        for index in aside:
            one = batch[index : index + 1]
            lines += one.lines
            unread[one[0].message_id] = search.aside[index]
        last = ObjectBatch(lines, batch.notifications, batch.oldest_ms)
        outcomes: list[Outcome] = []
        if last:
            outcomes = await self._writer.process_lines(last, unread, statement, None)
        else:
            await self._writer.sink.run_alone(statement, [])
        if Outcome.RELEASED in outcomes:
            return [Outcome.RELEASED] * (len(batch) - first)
        for index, outcome in zip(aside, outcomes, strict=False):
            search.outcomes[index] = outcome
        self._alike, self._code = 0, ""
        found = [search.outcomes[index] for index in range(first, batch.line_count)]
        return found + outcomes[len(aside) :]


class _Search:
    """The search through the lines of one piece, in order: first halves first."""

    def __init__(
        self,
        writer: LineWriter,
        refused: RefusedLines,
        piece: Piece,
        keep: Callable[[], Awaitable[None]],
        statement: str,
    ) -> None:
        """`statement` fails where the objects are not ours any more, and keeps their progress."""
        self._writer = writer
        self._refused = refused
        self._keep = keep
        self._statement = statement
        self.piece = piece
        self.aside: dict[int, PermanentFault] = {}
        """Why lines cannot be written, by their places in the batch."""
        self.outcomes: dict[int, Outcome] = {}
        """Of the lines that are committed."""

    async def run(self, first: int, fault: TransientFault) -> bool:
        """Commit the lines from `first` on that have met `fault` together, but not those set aside.

        Returns False where no line may be at fault after all.
        """
        of_a_person = fault.code in OF_A_PERSON
        probing = self._writer.sink.probing(PROBE_TIMEOUT_S)
        with nullcontext() if of_a_person else probing:
            if not await self._split(first, self.piece.batch.line_count, fault):
                return False
        rejected = any(fault.code == REJECTED for fault in self.aside.values())
        return not (rejected and await self._refused.is_everything_refused())

    async def _split(self, begin: int, end: int, fault: TransientFault) -> bool:
        """Do the same for some of the lines."""
        if end - begin == 1:
            return await self._judge(begin, fault)
        half = (begin + end) // 2
        first = await self._try(begin, half)
        if first is not None and not await self._go_on(begin, half, first):
            return False
        # Where the first half is good, the second has the fault of both.
        second = fault if first is None else await self._try(half, end)
        return second is None or await self._go_on(half, end, second)

    async def _go_on(self, begin: int, end: int, fault: TransientFault) -> bool:
        may_be = fault.code in OF_A_PERSON or may_be_set_aside(fault)
        return may_be and await self._split(begin, end, fault)

    async def _judge(self, index: int, fault: TransientFault) -> bool:
        """Set a line aside that has met a fault alone, if it does so again."""
        if fault.code in OF_A_PERSON:
            self.aside[index] = PermanentFault(fault.code, stage=Stage.WRITE)
            return True
        again = await self._try(index, index + 1)
        if again is None:
            return True
        if again.code != fault.code or len(self.aside) >= REFUSED_MAX:
            return False
        state = fault.code.removeprefix("postgres_")
        detail = " ".join(filter(None, (state, fault.table, fault.day)))
        self.aside[index] = PermanentFault(REJECTED, detail, stage=Stage.WRITE)
        return not self._refused.refuse(fault)

    async def _try(self, begin: int, end: int) -> TransientFault | None:
        """Commit some lines; return why they are not."""
        await self._keep()
        part = self.piece.batch[begin:end]
        outcomes = await self._writer.process_lines(part, self.piece.unread, self._statement, None)
        if outcomes[-1] is Outcome.RELEASED:
            return self._writer.last_fault
        self._refused.note_written()
        self.outcomes.update(enumerate(outcomes, begin))
        return None

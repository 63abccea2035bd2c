"""Write: an encoded batch -> PostgreSQL, in one transaction with its ledger entries.

COPY path: copy the ledger entries, the rows and the quarantine straight in. Rows of a state table
are staged and merged (`state_table.py`), and those of a table that takes no COPY are staged and
inserted (`write_path.py`), on both paths. Slow path, taken when
the COPY path fails: claim the keys (what the ledger has already is a duplicate), find the rows that
the database rejects, quarantine them, commit the rest.

Promises: after `write` returns, every row of the batch is durably committed as WRITTEN, was
there already (DUPLICATE), or is durably QUARANTINED. When it raises, nothing of the batch is
committed; or its COMMIT's reply was lost, and the ledger will show that on the next try.

Must never do: report an outcome before COMMIT, quarantine a row for a transient fault, or pass on
the text of a database error.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import msgspec
import psycopg

from sqs2pg.errors import PermanentFault, TransientFault
from sqs2pg.mapping.encoder import Encoded, copy_texts
from sqs2pg.message import DeadLetter, Outcome, Row, RowChanges
from sqs2pg.postgres.batch_transaction import BatchTransactions, Sealer, SinkPlan
from sqs2pg.postgres.connection import Session, Transaction
from sqs2pg.postgres.dead_letter_copy import copy_dead_letters
from sqs2pg.postgres.ledger import Claim, Ledger, attach_days
from sqs2pg.postgres.rehearsal import Part, Refusal, rehearse
from sqs2pg.postgres.reject_search import SUPPRESSED, find_rejected
from sqs2pg.postgres.reject_streak import Rejections, Streak
from sqs2pg.postgres.session_pool import Connect, SessionPool
from sqs2pg.postgres.sink_session import SinkSession
from sqs2pg.postgres.slow_path import CONSTRAIN, write_slowly
from sqs2pg.postgres.sqlstate import (
    COLUMN_STATES,
    DEADLOCK_DETECTED,
    DatabaseFault,
    Verdict,
    diagnose,
    transient,
)
from sqs2pg.postgres.tally import enter_batch
from sqs2pg.postgres.tap import Tap
from sqs2pg.postgres.target_copy import TargetChanges, TargetCopy, TargetTable
from sqs2pg.settings import write_limit_s

SealRejected = Callable[[str, PermanentFault], DeadLetter]
"""Seal the message of a ledger key, because the database rejected its row."""
Confirm = Callable[[], Awaitable[None]]
"""Check on the sink's session that the tables are still those that the rows were made for. Raises
TransientFault where they have changed."""

_Done = TypeVar("_Done")

_NOT_OF_THE_SINK = {Verdict.TRANSIENT, Verdict.NO_TARGET_PARTITION}
"""No other path of the sink writes the batch."""

_NOTE_SUSPECT = """WITH before AS (SELECT attempt FROM sqs2pg.suspect WHERE key = %s)
INSERT INTO sqs2pg.suspect AS s (key, pipeline, attempt) VALUES (%s, %s, %s)
ON CONFLICT (key) DO UPDATE SET attempt = excluded.attempt, tried_at = now()
RETURNING (SELECT attempt FROM before)"""
_CLEAR_SUSPECT = "DELETE FROM sqs2pg.suspect WHERE key = %s"

# Made once and run by map: a generator costs one Python call per row.
_by_key = attrgetter("key")


class Batch(NamedTuple):
    """What a sink writes. Its keys are distinct."""

    encoded: Encoded
    dead: Sequence[DeadLetter]
    """The units of `encoded.faults`, sealed."""
    seal_rejected: SealRejected
    confirm: Confirm | None = None
    """Called before rows are quarantined for what a change of the table would explain."""
    known: int = 0
    """Deliveries beside the batch that are known to be duplicates, for the tally."""

    def keys(self) -> list[str]:
        """Return the keys of rows and dead letters."""
        return [*map(_by_key, self.encoded.rows), *map(_by_key, self.dead)]


class BatchResult(NamedTuple):
    """What became of a batch that is committed."""

    changed: Mapping[str, Outcome] | None = None
    """One outcome for each key. None: the units with rows are written, the others quarantined."""
    rejected: Sequence[DeadLetter] = ()
    """Of the rows that the database rejected."""
    rows: RowChanges = RowChanges()
    """What its rows did, in all tables together."""

    @property
    def slow(self) -> bool:
        """Whether it took the slow path."""
        return self.changed is not None


class Sink(SinkSession):
    """Writes batches through one session, one at a time; connects again when it is gone."""

    def __init__(
        self,
        session: Session,
        plan: SinkPlan,
        connect: Connect,
        vault: Sealer | None = None,
        streak: Streak | None = None,
        pool: SessionPool | None = None,
    ) -> None:
        """`streak`: shared by the sinks of a pipeline. `pool`: lends it a session while it works,
        in place of `session`.
        """
        super().__init__(session, connect, pool)
        self.note = ""
        """A statement that the caller adds to the batch's transactions: a backfill's progress."""
        self.commit_s = 0.0
        """How long the last batch's COMMIT took, its tally row included."""
        self.tap: Tap | None = None
        """Where rows that are written can be watched; None: nowhere."""
        self._probe_s: int | None = None
        self._streak = streak or Streak()
        self.use(plan, vault)

    def use(self, plan: SinkPlan, vault: Sealer | None) -> None:
        """Write for a plan with other keys from now on."""
        self._whole_plan, self._vault = plan, vault
        limit_s = min(plan.statement_timeout_s, self._probe_s or plan.statement_timeout_s)
        self._plan = plan = msgspec.structs.replace(plan, statement_timeout_s=limit_s)
        self._targets = TargetCopy(plan.targets)
        self._ledger = Ledger(
            plan.id,
            undated=plan.undated,
            dedupe=plan.dedupe,
            of_lines=plan.archive or plan.objects,
        )
        self._transactions = BatchTransactions(plan, vault)

    def use_targets(self, targets: tuple[TargetTable, ...]) -> bool:
        """Write to the tables as they are now; return whether they differ.

        Where they do, a transaction under way must not go on.
        """
        if targets == self._whole_plan.targets:
            return False
        self.use(msgspec.structs.replace(self._whole_plan, targets=targets), self._vault)
        return True

    @contextmanager
    def probing(self, timeout_s: int) -> Iterator[None]:
        """Limit each statement to `timeout_s` while the block runs, if the plan allows it more."""
        before, self._probe_s = self._probe_s, timeout_s
        self.use(self._whole_plan, self._vault)
        try:
            yield
        finally:
            self._probe_s = before
            self.use(self._whole_plan, self._vault)

    @property
    def pipeline(self) -> int:
        """The number of the pipeline that it writes for."""
        return self._plan.id

    def ledger_end(self) -> str:
        """Return what ends the ledger's line of a message that is written, after key and id."""
        return self._ledger.line_end("written")

    async def write(self, batch: Batch) -> BatchResult:
        """Commit a batch.

        Raises TransientFault (nothing is wrong with the messages: try again later), FatalFault
        (every row is rejected alike), KeyFault (another key version is active), and what `confirm`
        raises. May be repeated after any of them: the ledger makes a second write of a message a
        DUPLICATE.
        """
        await self.connected()
        fault: DatabaseFault | None = None
        for path in (self._write_by_copy, self._write_slow, self._write_slow):
            if fault and fault.verdict is Verdict.NO_PARTITION:
                await self._attach_days(batch)
            done = await self._try(path(batch, fault))
            if isinstance(done, BatchResult):
                if self.tap is not None and self.tap.watched:
                    self._show(self.tap, batch.encoded, done)
                return done
            fault = done
        assert fault is not None
        raise await self._give_up(fault)

    def _show(self, tap: Tap, encoded: Encoded, done: BatchResult) -> None:
        """Show rows that were committed."""
        texts, changed = encoded.targets, done.changed
        if changed is not None:
            written = [row for row in encoded.rows if changed[row.key] is Outcome.WRITTEN]
            texts = copy_texts(written, len(self._plan.targets))
        tap.take(self._plan.targets, texts)

    async def _try(self, path: Awaitable[_Done]) -> _Done | DatabaseFault:
        """Follow one path to its end; return its fault where another path may do better."""
        self._targets.begin()
        try:
            return await self._limited(path)
        except psycopg.Error as error:
            fault = diagnose(error)
            deadlock = fault.sqlstate == DEADLOCK_DETECTED
            if fault.verdict in _NOT_OF_THE_SINK and not deadlock:
                raise await self._give_up(fault) from None
            return fault

    async def _limited(self, work: Awaitable[_Done]) -> _Done:
        """Wait for work on the session, but not for longer than one attempt may take."""
        return await self.limited(work, write_limit_s(self._plan.statement_timeout_s))

    async def _give_up(self, fault: DatabaseFault) -> TransientFault:
        """Return what to raise; close a session that cannot be used again."""
        if fault.closes_session:
            await self.session.close()
        where = self._targets.writing
        return transient(fault, "PostgreSQL could not take the batch", table=where)

    async def _write_by_copy(
        self, batch: Batch, _before: DatabaseFault | None
    ) -> BatchResult | DatabaseFault:
        encoded, dead = batch.encoded, batch.dead
        async with self._transactions.open(self.session) as transaction:
            await self._ledger.copy(self.session, encoded.ledger, dead)
            if not await self._targets.copy(self.session, encoded.targets):
                await transaction.rollback()
                return SUPPRESSED
            stored = None
            if self._vault is not None and encoded.originals is not None and encoded.count:
                # Without dead letters all originals belong to rows that are written.
                chosen = {row.message_id for row in encoded.rows} if dead else None
                left_out = self._targets.held.left_out(lambda: encoded.rows)
                stored = await self._vault.seal(self.session, encoded.originals, chosen, left_out)
            await copy_dead_letters(self.session, dead, self._plan.id)
            changes = self._targets.changes(encoded.dropped)
            await self._commit(
                transaction,
                changes,
                encoded.count,
                quarantined=len(dead),
                duplicate=len(encoded.repeats) + batch.known,
                first=CONSTRAIN,
            )
        if encoded.count:
            self._streak.note(Rejections())
        self._remember(stored)
        return BatchResult(rows=changes.total)

    async def _write_slow(self, batch: Batch, before: DatabaseFault | None) -> BatchResult:
        encoded = batch.encoded
        outcomes = dict.fromkeys(batch.keys(), Outcome.DUPLICATE)
        alike = Rejections()

        async def search(taken: Sequence[Row]) -> dict[str, DatabaseFault]:
            nonlocal alike
            found, alike = await self._search(batch, taken, before)
            return found

        claim = Claim(self._ledger, batch.dead)
        async with self._transactions.open(self.session) as transaction:
            taken, written, faults, stored = await write_slowly(
                self.session,
                encoded.rows,
                claim,
                search,
                self._vault,
                encoded.originals,
                self._targets.held,
            )
            tables = {row.key: self._targets.name_of(row.target) for row in taken} if faults else {}
            rejected = [
                batch.seal_rejected(key, fault.permanent(tables[key]))
                for key, fault in faults.items()
            ]
            quarantined = [*claim.dead, *rejected]
            await copy_dead_letters(self.session, quarantined, self._plan.id)
            settled = len(written) + len(quarantined)
            changes = self._targets.changes(sum(row.dropped for row in written))
            await self._commit(
                transaction,
                changes,
                len(written),
                quarantined=len(quarantined),
                duplicate=len(outcomes) - settled + len(encoded.repeats) + batch.known,
            )
        if taken:
            # Not before COMMIT: rows that are tried again are not counted twice.
            self._streak.note(alike)
        self._remember(stored)
        outcomes.update(dict.fromkeys(map(_by_key, written), Outcome.WRITTEN))
        outcomes.update(dict.fromkeys(map(_by_key, quarantined), Outcome.QUARANTINED))
        return BatchResult(outcomes, rejected, changes.total)

    async def _search(
        self, batch: Batch, taken: Sequence[Row], before: DatabaseFault | None
    ) -> tuple[dict[str, DatabaseFault], Rejections]:
        """Write the rows that the database takes; return the faults of the others, by key.

        Raises FatalFault where too many are rejected alike, and what `confirm` raises.
        """
        # A fault that the same rows have just met says where to look, or at least that one is bad.
        same = before if before and before.verdict is Verdict.BAD_ROW else None
        suspected = same if len(taken) == len(batch.encoded.rows) else None
        found = await find_rejected(self.session, self._targets, taken, suspected)
        faults = {row.key: fault for row, fault in found.values()}
        if batch.confirm and any(fault.sqlstate in COLUMN_STATES for fault in faults.values()):
            await batch.confirm()
        alike = Rejections.of(taken, faults)
        self._streak.refuse(alike)
        return faults, alike

    def _remember(self, stored: Any) -> None:
        if self._vault is not None and stored is not None:
            self._vault.remember(stored)

    async def _commit(
        self,
        transaction: Transaction,
        changes: TargetChanges,
        written: int,
        *,
        quarantined: int = 0,
        duplicate: int = 0,
        first: str = "",
    ) -> None:
        """Enter the batch in the tally and commit, in one exchange that begins with `first`."""
        began = time.perf_counter()
        entry = enter_batch(
            self._plan.id, changes, written=written, quarantined=quarantined, duplicate=duplicate
        )
        await transaction.commit(*filter(None, (first, self.note)), entry)
        self.commit_s = time.perf_counter() - began

    async def _attach_days(self, batch: Batch) -> None:
        try:
            await attach_days(self.session, batch.keys())
        except psycopg.Error as error:
            raise await self._give_up(diagnose(error)) from None

    @property
    def has_vault(self) -> bool:
        """Whether what it writes is sealed in the vault, too."""
        return self._vault is not None

    async def rehearse(self, part: Part = Part.ALL) -> Refusal | None:
        """Go through the statements of a batch without rows, and roll back.

        Returns the first refusal, None where there is none. Raises TransientFault where no
        connection comes about or the server does not answer, else as `connected` and `rehearse`.
        """
        async with self.lent():
            await self.connected()
            refusal = await self._limited(rehearse(self.session, self._plan, self._vault, part))
            if refusal is not None and refusal.fault.closes_session:
                await self.session.close()
            return refusal

    async def note_suspect(self, key: str, attempt: int) -> bool:
        """Commit a marker: a message is being tried alone, at its delivery number `attempt`.

        Returns whether an earlier delivery left a marker. Raises TransientFault.
        """
        [(before,)] = await self.run_alone(_NOTE_SUSPECT, [key, key, self._plan.id, attempt])
        return before is not None and before < attempt

    async def clear_suspect(self, key: str) -> None:
        """Delete the marker that `note_suspect` made. Raises TransientFault."""
        await self.run_alone(_CLEAR_SUSPECT, [key])

    async def read(
        self, statement: str, parameters: Sequence[object], limit_s: float
    ) -> list[tuple[Any, ...]]:
        """Run one statement that only reads, outside a transaction; return its rows.

        Raises TransientFault, also after `limit_s` seconds without an answer, or FatalFault.
        """

        async def read() -> list[tuple[Any, ...]]:
            async with self.lent():
                await self.connected()
                return await self.session.execute(statement, parameters)

        try:
            return await self.limited(read(), limit_s)
        except psycopg.Error as error:
            raise await self._give_up(diagnose(error)) from None

    async def run_alone(
        self, statement: str, parameters: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        """Run one statement as a durable transaction of its own; return its rows.

        Raises TransientFault or FatalFault.
        """
        async with self.lent():
            await self.connected()
            try:
                async with self.session.transaction(*self._transactions.opening):
                    return await self.session.execute(statement, parameters)
            except psycopg.Error as error:
                raise await self._give_up(diagnose(error)) from None

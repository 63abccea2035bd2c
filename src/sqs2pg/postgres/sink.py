"""Write: rows and dead letters -> PostgreSQL, in one transaction with their ledger entries.

Fast path: COPY the ledger, the rows and the quarantine straight in, sorted by key. Slow path,
taken when the fast one fails: claim the keys (what is in the ledger already is a duplicate),
search out the rows the database rejects, quarantine them, commit the rest.

Promises: after `write` returns, every row of the batch is durably committed as WRITTEN, was
there already (DUPLICATE), or is durably QUARANTINED. When it raises, nothing of the batch is
committed, or its COMMIT's reply was lost and the ledger will say so on the next try.

Must never do: report an outcome before COMMIT, quarantine a row for a fault of the world, or let
the database's words out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Protocol, TypeVar

import msgspec
import psycopg

from sqs2pg.errors import FatalFault, KeyFault, PermanentFault, Stage, TransientFault
from sqs2pg.mapping import ledger_key
from sqs2pg.mapping.copy_text import NULL, binary, escaped
from sqs2pg.mapping.originals import Originals
from sqs2pg.message import DeadLetter, Outcome, Row
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.identifiers import quote_literal
from sqs2pg.postgres.reject_search import SUPPRESSED, find_rejected
from sqs2pg.postgres.sqlstate import COLUMN_STATES, DatabaseFault, Verdict, diagnose
from sqs2pg.postgres.target_copy import RowCounts, TargetCopy, TargetTable
from sqs2pg.settings import write_limit_s

SealRejected = Callable[[str, PermanentFault], DeadLetter]
"""Seal the message of a ledger key that the database rejected."""
Confirm = Callable[[], Awaitable[None]]
"""Hold the tables against what the rows were made for, on the sink's session. Raises TransientFault
where they are something else by now."""

Connect = Callable[[], Awaitable[Session]]


class Sealer(Protocol):
    """The vault as the sink sees it (`vault/seal.py`): part of each transaction."""

    open_statements: str
    """Follow what opens a transaction; the rows they return are the last it returns."""

    def check_epoch(self, epoch: int, version: int | None) -> None:
        """Check keys and caches against what they returned. Raises KeyFault."""

    async def seal(
        self, session: Session, originals: Originals, chosen: Collection[str] | None = None
    ) -> Any:
        """Store what the written rows hide. Raises psycopg.Error or KeyFault."""

    def remember(self, marks: Any) -> None:
        """Take what `seal` returned, once it is committed."""


_Done = TypeVar("_Done")

# `on` or stronger, whatever the role's default: a batch that is acknowledged must survive a
# crash of the server. SET LOCAL, because a pooler shares sessions out.
BATCH_SETTINGS = """SELECT set_config('synchronous_commit',
           CASE current_setting('synchronous_commit')
               WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
       set_config('statement_timeout', '{timeout_ms}', true),
       set_config('lock_timeout', '{timeout_ms}', true),
       set_config('idle_in_transaction_session_timeout', '{timeout_ms}', true),
       set_config('TimeZone', 'UTC', true),
       (SELECT version FROM sqs2pg.key WHERE series = 'pseudonym' AND active)"""
"""What a transaction that writes rows runs under, replay's too; its last column is the active key.

`{timeout_ms}` bounds each statement. Dates without a zone mean UTC.
"""

_COPY_LEDGER = "COPY sqs2pg.delivery (key, message_id, pipeline, outcome, seen_at) FROM STDIN"
_COPY_QUARANTINE = (
    "COPY sqs2pg.quarantine (key, message_id, pipeline, reason, detail, attempts, sent_at, body,"
    " sealed_under, subject, attributes) FROM STDIN"
)
_CLAIM = """INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome, seen_at)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::smallint[],
                     %s::sqs2pg.delivery_outcome[], %s::timestamptz[])
ON CONFLICT (key) DO NOTHING RETURNING key::text"""
_HELD = "SELECT key::text, message_id FROM sqs2pg.delivery WHERE key = ANY(%s::uuid[])"
_SET_ASIDE = "UPDATE sqs2pg.delivery SET outcome = 'quarantined' WHERE key = ANY(%s::uuid[])"
# What is deferred is checked before COMMIT, whose faults say nothing of rows.
_CONSTRAIN = "SET CONSTRAINTS ALL IMMEDIATE"
_COMMIT = """INSERT INTO sqs2pg.tally
    (pipeline, written, quarantined, duplicate, target_rows, dropped, target)
VALUES ({pipeline}, {written}, {quarantined}, {duplicate}, {target_rows}, {dropped}, NULL){also};
COMMIT"""
_ALSO = ", ({pipeline}, 0, 0, 0, {target_rows}, 0, {target})"

_NOTE_SUSPECT = """WITH before AS (SELECT attempt FROM sqs2pg.suspect WHERE key = %s)
INSERT INTO sqs2pg.suspect AS s (key, pipeline, attempt) VALUES (%s, %s, %s)
ON CONFLICT (key) DO UPDATE SET attempt = excluded.attempt, tried_at = now()
RETURNING (SELECT attempt FROM before)"""

# Made once and run by map: a generator costs a Python call a row.
_by_key = attrgetter("key")

ALL_REJECTED_MIN = 10
"""Rows in a row that, all rejected with one detail, stop the process instead."""


class SinkPlan(msgspec.Struct, frozen=True):
    """What the sink needs to know of the pipeline it writes for."""

    id: int
    targets: tuple[TargetTable, ...]
    """Where rows go, in the order that a row counts them in."""
    key_version: int
    """The version of the pseudonym root the rows were masked under."""
    statement_timeout_s: int = 60
    fifo: bool = False
    """Rows are written in the order given; the ledger's keys have no timestamp of their own."""
    archive: bool = False
    """Rows are of archives: their day says nothing of when the ledger saw them."""
    dedupe: bool = False
    """Keys may name events, not messages: several messages may have one key."""

    @property
    def undated(self) -> bool:
        """Whether keys may lack a timestamp, so that the ledger notes when they were seen."""
        return self.fifo or self.dedupe or self.archive


class Rejections(msgspec.Struct, frozen=True):
    """Rows of one batch that the database rejected, every one of them alike."""

    count: int = 0
    detail: str = ""


class Streak:
    """Rows in a row that the database rejected alike, over the batches of a process's sinks.

    A slow queue's batches hold one row each, so that one batch alone would never say that the
    table is at fault, not the rows.
    """

    def __init__(self) -> None:
        self._before = Rejections()

    def refuse(self, alike: Rejections) -> None:
        """Raise FatalFault where too many are rejected with these."""
        count = self._with(alike).count
        if count >= ALL_REJECTED_MIN:
            raise FatalFault(
                f"the database rejects every one of {count} rows alike (SQLSTATE {alike.detail})",
                code="all_rejected",
                hint="the table or the mapping is at fault, not the messages; they stay on the "
                "queue",
            )

    def note(self, alike: Rejections) -> None:
        """Add a batch's, once it is committed; without any the streak is over."""
        self._before = self._with(alike)

    def _with(self, alike: Rejections) -> Rejections:
        if not alike.count or alike.detail != self._before.detail:
            return alike
        return Rejections(self._before.count + alike.count, alike.detail)


class BatchResult(msgspec.Struct):
    """What became of a batch: an outcome a ledger key, and why rows were rejected."""

    outcomes: dict[str, Outcome]
    rejected: list[DeadLetter] = []
    slow: bool = False


class Packed(msgspec.Struct, frozen=True):
    """A batch of which nothing is odd, as the texts of its two COPYs, sorted by key."""

    count: int
    ledger: bytes
    rows: bytes
    oldest_ms: int
    """Its oldest SentTimestamp, milliseconds since the epoch."""


class Sink:
    """Writes batches through one session, one at a time; connects afresh when it is gone."""

    def __init__(
        self,
        session: Session,
        plan: SinkPlan,
        connect: Connect,
        vault: Sealer | None = None,
        streak: Streak | None = None,
    ) -> None:
        """`streak`: shared by the sinks of a process."""
        self.session = session
        self.note = ""
        """A statement of the caller's for the transactions of the batch: a backfill's progress."""
        self.commit_s = 0.0
        """How long the last batch's COMMIT took, its tally row included."""
        self._repeated = 0
        self._connect = connect
        self._streak = streak or Streak()
        self.use(plan, vault)

    def use(self, plan: SinkPlan, vault: Sealer | None) -> None:
        """Write from now on for a pipeline of other keys."""
        self._plan, self._vault = plan, vault
        self._targets = TargetCopy(plan.targets)
        self._begin = f"BEGIN;\n{BATCH_SETTINGS}".format(
            timeout_ms=plan.statement_timeout_s * 1000
        ) + (vault.open_statements if vault else "")

    async def connected(self) -> Session:
        """Return the session, a new one where it is gone. Raises TransientFault or FatalFault."""
        if self.session.broken:
            self.session = await self._connect()
        return self.session

    async def write(
        self,
        rows: Sequence[Row],
        dead: Sequence[DeadLetter],
        seal_rejected: SealRejected,
        originals: Originals | None = None,
        before: DatabaseFault | None = None,
        confirm: Confirm | None = None,
        repeated: int = 0,
    ) -> BatchResult:
        """Commit a batch of distinct keys; return an outcome for each.

        `originals` are what the rows hide: those of the written ones are sealed with them.
        `before`: what `write_packed` has just met with the same rows. `confirm`: asked before rows
        are set aside for something that a change of the table would explain. `repeated`: deliveries
        of the batch whose key another one of it has; the tally counts them as duplicates.

        Raises TransientFault (nothing is wrong with the messages: try again later), FatalFault
        (every row is rejected alike) or KeyFault (another key version is active). May be
        repeated after any of them: the ledger makes a second write of a message a DUPLICATE.
        """
        await self.connected()
        self._repeated = repeated
        if not self._plan.fifo:
            rows = sorted(rows, key=_by_key)
        dead = sorted(dead, key=_by_key)
        fault = before
        slow = [self._write_slow] * 2
        for path in [self._write_fast, *slow] if before is None else slow:
            if fault and fault.verdict is Verdict.NO_PARTITION:
                await self._attach_days(rows, dead)
            done = await self._try(path(rows, dead, seal_rejected, fault, originals, confirm))
            if isinstance(done, BatchResult):
                return done
            fault = done
        assert fault is not None
        raise await self._give_up(fault)

    async def write_packed(self, packed: Packed) -> DatabaseFault | None:
        """Commit a whole batch as WRITTEN, by the fast path alone.

        Returns None, or why that will not do: nothing is committed then, and `write` is to be
        asked. Raises as `write` does.
        """
        await self.connected()
        return await self._try(self._write_packed(packed))

    async def _try(self, path: Awaitable[_Done]) -> _Done | DatabaseFault:
        """Follow one path to its end; return what it met where another path may do better."""
        try:
            async with asyncio.timeout(write_limit_s(self._plan.statement_timeout_s)):
                return await path
        except TimeoutError:
            # The server's own timeouts did not come back to us: the connection is stuck.
            await self.session.close()
            raise TransientFault(
                "PostgreSQL did not answer in time", code="postgres_no_answer"
            ) from None
        except psycopg.Error as error:
            fault = diagnose(error)
            await self.session.rollback()
            if fault.verdict is Verdict.TRANSIENT and fault.sqlstate != "40P01":
                await self._give_up(fault)
            return fault
        except BaseException:
            # Cancelled or refused in mid-transaction: the session's state is unknown.
            await self.session.close()
            raise

    async def note_suspect(self, key: str, attempt: int) -> bool:
        """Note durably that a message is being tried alone, at its delivery number `attempt`.

        Returns whether an earlier delivery left such a note. Raises TransientFault.
        """
        rows = await self._alone(_NOTE_SUSPECT, [key, key, self._plan.id, attempt])
        before = rows[0][0]
        return before is not None and before < attempt

    async def clear_suspect(self, key: str) -> None:
        """Remove the note: the message came to its end. Raises TransientFault."""
        await self._alone("DELETE FROM sqs2pg.suspect WHERE key = %s", [key])

    async def _alone(self, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """Run one statement as a durable transaction of its own."""
        await self.connected()
        try:
            await self.session.execute(self._begin)
            rows = await self.session.execute(statement, parameters)
            await self.session.execute("COMMIT")
        except psycopg.Error as error:
            await self.session.rollback()
            raise await self._give_up(diagnose(error)) from None
        return rows

    async def _give_up(self, fault: DatabaseFault) -> TransientFault:
        if fault.sqlstate.startswith(("08", "25", "57")):
            # The server is going away, or is a standby now: the next try connects afresh.
            await self.session.close()
        raise TransientFault(
            f"PostgreSQL could not take the batch (SQLSTATE {fault.detail})",
            code=f"postgres_{fault.sqlstate}",
        )

    async def _write_packed(self, packed: Packed) -> DatabaseFault | None:
        await self._open()
        await self.session.copy(_COPY_LEDGER, packed.ledger)
        if not await self._targets.copy_text(self.session, packed.rows, packed.count):
            await self.session.rollback()
            return SUPPRESSED
        await self._close(packed.count, RowCounts(packed.count, [], 0), first=_CONSTRAIN)
        self._streak.note(Rejections())
        return None

    async def _write_fast(
        self,
        rows: Sequence[Row],
        dead: Sequence[DeadLetter],
        seal_rejected: SealRejected,
        _before: DatabaseFault | None,
        originals: Originals | None,
        confirm: Confirm | None,
    ) -> BatchResult:
        await self._open()
        await self._copy_ledger(rows, dead)
        if rows and not await self._targets.copy(self.session, rows):
            await self.session.rollback()
            return await self._write_slow(rows, dead, seal_rejected, SUPPRESSED, originals, confirm)
        marks = await self._seal(originals, rows, every=not dead)
        await self._copy_quarantine(dead)
        counts = self._targets.count(rows)
        await self._close(
            len(rows),
            counts,
            quarantined=len(dead),
            duplicate=self._repeated,
            first=_CONSTRAIN,
        )
        if rows:
            self._streak.note(Rejections())
        self._remember(marks)
        outcomes = dict.fromkeys(map(_by_key, rows), Outcome.WRITTEN)
        outcomes.update(dict.fromkeys(map(_by_key, dead), Outcome.QUARANTINED))
        return BatchResult(outcomes)

    async def _write_slow(
        self,
        rows: Sequence[Row],
        dead: Sequence[DeadLetter],
        seal_rejected: SealRejected,
        before: DatabaseFault | None,
        originals: Originals | None,
        confirm: Confirm | None,
    ) -> BatchResult:
        await self._open()
        await self.session.execute(_CONSTRAIN)
        fresh = await self._claim(rows, dead)
        outcomes = dict.fromkeys(_keys(rows, dead), Outcome.DUPLICATE)
        new_rows = [row for row in rows if row.key in fresh]
        new_dead = [letter for letter in dead if letter.key in fresh]
        # A fault that the same rows have just met tells where to look, or at least that one is bad.
        same = before if before and before.verdict is Verdict.BAD_ROW else None
        suspected = same if len(new_rows) == len(rows) else None
        found = await find_rejected(self.session, self._targets, new_rows, suspected)
        if confirm and any(fault.sqlstate in COLUMN_STATES for _, fault in found.values()):
            await confirm()
        alike = _alike(new_rows, found)
        self._streak.refuse(alike)
        rejected = [seal_rejected(row.key, _as_permanent(fault)) for row, fault in found.values()]
        if rejected:
            await self.session.execute(_SET_ASIDE, [[letter.key for letter in rejected]])
        refused = {letter.key for letter in rejected}
        written = [row for row in new_rows if row.key not in refused]
        marks = await self._seal(originals, written, every=False)
        await self._copy_quarantine([*new_dead, *rejected])
        quarantined = len(new_dead) + len(rejected)
        await self._close(
            len(written),
            self._targets.count(written),
            quarantined=quarantined,
            duplicate=len(outcomes) - len(written) - quarantined + self._repeated,
        )
        if new_rows:
            # Not before COMMIT: rows that are tried again are not counted twice.
            self._streak.note(alike)
        self._remember(marks)
        outcomes.update(dict.fromkeys((row.key for row in written), Outcome.WRITTEN))
        for letter in (*new_dead, *rejected):
            outcomes[letter.key] = Outcome.QUARANTINED
        return BatchResult(outcomes, rejected, slow=True)

    async def _seal(
        self, originals: Originals | None, written: Sequence[Row], *, every: bool
    ) -> Any:
        """Seal what the written rows hide; `every`: none of the batch's records was left out."""
        if self._vault is None or originals is None or not written:
            return None
        chosen = None if every else {row.message_id for row in written}
        return await self._vault.seal(self.session, originals, chosen)

    def _remember(self, marks: Any) -> None:
        if self._vault is not None and marks is not None:
            self._vault.remember(marks)

    async def _open(self) -> None:
        [(*read, active)] = await self.session.execute(self._begin)
        if self._vault is not None:
            self._vault.check_epoch(*read)
        if active != self._plan.key_version:
            raise KeyFault(
                f"the batch is masked under pseudonym version {self._plan.key_version}, "
                f"but version {active} is the active one",
                code="key_version",
                hint="restart, so that the active version is used; `sqs2pg keys list` shows both",
            )

    async def _close(
        self,
        written: int,
        counts: RowCounts,
        *,
        quarantined: int = 0,
        duplicate: int = 0,
        first: str = "",
    ) -> None:
        """Enter the batch in the tally and commit, in one exchange; `first`: a statement before."""
        began = time.perf_counter()
        before = "".join(f"{statement};\n" for statement in (first, self.note) if statement)
        await self.session.execute(
            before
            + _COMMIT.format(
                pipeline=self._plan.id,
                written=written,
                quarantined=quarantined,
                duplicate=duplicate,
                target_rows=counts.first,
                dropped=counts.dropped,
                also="".join(
                    _ALSO.format(
                        pipeline=self._plan.id, target=quote_literal(name), target_rows=rows
                    )
                    for name, rows in counts.others
                ),
            )
        )
        self.commit_s = time.perf_counter() - began

    async def _copy_ledger(self, rows: Sequence[Row], dead: Sequence[DeadLetter]) -> None:
        written, quarantined = self.ledger_tail("written"), self.ledger_tail("quarantined")
        lines = [f"{row.key}\t{row.message_id}\t{written}" for row in rows]
        lines += [f"{letter.key}\t{letter.message_id}\t{quarantined}" for letter in dead]
        if self._plan.fifo or dead:
            lines.sort()  # by key: two COPYs that meet then wait, and never deadlock
        await self.session.copy(_COPY_LEDGER, "".join(lines))

    def ledger_tail(self, outcome: str) -> str:
        """Return what ends a line of the ledger's COPY, after key and MessageId."""
        seen_at = datetime.now(UTC).isoformat() if self._plan.undated else NULL
        return f"{self._plan.id}\t{outcome}\t{seen_at}\n"

    async def _copy_quarantine(self, dead: Iterable[DeadLetter]) -> None:
        if lines := [_quarantine_line(letter, self._plan.id) for letter in dead]:
            await self.session.copy(_COPY_QUARANTINE, "".join(lines))

    async def _claim(self, rows: Sequence[Row], dead: Sequence[DeadLetter]) -> set[str]:
        entries: list[Row | DeadLetter] = [*rows, *dead]
        entries.sort(key=_by_key)
        outcomes = {letter.key: "quarantined" for letter in dead}
        seen_at = datetime.now(UTC) if self._plan.undated else None
        claimed = await self.session.execute(
            _CLAIM,
            [
                [entry.key for entry in entries],
                [entry.message_id for entry in entries],
                [self._plan.id] * len(entries),
                [outcomes.get(entry.key, "written") for entry in entries],
                [seen_at] * len(entries),
            ],
        )
        fresh = {key for (key,) in claimed}
        held = {entry.key: entry.message_id for entry in entries if entry.key not in fresh}
        if held and not self._plan.dedupe:
            for key, message_id in await self.session.execute(_HELD, [list(held)]):
                if held[key] != message_id:
                    raise FatalFault(
                        f"messages {message_id} and {held[key]} have one ledger key",
                        code="key_collision",
                        hint="the queue server gives MessageIds that are not unique; report it",
                    )
        return fresh

    async def _attach_days(self, rows: Sequence[Row], dead: Sequence[DeadLetter]) -> None:
        # Day by day: a batch may hold messages years apart, and few days of them can be missing.
        days = {ledger_key.day_of(ledger_key.sent_ms_of(key)) for key in _keys(rows, dead)}
        try:
            for day in sorted(days):
                await self.session.execute("SELECT sqs2pg.attach_days(%s, %s)", [day, day])
        except psycopg.Error as error:
            raise await self._give_up(diagnose(error)) from None


def _keys(rows: Sequence[Row], dead: Sequence[DeadLetter]) -> list[str]:
    return [row.key for row in rows] + [letter.key for letter in dead]


def _as_permanent(fault: DatabaseFault) -> PermanentFault:
    return PermanentFault(fault.reason, fault.detail, stage=Stage.WRITE)


def _alike(rows: Sequence[Row], found: Mapping[int, tuple[Row, DatabaseFault]]) -> Rejections:
    """Return the rows as rejected alike; none unless that is so of every one of them."""
    details = {fault.detail for _, fault in found.values()}
    if len(found) < len(rows) or len(details) != 1:
        return Rejections()
    return Rejections(len(rows), details.pop())


def _quarantine_line(letter: DeadLetter, pipeline: int) -> str:
    sent_at = datetime.fromtimestamp(letter.sent_timestamp / 1000, UTC).isoformat()
    sealed = letter.sealed_attributes
    attributes = NULL if sealed is None else binary(sealed)
    return (
        f"{letter.key}\t{letter.message_id}\t{pipeline}\t{letter.reason}\t{escaped(letter.detail)}"
        f"\t{letter.attempts}\t{sent_at}\t{binary(letter.sealed_body)}\t{letter.sealed_under}"
        f"\t{letter.subject or NULL}\t{attributes}\n"
    )
